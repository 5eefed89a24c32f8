"""SQL of executions."""

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Row, exists, select

from app.authz.tree import KEYS
from app.core.errors import ConflictError, NotFoundError, PreconditionFailedError
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.resources import ResourceType
from app.db.functions import each_text_in
from app.db.repository import Repository, SortColumns, equal_to, wire_columns
from app.models import Execution, ExecutionEvent
from app.resources.executions.schemas import ExecutionListQuery, ExecutionStatus
from app.unit_of_work import UnitOfWork


class ExecutionRepository(Repository):
    """Statements over ``executions``."""

    model = Execution
    sort_columns: ClassVar[SortColumns] = {
        "started_at": Execution.started_at,
        "ended_at": Execution.ended_at,
        "operation": Execution.operation,
        "status": Execution.status,
    }

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def target_exists(self, target_type: ResourceType, target_id: UUID, project_id: UUID) -> bool:
        """Whether there is such a document or API call in the project."""
        key = KEYS[target_type]
        statement = select(key).where(key == target_id, key.class_.project_id == project_id)
        return (await self._session.execute(statement)).one_or_none() is not None

    async def change_running(self, execution_id: UUID, values: dict[str, Any], expected_revision: int | None) -> Row[Any]:
        """Change, or end, an execution that runs. Decided by the database, so of many that would end it at once one does.

        Raises:
            ConflictError: it has ended already.
        """
        try:
            return await self.update(execution_id, values, expected_revision, Execution.status == ExecutionStatus.RUNNING.value)
        except (NotFoundError, PreconditionFailedError):
            await self.require_running(execution_id)
            raise

    async def require_running(self, execution_id: UUID) -> None:
        """Until the transaction ends nobody ends the execution.

        Raises:
            NotFoundError: it is gone.
            ConflictError: it has ended already.
        """
        statement = select(Execution.status).where(Execution.id == execution_id).with_for_update()
        status = (await self._session.execute(statement)).scalar_one_or_none()
        if status is None:
            raise NotFoundError
        if status != ExecutionStatus.RUNNING:
            raise ConflictError(f"The execution has ended: it is {status}.", code="already_ended")

    async def trace(self, root_id: UUID, limit: int) -> Sequence[Row[Any]]:
        """The executions of one tree that the actor may read, oldest first; one statement."""
        statement = self._work.only_visible(select(*wire_columns(Execution)), Execution).where(Execution.root_execution_id == root_id)
        rows: Sequence[Row[Any]] = (await self._session.execute(statement.order_by(Execution.started_at, Execution.id).limit(limit))).all()
        return rows

    async def list_visible(self, query: ExecutionListQuery, request: PageRequest | CursorRequest) -> Page[Row[Any]] | CursorPage[Row[Any]]:
        """The executions the actor was admitted to."""
        exact = {
            Execution.organization_id: query.organization_id,
            Execution.project_id: query.project_id,
            Execution.status: query.status,
            Execution.target_type: query.target_resource_type,
            Execution.correlation_id: query.correlation_id,
            Execution.parent_execution_id: query.parent_execution_id,
            Execution.operation: query.operation,
            Execution.model_provider: query.model_provider,
            Execution.model_name: query.model_name,
            Execution.kind: query.kind,
            Execution.session_id: query.session_id,
        }
        statement = self._work.only_visible(select(*wire_columns(Execution)), Execution).where(*equal_to(exact))
        if query.tag is not None:
            tags = each_text_in(Execution.tags)
            statement = statement.where(exists(select(tags.c.value).where(tags.c.value == query.tag)))
        return await self.page(statement, request)


class ExecutionEventRepository(Repository):
    """Statements over ``execution_events``."""

    model = ExecutionEvent
    sort_columns: ClassVar[SortColumns] = {"occurred_at": ExecutionEvent.occurred_at}

    async def list_of(self, execution_id: UUID, request: PageRequest | CursorRequest) -> Page[Row[Any]] | CursorPage[Row[Any]]:
        """The events of one execution."""
        return await self.page(select(*wire_columns(ExecutionEvent)).where(ExecutionEvent.execution_id == execution_id), request)
