"""Rules of executions: they belong to one project, hang together in one organization, and end once."""

from typing import Any
from uuid import UUID

from app.audit.trail import Subject
from app.authz.engine import Located
from app.core.clock import now
from app.core.errors import InvalidError
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.resources import ResourceRef, ResourceType
from app.resources.executions.repository import ExecutionRepository
from app.resources.executions.schemas import (
    ExecutionComplete,
    ExecutionFail,
    ExecutionListQuery,
    ExecutionRead,
    ExecutionStart,
    ExecutionStatus,
)
from app.unit_of_work import UnitOfWork


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
        if new.parent_execution_id is not None and not await self._executions.exists(new.parent_execution_id):
            raise InvalidError("names no execution of this organization", pointer="/parent_execution_id")
        if not await self._is_reachable(new, project):
            raise InvalidError("names nothing in this project", pointer="/target_id")
        moment, principal = now(), self._work.identity.principal
        row = await self._executions.insert(
            {
                **new.model_dump(),
                "id": new_id(),
                "organization_id": project.organization_id,
                "project_id": project.id,
                "target_type": new.target_type.value if new.target_type else None,
                "status": ExecutionStatus.RUNNING.value,
                "actor_type": self._work.actor.type.value,
                "actor_id": self._work.actor.id,
                "on_behalf_of": principal.subject if principal is not None else None,
                "correlation_id": new.correlation_id or self._work.origin.correlation_id,
                "started_at": moment,
                "ended_at": None,
                "output": {},
                "created_at": moment,
                "updated_at": moment,
                "created_by_subject": self._work.actor.subject,
                "revision": 1,
            }
        )
        details = {"operation": row.operation, "model_provider": row.model_provider, "model_name": row.model_name}
        self._record(AuditAction.EXECUTION_STARTED, row, **details)
        return ExecutionRead.from_row(row)

    async def list_visible(self, query: ExecutionListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The executions the caller may read."""
        return await self._executions.list_visible(query, request)

    async def complete(self, execution: Located, result: ExecutionComplete) -> ExecutionRead:
        """End it well.

        Raises:
            ConflictError: it has ended already.
        """
        values = {"output": result.output, **({"metadata": result.metadata} if result.metadata is not None else {})}
        row = await self._end(execution.row.id, ExecutionStatus.COMPLETED, values)
        self._record(AuditAction.EXECUTION_COMPLETED, row)
        return ExecutionRead.from_row(row)

    async def fail(self, execution: Located, error: ExecutionFail) -> ExecutionRead:
        """End it badly; the error is kept in the metadata.

        Raises:
            ConflictError: it has ended already.
        """
        told = error.model_dump(include={"error_code", "error_message"}, exclude_none=True)
        row = await self._end(execution.row.id, ExecutionStatus.FAILED, {"metadata": {**execution.row.metadata, **error.metadata, **told}})
        self._record(AuditAction.EXECUTION_FAILED, row, error_code=error.error_code, error_message=error.error_message)
        return ExecutionRead.from_row(row)

    async def _end(self, execution_id: UUID, status: ExecutionStatus, values: dict[str, Any]) -> Any:
        ended = {**values, "status": status.value, "ended_at": now()}
        return await self._executions.end(execution_id, ended, self._work.expected_revision)

    async def _is_reachable(self, new: ExecutionStart, project: Located) -> bool:
        if new.target_type is None or new.target_id is None:
            return True
        if new.target_type is ResourceType.ORGANIZATION:
            return new.target_id == project.organization_id
        if new.target_type is ResourceType.PROJECT:
            return new.target_id == project.id
        return await self._executions.target_exists(new.target_type, new.target_id, project.id)

    def _record(self, action: AuditAction, row: Any, **details: Any) -> None:
        project = ResourceRef(ResourceType.PROJECT, row.project_id)
        target = ResourceRef(ResourceType(row.target_type), row.target_id) if row.target_type is not None else project
        subject = Subject(target, row.organization_id, row.project_id)
        self._work.record(action, subject, correlation_id=row.correlation_id, execution_id=str(row.id), **details)
