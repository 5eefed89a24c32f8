"""Organizations: the tenants."""

from typing import Any
from uuid import UUID

from sqlalchemy import String
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from app.db.base import Base, Json, Recorded

MAX_SLUG = 63


class Organization(Recorded, Base):
    """A tenant. It is fenced like every tenant table, by its own id."""

    __tablename__ = "organizations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(MAX_SLUG), unique=True)
    name: Mapped[str]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json)

    @classmethod
    def tenant_column(cls) -> InstrumentedAttribute[UUID]:
        """An organization belongs to itself."""
        return cls.id
