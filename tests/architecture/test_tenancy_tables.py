"""Every table that belongs to a tenant is fenced by the session and tied to its tenant by the database."""

from typing import Any

import pytest
from sqlalchemy import ForeignKeyConstraint, Table, select
from sqlalchemy.orm import Mapper

from app.db.base import Base
from app.db.tenancy import Fence, FencedSession, TenancyError
from app.models import AuditChain, AuditCheckpoint, AuditEvent, AuditGap, AuditRetention, Installation, Organization, RateBucket

TENANT = "organization_id"
# The trail, with its chain and what was decided about it, outlives the organization it speaks of.
WITHOUT_KEY = {model.__tablename__ for model in (AuditEvent, AuditChain, AuditGap, AuditCheckpoint, AuditRetention)}
SHARED = {Installation, RateBucket}  # they hold nothing of a tenant, and nothing that a request could ask for
MODELS: list[Mapper[Base]] = sorted(Base.registry.mappers, key=lambda mapper: mapper.class_.__tablename__)
TABLES = [Base.metadata.tables[mapper.class_.__tablename__] for mapper in MODELS]
MAPPERS = [mapper for mapper in MODELS if mapper.class_ not in SHARED]
OWNED = [table for table in TABLES if TENANT in table.columns]


def name_of(item: Mapper[Base] | Table) -> str:
    return item.name if isinstance(item, Table) else str(item.class_.__tablename__)


def test_every_table_is_seen_and_belongs_to_a_tenant() -> None:
    assert len(TABLES) >= 8
    assert {table.name for table in TABLES} == set(Base.metadata.tables), "a table without a mapped class passes no fence"
    assert {table.name for table in TABLES} - {table.name for table in OWNED} == {model.__tablename__ for model in (Organization, *SHARED)}


@pytest.mark.parametrize("mapper", MAPPERS, ids=name_of)
def test_a_session_without_a_tenant_reads_nothing_of_it(mapper: Mapper[Base]) -> None:
    with FencedSession(fence=Fence(is_read_only=True)) as session, pytest.raises(TenancyError, match=r"no tenant is pinned"):
        session.execute(select(mapper.class_))


@pytest.mark.parametrize("mapper", MAPPERS, ids=name_of)
def test_it_names_the_column_of_its_tenant(mapper: Mapper[Base]) -> None:
    expected = "id" if mapper.class_ is Organization else TENANT
    fenced: Any = mapper.class_
    assert fenced.tenant_column().key == expected
    assert not fenced.__table__.c[expected].nullable


@pytest.mark.parametrize("table", OWNED, ids=name_of)
def test_the_database_ties_it_to_its_tenant(table: Table) -> None:
    keys = [constraint for constraint in table.constraints if isinstance(constraint, ForeignKeyConstraint)]
    if table.name in WITHOUT_KEY:
        assert keys == []
        return
    ties = [key for key in keys if _tenant_pairs(key)]
    assert ties, "no foreign key carries organization_id"
    for key in keys:
        held = key in ties or any({*key.column_keys} < {*tie.column_keys} for tie in ties)
        assert held, "a foreign key without organization_id could point into another tenant"
        is_of_another_project = "parent_execution_id" in key.column_keys  # perhaps; so what hangs there stays
        assert (key.ondelete == "CASCADE") is not is_of_another_project


def _tenant_pairs(key: ForeignKeyConstraint) -> list[str]:
    """The pair of columns by which a foreign key stays in its tenant."""
    pairs = zip(key.column_keys, (element.target_fullname for element in key.elements), strict=True)
    return [target for column, target in pairs if column == TENANT and (target == "organizations.id" or target.endswith(f".{TENANT}"))]
