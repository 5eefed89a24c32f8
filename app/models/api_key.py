"""API keys and their secrets. A key may have two secrets while it is being rotated; only hashes are kept."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import MAX_ENUM, Base, Json, Recorded, TenantOwned, Timestamp

MAX_PREFIX = 32
MAX_HASH = 64


class ApiKey(TenantOwned, Recorded, Base):
    """A credential of a program: one role on one organization or project. Its grant stands in ``memberships`` like any other."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    project_id: Mapped[UUID | None]
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(String(MAX_PREFIX))
    scope_type: Mapped[str] = mapped_column(String(MAX_ENUM))
    scope_id: Mapped[UUID]
    role: Mapped[str] = mapped_column(String(MAX_ENUM))
    actions: Mapped[list[str] | None] = mapped_column(Json)
    allowed_cidrs: Mapped[list[str] | None] = mapped_column(Json)
    parent_key_id: Mapped[UUID | None]
    may_act_for_others: Mapped[bool] = mapped_column(server_default=false())
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp())
    revoked_at: Mapped[datetime | None] = mapped_column(Timestamp())
    deleted_at: Mapped[datetime | None] = mapped_column(Timestamp())
    last_used_at: Mapped[datetime | None] = mapped_column(Timestamp())
    last_used_ip: Mapped[str | None] = mapped_column(String(64))
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json)

    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "project_id"], ["projects.organization_id", "projects.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["organization_id", "parent_key_id"], ["api_keys.organization_id", "api_keys.id"], ondelete="CASCADE"),
        UniqueConstraint("organization_id", "id"),
        Index(None, "organization_id", "created_at", "id"),
        Index(None, "project_id", "created_at", "id"),
        Index(None, "scope_type", "scope_id"),
        Index(None, "organization_id", "parent_key_id"),
    )


class ApiKeySecret(TenantOwned, Base):
    """What proves that a caller has the key, found by its public prefix."""

    __tablename__ = "api_key_secrets"

    prefix: Mapped[str] = mapped_column(String(MAX_PREFIX), primary_key=True)
    api_key_id: Mapped[UUID]
    hash: Mapped[str] = mapped_column(String(MAX_HASH))
    hash_algorithm: Mapped[str] = mapped_column(String(MAX_ENUM))
    created_at: Mapped[datetime] = mapped_column(Timestamp())
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp())

    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "api_key_id"], ["api_keys.organization_id", "api_keys.id"], ondelete="CASCADE"),
        Index(None, "organization_id", "api_key_id"),
    )
