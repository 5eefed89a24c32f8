"""Executions: what agents and services did, as a tree."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Float, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import MAX_ACTOR, MAX_ENUM, MAX_SUBJECT, Base, Json, Recorded, TenantOwned, Timestamp


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

    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "project_id"], ["projects.organization_id", "projects.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(
            ["organization_id", "parent_execution_id"], ["executions.organization_id", "executions.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("organization_id", "id"),
        Index(None, "organization_id", "started_at", "id"),
        Index(None, "project_id", "started_at", "id"),
        Index(None, "organization_id", "parent_execution_id", "started_at"),
        Index(None, "correlation_id", "started_at"),
    )
