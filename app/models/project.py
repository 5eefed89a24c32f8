"""Projects: what an organization divides its work into."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Json, Recorded, TenantOwned


class Project(TenantOwned, Recorded, Base):
    """A part of an organization; names need not be unique."""

    __tablename__ = "projects"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    name: Mapped[str]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json)

    __table_args__ = (
        UniqueConstraint("organization_id", "id"),  # what composite foreign keys of children point at
        *(Index(None, "organization_id", name, "id") for name in ("created_at", "updated_at", "name")),
    )
