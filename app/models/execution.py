"""Executions: what agents and services did, as a tree."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Float, ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import MAX_ACTOR, MAX_ENUM, MAX_SUBJECT, Base, Json, Recorded, TenantOwned, Timestamp

MAX_SESSION = 256
MAX_MESSAGE = 8000
TRACE_ID_LENGTH = 32
SPAN_ID_LENGTH = 16
_IS_RUNNING = text("status = 'RUNNING'")
_WAITS_FOR_ITS_PARENT = text("parent_span_id IS NOT NULL AND parent_execution_id IS NULL")


class Execution(TenantOwned, Recorded, Base):
    """One run of something, below a project and perhaps below another execution."""

    __tablename__ = "executions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID]
    operation: Mapped[str]
    status: Mapped[str] = mapped_column(String(MAX_ENUM))
    actor_type: Mapped[str] = mapped_column(String(MAX_ENUM))
    actor_id: Mapped[str] = mapped_column(String(MAX_ACTOR))
    on_behalf_of: Mapped[str | None] = mapped_column(String(MAX_SUBJECT))
    target_type: Mapped[str | None] = mapped_column(String(MAX_ENUM))
    target_id: Mapped[UUID | None]
    correlation_id: Mapped[str | None] = mapped_column(String(256))
    parent_execution_id: Mapped[UUID | None]
    agent_version: Mapped[str | None]
    model_provider: Mapped[str | None]
    model_name: Mapped[str | None]
    confidence: Mapped[float | None] = mapped_column(Float(53))
    warnings: Mapped[list[str]] = mapped_column(Json)
    provenance: Mapped[dict[str, Any]] = mapped_column(Json)
    started_at: Mapped[datetime] = mapped_column(Timestamp())
    ended_at: Mapped[datetime | None] = mapped_column(Timestamp())
    input: Mapped[dict[str, Any]] = mapped_column(Json)
    output: Mapped[dict[str, Any]] = mapped_column(Json)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json)
    root_execution_id: Mapped[UUID | None]
    kind: Mapped[str | None] = mapped_column(String(MAX_ENUM))
    session_id: Mapped[str | None] = mapped_column(String(MAX_SESSION))
    tags: Mapped[list[str]] = mapped_column(Json, server_default="[]")
    usage: Mapped[dict[str, Any] | None] = mapped_column(Json)
    cost: Mapped[dict[str, Any] | None] = mapped_column(Json)
    timeout_seconds: Mapped[float | None] = mapped_column(Float(53))
    deadline_at: Mapped[datetime | None] = mapped_column(Timestamp())
    heartbeat_at: Mapped[datetime | None] = mapped_column(Timestamp())
    trace_id: Mapped[str | None] = mapped_column(String(TRACE_ID_LENGTH))
    span_id: Mapped[str | None] = mapped_column(String(SPAN_ID_LENGTH))
    parent_span_id: Mapped[str | None] = mapped_column(String(SPAN_ID_LENGTH))

    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "project_id"], ["projects.organization_id", "projects.id"], ondelete="CASCADE"),
        # A parent may lie in another project: what it leaves stays. Of a key of two columns SQLite would set both to NULL, so a key of one
        # does that, and one of two holds children to their tenant: at the commit, when the first has done its work in whatever order.
        ForeignKeyConstraint(["parent_execution_id"], ["executions.id"], ondelete="SET NULL"),
        ForeignKeyConstraint(
            ["organization_id", "parent_execution_id"],
            ["executions.organization_id", "executions.id"],
            deferrable=True,
            initially="DEFERRED",
        ),
        UniqueConstraint("organization_id", "id"),
        Index(None, "organization_id", "started_at", "id"),
        Index(None, "project_id", "started_at", "id"),
        Index(None, "organization_id", "project_id"),  # a total within a project: small, and all that row-level security asks
        *(Index(None, "project_id", name, "id") for name in ("ended_at", "operation", "status")),
        Index(None, "parent_execution_id", "started_at"),
        Index(None, "correlation_id", "started_at"),
        Index(None, "organization_id", "root_execution_id"),
        Index(None, "organization_id", "session_id", "started_at"),
        Index("ix_executions_span", "organization_id", "trace_id", "span_id", unique=True),
        Index(
            "ix_executions_waiting_span",
            "organization_id",
            "trace_id",
            "parent_span_id",
            sqlite_where=_WAITS_FOR_ITS_PARENT,
            postgresql_where=_WAITS_FOR_ITS_PARENT,
        ),
        Index("ix_executions_running_deadline_at", "deadline_at", sqlite_where=_IS_RUNNING, postgresql_where=_IS_RUNNING),
    )


class ExecutionEvent(TenantOwned, Base):
    """What an execution told while it ran."""

    __tablename__ = "execution_events"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID]
    execution_id: Mapped[UUID]
    occurred_at: Mapped[datetime] = mapped_column(Timestamp())
    name: Mapped[str]
    message: Mapped[str | None] = mapped_column(String(MAX_MESSAGE))
    data: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Timestamp())
    created_by_subject: Mapped[str] = mapped_column(String(MAX_SUBJECT))

    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "execution_id"], ["executions.organization_id", "executions.id"], ondelete="CASCADE"),
        Index(None, "organization_id", "execution_id", "occurred_at", "id"),
    )
