"""Rules of executions: they belong to one project, hang together in one organization, and end once."""

from typing import Any

from app.authz.engine import Located
from app.core.clock import now
from app.core.errors import InvalidError
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.permissions import Action
from app.resources.executions.lifecycle import AnyEnd, deadline, ending, record, record_start, starting
from app.resources.executions.repository import ExecutionEventRepository, ExecutionRepository
from app.resources.executions.schemas import (
    ExecutionEventCreate,
    ExecutionEventRead,
    ExecutionHeartbeat,
    ExecutionListQuery,
    ExecutionRead,
    ExecutionStart,
)
from app.resources.executions.surroundings import look_around
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
        root = (await look_around(self._work, project, [new])).root_for(new)
        row = self._executions.insert(starting(self._work, project, new, new_id(), root))
        record_start(self._work, row)
        return ExecutionRead.from_row(row)

    async def list_visible(self, query: ExecutionListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The executions the caller may read."""
        return await self._executions.list_visible(query, request)

    async def list_children(self, query: ExecutionListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The executions directly below one that the caller may read, in any project of the organization."""
        self._work.confine_lists(Action.EXECUTION_READ)
        return await self.list_visible(query, request)

    async def end(self, execution: Located, told: AnyEnd) -> ExecutionRead:
        """End it: well, badly, or because it is no longer wanted.

        Raises:
            ConflictError: it has ended already.
            InvalidError: its metadata would become too large by what is merged into them.
        """
        end = ending(told, execution.row.metadata)
        values = {**end.values, "ended_at": now()}
        row = await self._executions.change_running(execution.row.id, values, self._work.expected_revision)
        record(self._work, end.action, row, **end.details)
        return self._shown(execution, row)

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
        return self._shown(execution, row)

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
        event = ExecutionEventRepository(self._work.session).insert(values)
        record(self._work, AuditAction.EXECUTION_EVENT_ADDED, row, event_id=str(event.id), name=new.name)
        return ExecutionEventRead.model_validate(event)

    async def list_events(self, execution: Located, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """What happened while it ran."""
        return await ExecutionEventRepository(self._work.session).list_of(execution.row.id, request)

    def _shown(self, execution: Located, row: Any) -> ExecutionRead:
        """What is answered of an execution to who has just changed it, who perhaps may read nothing but what it said itself."""
        shown = ExecutionRead.from_row(row)
        may_read = Action.EXECUTION_READ in execution.actions or row.created_by_subject == self._work.actor.subject
        return shown if may_read else shown.without_contents()
