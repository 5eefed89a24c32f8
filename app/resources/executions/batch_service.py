"""Rules of many starts and ends at once: each item as if it came alone, all in one transaction, in as many statements as a few."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from app.authz.engine import Located
from app.core.clock import now
from app.core.errors import AppError, InvalidError, NotFoundError
from app.core.identifiers import new_id
from app.resources.executions.batch_schemas import Done, EndItem, Outcome, StartItem, Unreadable
from app.resources.executions.lifecycle import ending, record, record_start, require_running, starting
from app.resources.executions.repository import ExecutionRepository
from app.resources.executions.schemas import ExecutionStatus
from app.resources.executions.surroundings import Surroundings, look_around
from app.unit_of_work import UnitOfWork


class BatchService:
    """Starts and ends executions of one project."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._executions = ExecutionRepository(work)

    async def take(self, project: Located, items: Sequence[StartItem | EndItem | Unreadable]) -> list[Outcome]:
        """Do what can be done of the items, in their order; what cannot be done leaves the others as they are.

        At most six statements and one for the events, for one item as for five hundred.

        Raises:
            NotFoundError: the project is gone.
        """
        around = await look_around(self._work, project, [item for item in items if isinstance(item, StartItem)])
        named = {item.execution_id for item in items if not isinstance(item, StartItem | Unreadable) and item.execution_id is not None}
        batch = _Batch(self._work, project, around, await self._executions.lock(named, project.id) if named else {})
        outcomes = [batch.take(index, item) for index, item in enumerate(items)]
        if batch.started:
            await self._executions.insert_all([vars(row) for row in batch.started.values()])
        if batch.ended:
            await self._executions.end_all(batch.ended)
        return outcomes


class _Batch:
    """The executions that a batch is about, as its items leave them one after the other."""

    def __init__(self, work: UnitOfWork, project: Located, around: Surroundings, stored: dict[UUID, SimpleNamespace]) -> None:
        self.started: dict[int, SimpleNamespace] = {}
        self.ended: dict[UUID, dict[str, Any]] = {}
        self._work = work
        self._project = project
        self._around = around
        self._stored = stored

    def take(self, index: int, item: StartItem | EndItem | Unreadable) -> Outcome:
        """Do one item."""
        if isinstance(item, Unreadable):
            return item
        try:
            return self._start(index, item) if isinstance(item, StartItem) else self._end(item)
        except AppError as error:
            return error

    def _start(self, index: int, item: StartItem) -> Done:
        root = self._around.root_for(item)
        above = {}
        if item.parent_index is not None:
            parent = self._started_by(item.parent_index, "/parent_index")
            root, above = parent.root_execution_id, {"parent_execution_id": parent.id}
        row = SimpleNamespace(**starting(self._work, self._project, item, new_id(), root) | above)
        self.started[index] = row
        record_start(self._work, row)
        return Done(row.id, ExecutionStatus.RUNNING, is_new=True)

    def _end(self, item: EndItem) -> Done:
        row = self._named(item)
        require_running(row.status)
        end = ending(item, row.metadata)
        values = {**end.values, "ended_at": now()}
        vars(row).update(values)
        if row.id in self._stored:
            self.ended[row.id] = values
        else:
            vars(row).update(updated_at=values["ended_at"], revision=row.revision + 1)
        record(self._work, end.action, row, **end.details)
        return Done(row.id, ExecutionStatus(row.status), is_new=False)

    def _named(self, item: EndItem) -> SimpleNamespace:
        if item.execution_index is not None:
            return self._started_by(item.execution_index, "/execution_index")
        if item.execution_id is None or item.execution_id not in self._stored:
            raise NotFoundError
        return self._stored[item.execution_id]

    def _started_by(self, place: int, pointer: str) -> SimpleNamespace:
        row = self.started.get(place)
        if row is None:  # it starts nothing, it failed, or it is still to come
            raise InvalidError("names no earlier item that started an execution", pointer=pointer)
        return row
