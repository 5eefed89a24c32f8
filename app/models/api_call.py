"""API calls: requests that an application made or received and wants on record."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import MAX_ENUM, Base, Json, Recorded, TenantOwned, Timestamp

MAX_DIGEST = 64


class ApiCall(TenantOwned, Recorded, Base):
    """One call of a project, from its arrival to its end."""

    __tablename__ = "api_calls"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID]
    name: Mapped[str]
    operation_key: Mapped[str]
    external_request_id: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    request_digest: Mapped[str] = mapped_column(String(MAX_DIGEST))
    correlation_id: Mapped[str | None] = mapped_column(String(256))
    status: Mapped[str] = mapped_column(String(MAX_ENUM))
    requested_at: Mapped[datetime] = mapped_column(Timestamp())
    responded_at: Mapped[datetime | None] = mapped_column(Timestamp())
    request_payload: Mapped[dict[str, Any]] = mapped_column(Json)
    response_payload: Mapped[dict[str, Any]] = mapped_column(Json)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json)

    __table_args__ = (
        ForeignKeyConstraint(["organization_id", "project_id"], ["projects.organization_id", "projects.id"], ondelete="CASCADE"),
        UniqueConstraint("project_id", "operation_key", "idempotency_key"),
        Index(None, "organization_id", "requested_at", "id"),
        Index(None, "project_id", "requested_at", "id"),
        Index(None, "organization_id", "project_id"),  # a total within a project: small, and all that row-level security asks
        *(
            Index(None, "project_id", name, "id")
            for name in ("created_at", "updated_at", "responded_at", "name", "status", "operation_key")
        ),
        Index(None, "external_request_id"),
        Index(None, "idempotency_key"),
        Index(None, "correlation_id", "requested_at"),
    )
