"""Wire shapes of audit events."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from app.core.actors import ActorType
from app.core.events import AuditAction, Outcome
from app.core.resources import ResourceType
from app.http.schemas import (
    ActorId,
    ActorRef,
    CorrelationSearch,
    ListQuery,
    Moment,
    ResourceRefRead,
    Schema,
    blank_is_absent,
    columns_of,
    lower_case,
)


class AuditEventRead(Schema):
    """One attempt: who, what, on what, from where, and how it ended."""

    id: UUID
    occurred_at: datetime
    actor: ActorRef
    on_behalf_of: str | None
    auth_method: str
    """How the actor was known: `header`, `anonymous` or `system`."""
    action: AuditAction
    outcome: Outcome
    resource: ResourceRefRead
    organization_id: UUID | None
    project_id: UUID | None
    ip: str | None
    user_agent: str | None
    request_id: str | None
    correlation_id: str | None
    details: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, row: Any) -> Any:
        if isinstance(row, dict):
            return row
        columns = columns_of(row)
        columns["actor"] = {"type": columns.pop("actor_type"), "id": columns.pop("actor_id")}
        columns["resource"] = {"type": columns.pop("resource_type"), "id": columns.pop("resource_id")}
        return columns


class PruneQuery(BaseModel):
    """Which events to remove. Unknown parameters are refused: a filter with a typo would remove everything."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    organization_id: UUID
    project_id: UUID | None = None
    """Only events in this project."""
    action: AuditAction | None = None
    """Only events of this action."""
    occurred_to: Moment | None = None
    """Only events not after this moment."""


class Pruned(Schema):
    """How many events were removed."""

    pruned: int


class AuditEventSort(StrEnum):
    """Columns audit events can be sorted by."""

    OCCURRED_AT = "occurred_at"
    ACTION = "action"


class AuditEventListQuery(ListQuery):
    """Filters of the audit trail."""

    default_sort: ClassVar[str] = "occurred_at"
    sort: Annotated[AuditEventSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""

    organization_id: UUID | None = None
    """Only events in this organization."""
    project_id: UUID | None = None
    """Only events in this project."""
    action: AuditAction | None = None
    outcome: Outcome | None = None
    actor_type: ActorType | None = None
    """Together with `actor_id`."""
    actor_id: Annotated[ActorId | None, BeforeValidator(blank_is_absent)] = None
    """Together with `actor_type`."""
    resource_type: ResourceType | None = None
    resource_id: UUID | None = None
    correlation_id: CorrelationSearch = None
    occurred_from: Moment | None = None
    """Not before this moment."""
    occurred_to: Moment | None = None
    """Not after this moment."""

    @model_validator(mode="after")
    def _actor_is_whole(self) -> Self:
        if (self.actor_type is None) != (self.actor_id is None):
            raise ValueError("actor_type and actor_id are given together or not at all")
        return self
