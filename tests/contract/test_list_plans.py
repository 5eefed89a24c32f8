"""Lists look their rows up by index: no list reads a table from end to end, on either database."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Select, event, select

from app.authz.builtin import BuiltinPolicyEngine
from app.core.actors import Actor, ActorType, Asker
from app.core.clock import now
from app.core.permissions import Action, Role
from app.db.engine import Database
from app.db.functions import unindexed
from app.db.visibility import confine_to, only_first
from app.models import Document
from tests.support import rows
from tests.support.database import OWNER, as_role, open_database
from tests.support.rows import Rows

pytestmark = pytest.mark.anyio

ENGINE = BuiltinPolicyEngine()
ASKER = Asker(Actor(ActorType.USER, "u"))
TENANTS, EACH = 100, 40
NEWEST_FIRST = (Document.created_at.desc(), Document.id.desc())


def many_documents() -> Rows:
    """The asker sees all of two tenants, of a third one project, of a fourth one document."""
    told: Rows = []
    for number in range(TENANTS):
        home, home_rows = rows.organization(f"tenant-{number}")
        project, project_rows = rows.project(home)
        told += home_rows + project_rows
        for when in range(EACH):
            place, ((model, row), _) = rows.document(project)
            told.append((model, {**row, "created_at": rows.BEGINNING + timedelta(minutes=when, seconds=number)}))
        if number < 4:
            given = (home, Role.ORG_MEMBER), (home, Role.ORG_MEMBER), (project, Role.PROJECT_VIEWER), (place, Role.DOCUMENT_VIEWER)
            told += rows.grant(given[number][0], ASKER.actor, given[number][1])
    return told


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(as_role(database_url, OWNER)) as opened:  # whose plans are not about policies
        await rows.write(opened, many_documents())
        async with opened.open_read() as connection:
            await connection.exec_driver_sql("ANALYZE")
        yield opened


async def plan_of(database: Database, statement: Select[Any]) -> list[str]:
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, text: str, parameters: Any, *_rest: Any) -> None:
        sent.append((text, parameters))

    async with database.open_read() as connection:
        event.listen(database.reader.sync_engine, "before_cursor_execute", note)
        await connection.execute(statement, dict(ENGINE.asking(ASKER, now())))
        event.remove(database.reader.sync_engine, "before_cursor_execute", note)
        ((text, parameters),) = sent
        if not database.is_sqlite:
            await connection.exec_driver_sql("SET enable_seqscan = off")  # so few rows would be read whole otherwise
        explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
        return [str(row[-1]).strip() for row in await connection.exec_driver_sql(f"{explain} {text}", parameters)]


def listed(*columns: Any) -> Select[Any]:
    return confine_to(select(*columns), Document, ENGINE.visible_rows(Document, Action.DOCUMENT_READ, ASKER))


async def test_a_list_is_found_by_index(database: Database) -> None:
    plan = await plan_of(database, listed(Document.id).order_by(unindexed(Document.id)).limit(20))
    assert any("MULTI-INDEX OR" in step or "BitmapOr" in step for step in plan), plan
    assert not any(step.startswith("SCAN documents") or "Seq Scan on documents" in step for step in plan), plan


async def test_the_newest_of_a_list_are_read_from_the_end_of_an_index(database: Database) -> None:
    plan = await plan_of(database, only_first(listed(Document.id), Document.id, NEWEST_FIRST, 5))
    for column in ("organization_id", "project_id"):
        index = f"ix_documents_{column}_created_at_id"
        assert any(f"Index Only Scan Backward using {index}" in step or f"INDEX {index} ({column}=?)" in step for step in plan), plan
    assert not any(step.startswith("SCAN documents") or "Seq Scan on documents" in step for step in plan), plan


@pytest.mark.parametrize("before", [timedelta(days=1), timedelta(minutes=5)])
@pytest.mark.parametrize("limit", [1, 7, 41, 200])
async def test_the_first_rows_are_those_of_the_whole_list(database: Database, limit: int, before: timedelta) -> None:
    asking = dict(ENGINE.asking(ASKER, now()))
    statement = listed(Document.id, Document.created_at).where(Document.created_at < rows.BEGINNING + before)
    async with database.open_read() as connection:
        every = (await connection.execute(statement, asking)).all()
        first = (await connection.execute(only_first(statement, Document.id, NEWEST_FIRST, limit), asking)).all()
        third = (await connection.execute(only_first(statement, Document.id, NEWEST_FIRST, limit, 2 * limit), asking)).all()
    assert len(every) == (3 * EACH + 1 if before > timedelta(hours=1) else 3 * 5)
    newest_first = sorted(every, key=lambda row: (row.created_at, row.id), reverse=True)
    assert first == newest_first[:limit]
    assert third == newest_first[2 * limit : 3 * limit]
