"""The declarative base, the column types both databases share, and the mark of a table that belongs to a tenant."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import JSON, DateTime, Dialect, MetaData, String, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

MAX_NAME = 255
MAX_ACTOR = 256
MAX_SUBJECT = MAX_ACTOR + 16
MAX_ENUM = 32


class Timestamp(TypeDecorator[datetime]):
    """A moment in UTC with microseconds: ``timestamptz`` on PostgreSQL, sortable text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; SQLite gets them without the offset that it would not keep."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without an offset cannot be stored")
        return value.astimezone(UTC).replace(tzinfo=None) if dialect.name == "sqlite" else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        """PostgreSQL's driver gives UTC by itself: a page of twenty rows has sixty times."""
        return super().result_processor(dialect, coltype) if dialect.name == "sqlite" else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give every time its offset back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Json: TypeEngine[Any] = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    """Base of every table."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        UUID: Uuid(),
        datetime: Timestamp(),
        dict[str, Any]: Json,
        str: String(MAX_NAME),
    }


class TenantOwned:
    """Mixin of every table whose rows belong to one organization; the session fences them (``tenancy``)."""

    organization_id: Mapped[UUID] = mapped_column(Uuid())

    @classmethod
    def tenant_column(cls) -> InstrumentedAttribute[UUID]:
        """The column that names the tenant."""
        return cls.organization_id


class Recorded:
    """Mixin of rows with an author, times and a revision that each update raises by one."""

    created_at: Mapped[datetime] = mapped_column(Timestamp())
    updated_at: Mapped[datetime] = mapped_column(Timestamp())
    created_by_subject: Mapped[str] = mapped_column(String(MAX_SUBJECT))
    revision: Mapped[int]
