"""SQL of executions that come as spans: a handful of statements, however many spans."""

import json
from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

from sqlalchemy import Uuid, case, cast, select, tuple_, update

from app.core.clock import now
from app.core.errors import NotFoundError
from app.db.functions import each_array, text_at, unindexed
from app.models import Execution, Organization
from app.resources.executions.otlp_forest import Grafted, SpanKey, Stored, Waiting
from app.resources.executions.repository import ExecutionRepository
from app.resources.executions.schemas import ExecutionStatus

_ITEM: Final = each_array("asked").c.value
# Spans are asked for by IN, never by a join: SQLite would read the organization's executions first, all of them.
_ASKED: Final = select(text_at(_ITEM, 0), text_at(_ITEM, 1))


class SpanRepository(ExecutionRepository):
    """Statements over ``executions`` that have a span's ids."""

    async def hold(self, organization_id: UUID) -> None:
        """Until the transaction ends nobody else takes in spans of the organization.

        Without this, two requests at once, one with a parent and one with its child, would each miss the other's span. Others
        are not held up: what they add below the organization needs a weaker lock.

        Raises:
            NotFoundError: the organization is gone.
        """
        statement = select(Organization.id).where(Organization.id == organization_id).with_for_update(key_share=True)
        if (await self._session.execute(statement)).one_or_none() is None:
            raise NotFoundError

    async def stored(self, keys: Collection[SpanKey]) -> tuple[set[SpanKey], Mapping[UUID, Mapping[SpanKey, Stored]]]:
        """Which of the spans the organization has; and what they are, project by project."""
        key = Execution.trace_id, Execution.span_id
        columns = *key, Execution.id, Execution.root_execution_id, Execution.project_id, Execution.status
        statement = select(*columns).where(tuple_(*key).in_(_ASKED))
        by_project: dict[UUID, dict[SpanKey, Stored]] = {}
        for row in await self._session.execute(statement, {"asked": json.dumps(list(keys))}):
            found = Stored(row.id, row.root_execution_id or row.id, row.status == ExecutionStatus.RUNNING)
            by_project.setdefault(row.project_id, {})[SpanKey(row.trace_id, row.span_id)] = found
        return {key for spans in by_project.values() for key in spans}, by_project

    async def waiting_for(self, keys: Collection[SpanKey], project_id: UUID) -> list[Waiting]:
        """The roots in the project whose parent is one of these spans."""
        statement = select(Execution.id, Execution.trace_id, Execution.parent_span_id).where(
            tuple_(Execution.trace_id, Execution.parent_span_id).in_(_ASKED),
            Execution.parent_span_id.is_not(None),  # says to the database that its partial index will do
            Execution.parent_execution_id.is_(None),
            unindexed(Execution.project_id) == project_id,  # else SQLite would read the whole project
        )
        rows = await self._session.execute(statement, {"asked": json.dumps(list(keys))})
        return [Waiting(row.id, SpanKey(row.trace_id, row.parent_span_id)) for row in rows]

    async def graft(self, grafted: Collection[Grafted]) -> None:
        """Put stored trees below spans that have come after them: the roots get a parent, everything in the trees the new root."""
        item = each_array("grafted").c.value
        columns = (cast(text_at(item, place), Uuid()).label(name) for place, name in enumerate(Grafted._fields))
        tree = select(*columns).cte("tree").prefix_with("MATERIALIZED")  # else SQLite reads every execution first
        statement = (
            update(Execution)
            .where(Execution.root_execution_id == tree.c.id)
            .values(
                root_execution_id=tree.c.root_id,
                parent_execution_id=case((Execution.id == tree.c.id, tree.c.parent_id), else_=Execution.parent_execution_id),
                revision=Execution.revision + 1,
                updated_at=now(),
            )
        )
        await self._session.execute(statement, {"grafted": json.dumps([[id_.hex for id_ in one] for one in grafted])})
