"""Wire shapes of executions."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from app.core.resources import ResourceType
from app.core.text import is_storable
from app.http.schemas import (
    ActorRef,
    Command,
    CorrelationKey,
    CorrelationSearch,
    ListQuery,
    Metadata,
    Name,
    Resource,
    ResourceRefRead,
    Search,
    columns_of,
    lower_case,
)

MAX_WARNINGS = 100
MAX_WARNING = 2000
MAX_ERROR_MESSAGE = 8000


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("this value has a NUL character or is not valid Unicode")
    return text


# What a program said, with its line breaks: a stack trace is no name.
Told = Annotated[str, AfterValidator(_storable)]
Warning_ = Annotated[Told, Field(max_length=MAX_WARNING)]


class ExecutionStatus(StrEnum):
    """Where an execution stands; all but RUNNING are its ends."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class ExecutionStart(Command):
    """Something begins to run."""

    organization_id: UUID
    project_id: UUID
    operation: Name
    """What runs."""
    target_type: ResourceType | None = None
    """Together with `target_id`: what it works on, in the same project."""
    target_id: UUID | None = None
    correlation_id: CorrelationKey | None = None
    """What it belongs to; taken from `X-Correlation-ID` or `traceparent` when absent."""
    parent_execution_id: UUID | None = None
    """The execution it is a part of, in the same organization."""
    agent_version: Name | None = None
    model_provider: Name | None = None
    model_name: Name | None = None
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """From 0 to 1."""
    warnings: Annotated[list[Warning_], Field(max_length=MAX_WARNINGS)] = Field(default_factory=list)
    provenance: Metadata = Field(default_factory=dict)
    input: Metadata = Field(default_factory=dict)
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _target_is_whole(self) -> Self:
        if (self.target_type is None) != (self.target_id is None):
            raise ValueError("target_type and target_id are given together or not at all")
        return self


class ExecutionComplete(Command):
    """It ended well."""

    output: Metadata = Field(default_factory=dict)
    metadata: Metadata | None = None
    """Replaces the metadata as a whole."""


class ExecutionFail(Command):
    """It ended badly."""

    error_code: Name | None = None
    error_message: Annotated[Told, Field(max_length=MAX_ERROR_MESSAGE)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    """Merged into the metadata, together with the error's code and message."""


class ExecutionRead(Resource):
    """An execution."""

    collection: ClassVar[str] = "/executions"

    organization_id: UUID
    project_id: UUID
    operation: str
    status: ExecutionStatus
    actor: ActorRef
    """Who runs it."""
    on_behalf_of: str | None
    """Who it is run for, when the actor acts for another."""
    target: ResourceRefRead | None
    correlation_id: str | None
    parent_execution_id: UUID | None
    agent_version: str | None
    model_provider: str | None
    model_name: str | None
    confidence: float | None
    warnings: list[str]
    provenance: dict[str, Any]
    started_at: datetime | None
    ended_at: datetime | None
    input: dict[str, Any]
    output: dict[str, Any]
    metadata: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, row: Any) -> Any:
        if isinstance(row, dict):
            return row
        columns = columns_of(row)
        columns["actor"] = {"type": columns.pop("actor_type"), "id": columns.pop("actor_id")}
        target_type, target_id = columns.pop("target_type"), columns.pop("target_id")
        columns["target"] = {"type": target_type, "id": target_id} if target_type is not None else None
        return columns


class ExecutionSort(StrEnum):
    """Columns executions can be sorted by."""

    STARTED_AT = "started_at"
    ENDED_AT = "ended_at"
    OPERATION = "operation"
    STATUS = "status"


class ExecutionListQuery(ListQuery):
    """Filters of the list of executions; all exact."""

    default_sort: ClassVar[str] = "started_at"

    sort: Annotated[ExecutionSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""
    organization_id: UUID | None = None
    project_id: UUID | None = None
    status: ExecutionStatus | None = None
    target_resource_type: ResourceType | None = None
    correlation_id: CorrelationSearch = None
    parent_execution_id: UUID | None = None
    operation: Search = None
    model_provider: Search = None
    model_name: Search = None
