"""Wire shapes of audit events."""

import re
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from app.core.actors import ActorType
from app.core.events import AuditAction, Outcome
from app.core.resources import ResourceType
from app.http.described import Described
from app.http.schemas import (
    NO_FLAG,
    ActorId,
    ActorRef,
    BlankIsAbsent,
    Command,
    CorrelationSearch,
    ListQuery,
    Metadata,
    Moment,
    Name,
    ResourceRefRead,
    Schema,
    Search,
    columns_of,
    lower_case,
)
from app.models.audit_event import MAX_ACTION

MAX_TARGETS = 50


def _address(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError("this value is no address") from None


class ExportFormat(StrEnum):
    """How an export is written."""

    NDJSON = "ndjson"
    CSV = "csv"


# Actions of applications: dotted, in lower case, so that none can be taken for one of the service's own.
_APP_ACTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
AppAction = Annotated[str, Field(pattern=f"^{_APP_ACTION.pattern}$", max_length=MAX_ACTION)]


def _known_or_dotted(value: str) -> str:
    if value not in set(AuditAction) and not _APP_ACTION.fullmatch(value):
        raise ValueError("this value is no action of the service, nor one of an application: dotted, in lower case")
    return value


# One of the service's own, or one of an application.
EventAction = Annotated[str, AfterValidator(_known_or_dotted), Field(max_length=MAX_ACTION)]


class AuditEventRead(Schema):
    """One attempt: who, what, on what, from where, and how it ended."""

    id: UUID
    occurred_at: datetime
    actor: ActorRef
    on_behalf_of: str | None
    auth_method: str
    """How the actor was known: `header`, `api_key`, `jwt`, `anonymous` or `system`; `imported`: another system recorded the event."""
    action: str
    """One of the service's own, or one of an application."""
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


class AuditTarget(Command):
    """Something an event of an application is about."""

    type: Name
    id: Name
    name: Name | None = None


class AuditEventCreate(Command):
    """Something that happened in an application."""

    organization_id: UUID
    project_id: UUID | None = None
    """The project it happened in, if in one."""
    action: AppAction
    """Dotted, in lower case: `invoice.sent`."""
    outcome: Outcome = Outcome.SUCCESS
    targets: Annotated[list[AuditTarget], Field(max_length=MAX_TARGETS)] = Field(default_factory=list)
    """What it is about, in the application's own words."""
    context: Metadata = Field(default_factory=dict)


class PruneQuery(Described):
    """Which events to remove. Unknown parameters are refused: a filter with a typo would remove everything."""

    model_config = ConfigDict(extra="forbid")

    organization_id: UUID
    project_id: UUID | None = None
    """Only events in this project."""
    action: EventAction | None = None
    """Only events of this action."""
    occurred_to: Moment | None = None
    """Only events not after this moment."""


class Pruned(Schema):
    """How many events were removed."""

    pruned: int


class AuditRetentionUpdate(Command):
    """For how long an organization keeps its events."""

    retention_days: Annotated[int, Field(ge=1, le=36500), NO_FLAG] | None
    """In days; null = as the service is set."""


class AuditRetentionRead(Schema):
    """For how long the events of an organization are kept."""

    retention_days: int | None
    """What the organization has chosen; null = as the service is set."""
    effective_days: int | None
    """What holds; null = for ever."""


class AuditEventSort(StrEnum):
    """Columns audit events can be sorted by."""

    OCCURRED_AT = "occurred_at"
    ACTION = "action"


class AuditEventFilters(Described):
    """Filters of the audit trail."""

    organization_id: UUID | None = None
    """Only events in this organization."""
    project_id: UUID | None = None
    """Only events in this project."""
    action: EventAction | None = None
    outcome: Outcome | None = None
    actor_type: ActorType | None = None
    """Together with `actor_id`."""
    actor_id: Annotated[ActorId | None, BlankIsAbsent()] = None
    """Together with `actor_type`."""
    resource_type: ResourceType | None = None
    resource_id: UUID | None = None
    correlation_id: CorrelationSearch = None
    ip: Annotated[str | None, BlankIsAbsent(), AfterValidator(_address)] = None
    """The caller's address."""
    on_behalf_of: Annotated[ActorId | None, BlankIsAbsent()] = None
    """Whom the actor acted for, as `type:id`."""
    text: Search = None
    """Events whose action, actor or details contain this text, without regard to case."""
    occurred_from: Moment | None = None
    """Not before this moment."""
    occurred_to: Moment | None = None
    """Not after this moment."""

    @model_validator(mode="after")
    def _actor_is_whole(self) -> Self:
        if (self.actor_type is None) != (self.actor_id is None):
            raise ValueError("actor_type and actor_id are given together or not at all")
        return self


class AuditEventListQuery(AuditEventFilters, ListQuery):
    """Filters of the audit trail, and the page."""

    default_sort: ClassVar[str] = "occurred_at"

    sort: Annotated[AuditEventSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""


class ExportQuery(AuditEventFilters):
    """What to export, and how. Unknown parameters are refused: a filter with a typo would export everything."""

    model_config = ConfigDict(extra="forbid")

    sort: Annotated[AuditEventSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""
    direction: Annotated[Literal["asc", "desc"], BeforeValidator(lower_case)] | None = None
    """`asc` (default) or `desc`, in any case."""
    format: Annotated[ExportFormat, BeforeValidator(lower_case)] = ExportFormat.NDJSON
    """`ndjson`: an object on each line; `csv`: a table with a header."""

    def listed(self) -> AuditEventListQuery:
        """The list that is exported."""
        return AuditEventListQuery(**self.model_dump(exclude={"format"}))
