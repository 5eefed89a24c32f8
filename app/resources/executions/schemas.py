"""Wire shapes of executions."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from app.core.resources import ResourceRef, ResourceType
from app.core.text import is_storable
from app.http.schemas import (
    NO_FLAG,
    ActorRef,
    BlankIsAbsent,
    Command,
    CorrelationKey,
    CorrelationSearch,
    ListQuery,
    Metadata,
    Moment,
    Name,
    Resource,
    ResourceRefRead,
    Schema,
    Search,
    Text,
    columns_of,
    lower_case,
)
from app.models.execution import MAX_MESSAGE, MAX_SESSION

MAX_WARNINGS = 100
MAX_WARNING = 2000
MAX_TOKENS = 2**53
MAX_TAGS, MAX_TAG = 50, 100
MAX_TIMEOUT_SECONDS = 7 * 86400


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("this value has a NUL character or is not valid Unicode")
    return text


# What a program said, with its line breaks: a stack trace is no name.
Told = Annotated[str, AfterValidator(_storable)]
Warning_ = Annotated[Told, Field(max_length=MAX_WARNING)]
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS), NO_FLAG]
ExactAmount = Annotated[Decimal, PlainSerializer("{:f}".format, return_type=str)]
Amount = Annotated[
    ExactAmount,
    Field(ge=0, max_digits=18, decimal_places=9),
    NO_FLAG,
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "maximum": 999_999_999}, {"type": "string", "pattern": r"^\d{1,9}(\.\d{1,9})?$"}]},
        mode="validation",
    ),
]
SessionId = Annotated[str, Text(MAX_SESSION)]
Tags = Annotated[list[Annotated[str, Text(MAX_TAG)]], Field(max_length=MAX_TAGS)]
Timeout = Annotated[float, Field(ge=1, le=MAX_TIMEOUT_SECONDS, allow_inf_nan=False), NO_FLAG]


class ExecutionStatus(StrEnum):
    """Where an execution stands; all but RUNNING are its ends."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


class ExecutionKind(StrEnum):
    """What sort of work an execution is."""

    AGENT = "AGENT"
    LLM = "LLM"
    TOOL = "TOOL"
    RETRIEVER = "RETRIEVER"
    EMBEDDING = "EMBEDDING"
    CHAIN = "CHAIN"
    GUARDRAIL = "GUARDRAIL"
    EVALUATOR = "EVALUATOR"
    OTHER = "OTHER"


class Usage(Command):
    """Tokens that were used, with or without those of the executions below: totals count them once."""

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cached_tokens: Tokens = 0
    """Part of the input that a cache answered."""
    reasoning_tokens: Tokens = 0
    """Part of the output that was not shown."""


class Cost(Command):
    """What it cost by itself, without the executions below it: totals add up every cost."""

    amount: Amount
    """A decimal number, answered as text so that nothing is rounded."""
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    """ISO 4217."""


class UsageRead(Schema):
    """Tokens of one execution, or of many: unlike what one may tell, a sum has no limit."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Part of the input that a cache answered."""
    reasoning_tokens: int = 0
    """Part of the output that was not shown."""


class CostRead(Schema):
    """What one execution cost, or many of them: unlike what one may tell, a sum has no limit."""

    amount: ExactAmount
    """A decimal number, as text so that nothing is rounded."""
    currency: str
    """ISO 4217."""


class StartFields(Command):
    """What is told of an execution that begins, wherever it begins."""

    operation: Name
    """What runs."""
    target_type: ResourceType | None = None
    """Together with `target_id`: what it works on, in the same project, where you may read it."""
    target_id: UUID | None = None
    correlation_id: CorrelationKey | None = None
    """What it belongs to; taken from `X-Correlation-ID` or `traceparent` when absent."""
    parent_execution_id: UUID | None = None
    """The execution it is a part of, in the same organization."""
    agent_version: Name | None = None
    model_provider: Name | None = None
    model_name: Name | None = None
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NO_FLAG] | None = None
    """From 0 to 1."""
    warnings: Annotated[list[Warning_], Field(max_length=MAX_WARNINGS)] = Field(default_factory=list)
    provenance: Metadata = Field(default_factory=dict)
    kind: ExecutionKind | None = None
    session_id: SessionId | None = None
    """The conversation or session it belongs to."""
    tags: Tags = Field(default_factory=list)
    timeout_seconds: Timeout | None = None
    """When it neither ends nor sends a heartbeat for this long, it is ended as TIMED_OUT."""
    input: Metadata = Field(default_factory=dict)
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _target_is_whole(self) -> Self:
        if (self.target_type is None) != (self.target_id is None):
            raise ValueError("target_type and target_id are given together or not at all")
        return self

    @property
    def target(self) -> ResourceRef | None:
        """What it works on."""
        return ResourceRef(self.target_type, self.target_id) if self.target_type is not None and self.target_id is not None else None


