"""The audit trail: who did what, when, from where."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import MAX_ACTOR, MAX_ENUM, MAX_SUBJECT, Base, Json, TenantOwned, Timestamp

MAX_CORRELATION = 256
MAX_REQUEST_ID = 128
MAX_USER_AGENT = 512
MAX_IP = 64
MAX_ACTION = 128


class AuditEvent(TenantOwned, Base):
    """One attempt. No foreign key: the trail outlives what it speaks of."""

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

    __table_args__ = (
        Index(None, "organization_id", "occurred_at", "id"),
        Index(None, "project_id", "occurred_at", "id"),
        Index(None, "resource_type", "resource_id", "occurred_at"),
        Index(None, "correlation_id", "occurred_at"),
    )
