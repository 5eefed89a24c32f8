"""Rules of executions: they belong to one project, hang together in one organization, and end once."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.authz.engine import Located
from app.core.clock import now
from app.core.errors import InvalidError
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.permissions import Action
from app.core.resources import ResourceType
from app.models import Execution
from app.resources.executions.repository import ExecutionEventRepository, ExecutionRepository
from app.resources.executions.schemas import (
    ExecutionCancel,
    ExecutionComplete,
    ExecutionEventCreate,
    ExecutionEventRead,
    ExecutionFail,
    ExecutionHeartbeat,
    ExecutionListQuery,
    ExecutionRead,
    ExecutionStart,
    ExecutionStatus,
)
from app.resources.executions.subjects import subject_of
from app.resources.executions.traces import Node, arrange
from app.unit_of_work import UnitOfWork

MAX_TRACED = 10_000


class ExecutionService:
    """Everything that happens to executions."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._executions = ExecutionRepository(work)

    async def start(self, project: Located, new: ExecutionStart) -> ExecutionRead:
        """Record that the caller starts something.

        Raises:
            InvalidError: the project is not the organization's, or target or parent is not where it has to be.
        """
        if new.organization_id != project.organization_id:
            raise InvalidError("is not the organization of this project", pointer="/organization_id")
        root = await self._root_of_parent(new, project)
        if not await self._is_reachable(new, project):
            raise InvalidError("names nothing in this project", pointer="/target_id")
        row = await self._executions.insert(starting(self._work, project, new, new_id(), root))
        self.record_start(row)
        return ExecutionRead.from_row(row)

    async def list_visible(self, query: ExecutionListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The executions the caller may read."""
        return await self._executions.list_visible(query, request)

    async def complete(self, execution: Located, result: ExecutionComplete) -> ExecutionRead:
        """End it well.

        Raises:
            ConflictError: it has ended already.
        """
        values = {"output": result.output, **result.spent(), **({"metadata": result.metadata} if result.metadata is not None else {})}
        row = await self._end(execution.row.id, ExecutionStatus.COMPLETED, values)
        self._record(AuditAction.EXECUTION_COMPLETED, row)
        return ExecutionRead.from_row(row)

    async def fail(self, execution: Located, error: ExecutionFail) -> ExecutionRead:
        """End it badly; the error is kept in the metadata.

        Raises:
            ConflictError: it has ended already.
        """
        told = error.model_dump(include={"error_code", "error_message"}, exclude_none=True)
        values = {"metadata": {**execution.row.metadata, **error.metadata, **told}, **error.spent()}
        row = await self._end(execution.row.id, ExecutionStatus.FAILED, values)
        self._record(AuditAction.EXECUTION_FAILED, row, error_code=error.error_code, error_message=error.error_message)
        return ExecutionRead.from_row(row)

    async def cancel(self, execution: Located, asked: ExecutionCancel) -> ExecutionRead:
        """Stop it; the reason is kept in the metadata.

        Raises:
            ConflictError: it has ended already.
        """
        told = {"cancel_reason": asked.reason} if asked.reason is not None else {}
        values = {"metadata": {**execution.row.metadata, **asked.metadata, **told}, **asked.spent()}
        row = await self._end(execution.row.id, ExecutionStatus.CANCELLED, values)
        self._record(AuditAction.EXECUTION_CANCELLED, row, reason=asked.reason)
        return ExecutionRead.from_row(row)

    async def beat(self, execution: Located, beat: ExecutionHeartbeat) -> ExecutionRead:
        """Note that it still runs, and move its deadline.

        The row is the record: an audit event for each beat would bury the others.

        Raises:
            ConflictError: it has ended already.
        """
        moment = now()
        timeout = beat.timeout_seconds or execution.row.timeout_seconds
        values = {"heartbeat_at": moment, "timeout_seconds": timeout, "deadline_at": deadline(moment, timeout)}
        row = await self._executions.change_running(execution.row.id, values, self._work.expected_revision)
        self._work.is_its_own_record()
        return ExecutionRead.from_row(row)

    async def trace(self, execution: Located) -> tuple[list[Node], bool]:
        """The execution and everything below it that the caller may read, arranged; and whether that is all."""
        self._work.confine_lists(Action.EXECUTION_READ)
        row = execution.row
        rows = await self._executions.trace(row.root_execution_id or row.id, MAX_TRACED + 1)
        shown = {found.id: found for found in rows[:MAX_TRACED]} | {row.id: row}
        return arrange(list(shown.values()), row.id, now()), len(rows) <= MAX_TRACED

    async def add_event(self, execution: Located, new: ExecutionEventCreate) -> ExecutionEventRead:
        """Add what happens while it runs.

        Raises:
            ConflictError: it has ended.
        """
        row, moment = execution.row, now()
        await self._executions.require_running(row.id)
        values = {
            "id": new_id(),
            "organization_id": row.organization_id,
            "project_id": row.project_id,
            "execution_id": row.id,
            "occurred_at": new.occurred_at or moment,
            "name": new.name,
            "message": new.message,
            "data": new.data,
            "created_at": moment,
            "created_by_subject": self._work.actor.subject,
        }
        event = await ExecutionEventRepository(self._work.session).insert(values)
        self._record(AuditAction.EXECUTION_EVENT_ADDED, row, event_id=str(event.id), name=new.name)
        return ExecutionEventRead.model_validate(event)

    async def list_events(self, execution: Located, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """What happened while it ran."""
        return await ExecutionEventRepository(self._work.session).list_of(execution.row.id, request)

    def record_start(self, row: Any) -> None:
        """Record that an execution was started."""
        details = {"operation": row.operation, "model_provider": row.model_provider, "model_name": row.model_name}
        self._record(AuditAction.EXECUTION_STARTED, row, **details)

    async def _end(self, execution_id: UUID, status: ExecutionStatus, values: dict[str, Any]) -> Any:
        ended = {**values, "status": status.value, "ended_at": now()}
        return await self._executions.change_running(execution_id, ended, self._work.expected_revision)

    async def _root_of_parent(self, new: ExecutionStart, project: Located) -> UUID | None:
        """The root of the tree it joins; a parent that the caller may not read is no parent."""
        if new.parent_execution_id is None:
            return None
        parent = await self._work.find_by(Execution.id, new.parent_execution_id)
        if parent is None or parent.organization_id != project.organization_id or Action.EXECUTION_READ not in parent.actions:
            raise InvalidError("names no execution of this organization", pointer="/parent_execution_id")
        root: UUID = parent.row.root_execution_id or parent.row.id
        return root

    async def _is_reachable(self, new: ExecutionStart, project: Located) -> bool:
        if new.target_type is None or new.target_id is None:
            return True
        if new.target_type is ResourceType.ORGANIZATION:
            return new.target_id == project.organization_id
        if new.target_type is ResourceType.PROJECT:
            return new.target_id == project.id
        return await self._executions.target_exists(new.target_type, new.target_id, project.id)

    def _record(self, action: AuditAction, row: Any, **details: Any) -> None:
        self._work.record(action, subject_of(row), correlation_id=row.correlation_id, execution_id=str(row.id), **details)


def starting(work: UnitOfWork, project: Located, new: ExecutionStart, execution_id: UUID, root: UUID | None) -> dict[str, Any]:
    """The row of an execution that its caller starts now."""
    moment, principal = now(), work.identity.principal
    return {
        **new.model_dump(),
        "id": execution_id,
        "organization_id": project.organization_id,
        "project_id": project.id,
        "target_type": new.target_type.value if new.target_type else None,
        "root_execution_id": root or execution_id,
        "kind": new.kind.value if new.kind else None,
        "status": ExecutionStatus.RUNNING.value,
        "actor_type": work.actor.type.value,
        "actor_id": work.actor.id,
        "on_behalf_of": principal.subject if principal is not None else None,
        "correlation_id": new.correlation_id or work.origin.correlation_id,
        "started_at": moment,
        "ended_at": None,
        "deadline_at": deadline(moment, new.timeout_seconds),
        "heartbeat_at": None,
        "usage": None,
        "cost": None,
        "trace_id": None,
        "span_id": None,
        "parent_span_id": None,
        "output": {},
        "created_at": moment,
        "updated_at": moment,
        "created_by_subject": work.actor.subject,
        "revision": 1,
    }


def deadline(moment: datetime, timeout_seconds: float | None) -> datetime | None:
    """When an execution is ended unless it is heard of."""
    return moment + timedelta(seconds=timeout_seconds) if timeout_seconds is not None else None
