"""SQL of executions."""

from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Row, select

from app.authz.tree import KEYS
from app.core.errors import ConflictError, NotFoundError, PreconditionFailedError
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.resources import ResourceType
from app.db.repository import Repository, SortColumns, equal_to, wire_columns
from app.models import Execution
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

    async def exists(self, execution_id: UUID) -> bool:
        """Whether there is such an execution in this organization."""
        found = await self._session.execute(select(Execution.id).where(Execution.id == execution_id))
        return found.one_or_none() is not None

    async def target_exists(self, target_type: ResourceType, target_id: UUID, project_id: UUID) -> bool:
        """Whether there is such a document or API call in the project."""
        key = KEYS[target_type]
        statement = select(key).where(key == target_id, key.class_.project_id == project_id)
        return (await self._session.execute(statement)).one_or_none() is not None

    async def end(self, execution_id: UUID, values: dict[str, Any], expected_revision: int | None) -> Row[Any]:
        """End an execution that runs. Decided by the database, so of many at once one wins.

        Raises:
            ConflictError: it has ended already.
        """
        try:
            return await self.update(execution_id, values, expected_revision, Execution.status == ExecutionStatus.RUNNING.value)
        except (NotFoundError, PreconditionFailedError):
            status = (await self._session.execute(select(Execution.status).where(Execution.id == execution_id))).scalar_one_or_none()
            if status is None or status == ExecutionStatus.RUNNING:
                raise
        raise ConflictError(f"The execution has ended: it is {status}.", code="already_ended")

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
        }
        statement = self._work.only_visible(select(*wire_columns(Execution)), Execution)
        return await self.page(statement.where(*equal_to(exact)), request)
