"""The audit trail: who did what, when, from where."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import MAX_ACTOR, MAX_ENUM, MAX_SUBJECT, Base, Json, TenantOwned, Timestamp

MAX_CORRELATION = 256
MAX_REQUEST_ID = 128
MAX_USER_AGENT = 512
MAX_IP = 64
MAX_ACTION = 128
MAX_HASH = 64
MAX_KEY_ID = 8

_IS_UNSEALED = text("position IS NULL")


class AuditEvent(TenantOwned, Base):
    """One attempt. No foreign key: the trail outlives what it speaks of.

    Nothing of it changes but that it gets its place in the chain of its organization, once. The hash of a sealed event is made over
    every column that is not NULL, so a column that is added must be nullable, or what was sealed before could not be verified.
    """

    __tablename__ = "audit_events"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    occurred_at: Mapped[datetime] = mapped_column(Timestamp())
    project_id: Mapped[UUID | None]
    actor_type: Mapped[str] = mapped_column(String(MAX_ENUM))
    actor_id: Mapped[str] = mapped_column(String(MAX_ACTOR))
    on_behalf_of: Mapped[str | None] = mapped_column(String(MAX_SUBJECT))
    auth_method: Mapped[str] = mapped_column(String(MAX_ENUM))
    action: Mapped[str] = mapped_column(String(MAX_ACTION))
    outcome: Mapped[str] = mapped_column(String(MAX_ENUM))
    resource_type: Mapped[str] = mapped_column(String(MAX_ENUM))
    resource_id: Mapped[UUID]
    ip: Mapped[str | None] = mapped_column(String(MAX_IP))
    user_agent: Mapped[str | None] = mapped_column(String(MAX_USER_AGENT))
    request_id: Mapped[str | None] = mapped_column(String(MAX_REQUEST_ID))
    correlation_id: Mapped[str | None] = mapped_column(String(MAX_CORRELATION))
    details: Mapped[dict[str, Any]] = mapped_column(Json)
    position: Mapped[int | None] = mapped_column(BigInteger)
    hash: Mapped[str | None] = mapped_column(String(MAX_HASH))
    key_id: Mapped[str | None] = mapped_column(String(MAX_KEY_ID))

    __table_args__ = (
        Index("ix_audit_events_position", "organization_id", "position", unique=True),
        Index(
            "ix_audit_events_unsealed",
            "organization_id",
            "occurred_at",
            "id",
            sqlite_where=_IS_UNSEALED,
            postgresql_where=_IS_UNSEALED,
        ),
        Index(None, "organization_id", "occurred_at", "id"),
        Index(None, "project_id", "occurred_at", "id"),
        Index(None, "organization_id", "project_id", "occurred_at", "id"),
        Index(None, "resource_type", "resource_id", "occurred_at"),
        Index(None, "correlation_id", "occurred_at"),
    )
