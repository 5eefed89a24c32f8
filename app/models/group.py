"""Groups of an organization and who is in them; a group may hold groups."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.identifiers import new_id
from app.db.base import MAX_ACTOR, MAX_ENUM, MAX_SUBJECT, Base, Json, Recorded, TenantOwned, Timestamp


class Group(TenantOwned, Recorded, Base):
    """A named set of actors, known only inside its organization."""

    __tablename__ = "groups"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    group_id: Mapped[str] = mapped_column(String(MAX_ACTOR))
    name: Mapped[str]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json)

    __table_args__ = (
        UniqueConstraint("organization_id", "group_id"),
        *(Index(None, "organization_id", name, "id") for name in ("created_at", "name")),
    )


class GroupMember(TenantOwned, Base):
    """An actor, or another group of the same organization, in a group."""

    __tablename__ = "group_members"

    organization_id: Mapped[UUID] = mapped_column(primary_key=True)
    group_id: Mapped[str] = mapped_column(String(MAX_ACTOR), primary_key=True)
    member_type: Mapped[str] = mapped_column(String(MAX_ENUM), primary_key=True)
    member_id: Mapped[str] = mapped_column(String(MAX_ACTOR), primary_key=True)
    added_at: Mapped[datetime] = mapped_column(Timestamp())
    added_by_subject: Mapped[str] = mapped_column(String(MAX_SUBJECT))
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp())

    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "group_id"],
            ["groups.organization_id", "groups.group_id"],
            ondelete="CASCADE",
        ),
        Index(None, "member_type", "member_id", "organization_id", "group_id"),
    )