class ExecutionStart(StartFields):
    """Something begins to run."""

    organization_id: UUID
    project_id: UUID


class _Ending(Command):
    usage: Usage | None = None
    cost: Cost | None = None

    def spent(self) -> dict[str, Any]:
        """Usage and cost as they are stored, when they are told."""
        return self.model_dump(mode="json", include={"usage", "cost"}, exclude_none=True)


class ExecutionComplete(_Ending):
    """It ended well."""

    output: Metadata = Field(default_factory=dict)
    metadata: Metadata | None = None
    """Replaces the metadata as a whole."""


class ExecutionFail(_Ending):
    """It ended badly."""

    error_code: Name | None = None
    error_message: Annotated[Told, Field(max_length=MAX_MESSAGE)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    """Merged into the metadata, together with the error's code and message."""


class ExecutionCancel(_Ending):
    """It was stopped."""

    reason: Annotated[Told, Field(max_length=MAX_MESSAGE)] | None = None
    metadata: Metadata = Field(default_factory=dict)
    """Merged into the metadata, together with the reason as `cancel_reason`."""


class ExecutionHeartbeat(Command):
    """It is still running."""

    timeout_seconds: Timeout | None = None
    """A new limit until the next heartbeat; as before when absent."""


class ExecutionEventCreate(Command):
    """Something that happens while it runs."""

    name: Name
    message: Annotated[Told, Field(max_length=MAX_MESSAGE)] | None = None
    data: Metadata = Field(default_factory=dict)
    occurred_at: Moment | None = None
    """Now when absent."""


class ExecutionEventRead(Schema):
    """What an execution told while it ran."""

    id: UUID
    execution_id: UUID
    occurred_at: datetime
    name: str
    message: str | None
    data: dict[str, Any]
    created_at: datetime
    created_by_subject: str


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
    """The execution it is a part of; null when it has none, or that one was deleted with its project."""
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
    root_execution_id: UUID
    """The execution at the root of the tree it began in, though that one may be deleted by now; itself when it began without a parent."""
    kind: ExecutionKind | None
    session_id: str | None
    tags: list[str]
    usage: UsageRead | None
    cost: CostRead | None
    timeout_seconds: float | None
    deadline_at: datetime | None
    """When it is ended as TIMED_OUT, unless it ends or sends a heartbeat before."""
    heartbeat_at: datetime | None
    trace_id: str | None
    """The OpenTelemetry trace it came from, if it came as a span."""
    span_id: str | None

    def without_contents(self) -> Self:
        """The same without what was said in it: for a credential that may move it on, but not read it."""
        return self.model_copy(update={"input": {}, "output": {}, "metadata": {}, "provenance": {}, "warnings": []})

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, row: Any) -> Any:
        if isinstance(row, dict):
            return row
        columns = columns_of(row)
        columns["actor"] = {"type": columns.pop("actor_type"), "id": columns.pop("actor_id")}
        columns["root_execution_id"] = columns["root_execution_id"] or columns["id"]
        target_type, target_id = columns.pop("target_type"), columns.pop("target_id")
        columns["target"] = {"type": target_type, "id": target_id} if target_type is not None else None
        return columns


class ExecutionEventSort(StrEnum):
    """Columns events can be sorted by."""

    OCCURRED_AT = "occurred_at"


class ExecutionEventListQuery(ListQuery):
    """How to go through the events of an execution."""

    default_sort: ClassVar[str] = "occurred_at"

    sort: Annotated[ExecutionEventSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""


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
    kind: ExecutionKind | None = None
    session_id: Annotated[SessionId | None, BlankIsAbsent()] = None
    tag: Search = None
    """Executions that have this tag."""
