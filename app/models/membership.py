"""Memberships: which actor holds which role on which resource."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.permissions import Role
from app.core.resources import ResourceType
from app.db.base import MAX_ACTOR, MAX_ENUM, MAX_SUBJECT, Base, TenantOwned, Timestamp


def _role_fits_level() -> str:
    roles = {level: ", ".join(f"'{role.value}'" for role in Role if role.fits(level)) for level in ResourceType}
    return " OR ".join(f"(resource_type = '{level.value}' AND role IN ({names}))" for level, names in roles.items())


class Membership(TenantOwned, Base):
    """A grant. It dies with its organization and its project by foreign key, and with its leaf resource by the service that deletes it."""

    __tablename__ = "memberships"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    project_id: Mapped[UUID | None]
    resource_type: Mapped[str] = mapped_column(String(MAX_ENUM))
    resource_id: Mapped[UUID]
    actor_type: Mapped[str] = mapped_column(String(MAX_ENUM))
    actor_id: Mapped[str] = mapped_column(String(MAX_ACTOR))
    role: Mapped[str] = mapped_column(String(MAX_ENUM))
    granted_at: Mapped[datetime] = mapped_column(Timestamp())
    granted_by_subject: Mapped[str] = mapped_column(String(MAX_SUBJECT))
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp())

    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "project_id"],
            ["projects.organization_id", "projects.id"],
            ondelete="CASCADE",
        ),
        # Actor first: an actor with very many grants is still probed by one index lookup per scope.
        UniqueConstraint("actor_type", "actor_id", "resource_type", "resource_id", "role", name="uq_memberships_grant"),
        Index(None, "resource_type", "resource_id"),
        Index(None, "organization_id", "project_id"),
        CheckConstraint(_role_fits_level(), name="role_fits_level"),
    )
