"""Wire shapes of API calls."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final
from uuid import UUID

from pydantic import BeforeValidator, Field

from app.http.schemas import Command, CorrelationKey, CorrelationSearch, ListQuery, Metadata, Name, Resource, Search, lower_case


class ApiCallStatus(StrEnum):
    """Where a call stands; the last three are its ends."""

    RECEIVED = "RECEIVED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ENDS: Final = frozenset({ApiCallStatus.COMPLETED, ApiCallStatus.FAILED, ApiCallStatus.CANCELLED})

# From where a call may come into a status; a call that has not ended may also stay where it is.
MAY_FOLLOW: Final[dict[ApiCallStatus, frozenset[ApiCallStatus]]] = {
    ApiCallStatus.RECEIVED: frozenset(),
    ApiCallStatus.PROCESSING: frozenset({ApiCallStatus.RECEIVED}),
    **{end: frozenset({ApiCallStatus.RECEIVED, ApiCallStatus.PROCESSING}) for end in ENDS},
}


class ApiCallCreate(Command):
    """A call that has arrived."""

    name: Name
    operation_key: Name
    """Which operation it is; idempotency keys are unique for each project and operation."""
    external_request_id: Name | None = None
    idempotency_key: Name | None = None
    """The same key with the same body answers 200 and the call that was created first; with another body 409."""
    correlation_id: CorrelationKey | None = None
    """What it belongs to; taken from `X-Correlation-ID` or `traceparent` when absent."""
    request_payload: Metadata = Field(default_factory=dict)
    metadata: Metadata = Field(default_factory=dict)


class ApiCallUpdate(Command):
    """What changes; absent fields stay."""

    status: ApiCallStatus | None = None
    """RECEIVED to PROCESSING to COMPLETED, FAILED or CANCELLED (or straight to an end); an ended call stays as it ended."""
    response_payload: Metadata | None = None
    metadata: Metadata | None = None
    """Replaces the metadata as a whole."""


class ApiCallRead(Resource):
    """An API call."""

    collection: ClassVar[str] = "/api-calls"

    organization_id: UUID
    project_id: UUID
    name: str
    operation_key: str
    external_request_id: str | None
    idempotency_key: str | None
    correlation_id: str | None
    status: ApiCallStatus
    requested_at: datetime
    responded_at: datetime | None
    """When it reached an end."""
    request_payload: dict[str, Any]
    response_payload: dict[str, Any]
    metadata: dict[str, Any]


class ApiCallSort(StrEnum):
    """Columns API calls can be sorted by."""

    NAME = "name"
    REQUESTED_AT = "requested_at"
    RESPONDED_AT = "responded_at"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    STATUS = "status"
    OPERATION_KEY = "operation_key"


class ApiCallListQuery(ListQuery):
    """Filters of the list of API calls; all exact."""

    default_sort: ClassVar[str] = "requested_at"

    sort: Annotated[ApiCallSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""
    organization_id: UUID | None = None
    project_id: UUID | None = None
    status: ApiCallStatus | None = None
    operation_key: Search = None
    external_request_id: Search = None
    idempotency_key: Search = None
    correlation_id: CorrelationSearch = None
