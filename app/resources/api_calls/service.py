"""Rules of API calls: one way through the statuses, and one call for one idempotency key."""

import hashlib
import json
from typing import Any, Final

from app.audit.changes import changes_of
from app.audit.trail import Subject
from app.authz.engine import Located
from app.authz.memberships import MembershipRepository
from app.core.clock import now
from app.core.errors import ConflictError
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.permissions import Action
from app.core.resources import ResourceRef, ResourceType
from app.resources.api_calls.repository import ApiCallRepository
from app.resources.api_calls.schemas import (
    ENDS,
    ApiCallCreate,
    ApiCallListQuery,
    ApiCallRead,
    ApiCallStatus,
    ApiCallUpdate,
)
from app.unit_of_work import UnitOfWork

_NOT_COMPARED: Final = frozenset({"idempotency_key"})


class ApiCallService:
    """Everything that happens to API calls."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._calls = ApiCallRepository(work)

    async def create(self, project: Located, new: ApiCallCreate) -> tuple[ApiCallRead, bool]:
        """Create a call, or find the one that was created with the same idempotency key; whether it is new.

        However many come at once, one call is made.

        Raises:
            ConflictError: the idempotency key was used with another body.
        """
        if new.idempotency_key is None:
            return self._insert(project, new), True
        if (found := await self._find_repeated(project, new)) is not None:
            return found, False
        try:
            async with self._work.attempt():
                return self._insert(project, new), True
        except ConflictError:
            if (found := await self._find_repeated(project, new)) is None:
                raise
            return found, False

    async def list_visible(self, query: ApiCallListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The calls the caller may read."""
        return await self._calls.list_visible(query, request)

    async def update(self, call: Located, changes: ApiCallUpdate) -> ApiCallRead:
        """Move it on, store the response, replace the metadata; without a change nothing happens and nothing is recorded.

        Raises:
            ConflictError: the call has ended, or cannot come into this status from where it stands.
        """
        values: dict[str, Any] = changes.model_dump(exclude_none=True)
        if not values:
            return ApiCallRead.from_row(call.row)
        changes_made = changes_of(call.row, values)
        if changes.status in ENDS:
            values["responded_at"] = now()
        row = await self._calls.move(call.id, values, changes.status, self._work.expected_revision)
        self._work.record(
            AuditAction.API_CALL_UPDATED,
            call,
            correlation_id=row.correlation_id,
            status=row.status,
            **changes_made,
        )
        return ApiCallRead.from_row(row)

    async def delete(self, call: Located) -> None:
        """Delete it with the grants on it."""
        await self._calls.delete(call.id, self._work.expected_revision)
        await MembershipRepository(self._work.session).remove_all_on(call.ref)
        self._work.record(AuditAction.API_CALL_DELETED, call, correlation_id=call.row.correlation_id, name=call.row.name)

    def _insert(self, project: Located, new: ApiCallCreate) -> ApiCallRead:
        moment = now()
        values = new.model_dump()
        row = self._calls.insert(
            {
                **values,
                "id": new_id(),
                "organization_id": project.organization_id,
                "project_id": project.id,
                "request_digest": digest_of(new) if new.idempotency_key is not None else "",  # nobody compares it
                "correlation_id": new.correlation_id or self._work.origin.correlation_id,
                "status": ApiCallStatus.RECEIVED.value,
                "requested_at": moment,
                "responded_at": None,
                "response_payload": {},
                "created_at": moment,
                "updated_at": moment,
                "created_by_subject": self._work.actor.subject,
                "revision": 1,
            }
        )
        subject = Subject(ResourceRef(ResourceType.API_CALL, row.id), project.organization_id, project.id)
        self._work.record(
            AuditAction.API_CALL_CREATED,
            subject,
            correlation_id=row.correlation_id,
            name=row.name,
            operation_key=row.operation_key,
            status=row.status,
        )
        return ApiCallRead.from_row(row)

    async def _find_repeated(self, project: Located, new: ApiCallCreate) -> ApiCallRead | None:
        row = await self._calls.find_repeated(project.id, new.operation_key, new.idempotency_key or "")
        if row is None:
            return None
        if row.request_digest != digest_of(new):
            raise ConflictError("This idempotency key was used with another body.", code="idempotency_key_reused")
        shown = ApiCallRead.from_row(row)
        # The rest stands in the body that was sent again; this was perhaps written by others since.
        return shown if Action.API_CALL_READ in project.actions else shown.model_copy(update={"response_payload": {}, "metadata": {}})


def digest_of(new: ApiCallCreate) -> str:
    """What tells one request body from another, whatever its idempotency key."""
    text = json.dumps(new.model_dump(mode="json", exclude=set(_NOT_COMPARED)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
