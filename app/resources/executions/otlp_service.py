"""Rules of spans that come in from OpenTelemetry: each is stored once, in its tree, whatever the order of arrival."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from app.authz.engine import Located
from app.core.clock import now
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.resources.executions.lifecycle import record, starting
from app.resources.executions.otlp_forest import SpanKey, Sprout, plant
from app.resources.executions.otlp_mapping import Source, values_of
from app.resources.executions.otlp_repository import SpanRepository
from app.resources.executions.otlp_wire import SpanError, read_groups, write_answer
from app.resources.executions.schemas import ExecutionStatus, StartFields
from app.unit_of_work import UnitOfWork

MAX_TRACES_TOLD: Final = 20
ELSEWHERE: Final = "a span with its ids is known outside this project"
# One for the process: reading is all CPU, so two at once would only need the memory of two.
_reader: Final = ThreadPoolExecutor(1, "otlp")


@dataclass(slots=True)
class Batch:
    """The spans of a request as columns, each once; and how many were rejected, by reason."""

    spans: dict[SpanKey, dict[str, Any]] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)


class SpanService:
    """Takes in spans."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._spans = SpanRepository(work)

    async def import_(self, project: Located, unpack: Callable[[], bytes], media_type: str) -> bytes:
        """Store the spans of an export request as executions of the project; returns the answer to it.

        A span the project has already is taken for granted, but one that ran when it was sent before and has its end now ends its
        execution, if that still runs. One that cannot be accepted, or that another project of the organization has, is counted in
        the answer, and the others are stored.
        All in one transaction, with the same number of statements for one span as for 10,000.

        Raises:
            BadRequestError: the body cannot be read.
            TooLargeError: the body unpacks to too much, or holds too many spans.
            NotFoundError: the project is gone.
        """
        batch = await asyncio.get_running_loop().run_in_executor(_reader, read_batch, unpack, media_type)
        if batch.spans:
            await self._store(project, batch)
        return write_answer(media_type, batch.rejected)

    async def _store(self, project: Located, batch: Batch) -> None:
        await self._spans.hold(project.organization_id)
        parents = {parent for values in batch.spans.values() if (parent := _parent_of(values)) is not None}
        known, by_project = await self._spans.stored({*batch.spans, *parents})
        stored = by_project.get(project.id, {})
        if elsewhere := sum(key in known and key not in stored for key in batch.spans):
            batch.rejected[ELSEWHERE] += elsewhere
        await self._end(
            project, {stored[key].id: values for key, values in batch.spans.items() if key in stored and stored[key].is_running}
        )
        new = [Sprout(new_id(), key, _parent_of(values)) for key, values in batch.spans.items() if key not in known]
        if not new:
            return
        waiting = await self._spans.waiting_for([sprout.key for sprout in new], project.id)
        planted, grafted = plant(new, stored, waiting)
        await self._spans.insert_all(self._rows(project, planted, batch))
        if grafted:
            await self._spans.graft(grafted)
        self._work.record(
            AuditAction.EXECUTIONS_IMPORTED,
            project,
            stored=len(new),
            known=len(batch.spans) - len(new) - elsewhere,
            rejected=batch.rejected.total(),
            trace_ids=list(dict.fromkeys(sprout.key.trace_id for sprout in new))[:MAX_TRACES_TOLD],
        )

    async def _end(self, project: Located, told: Mapping[UUID, dict[str, Any]]) -> None:
        """End those of the executions whose spans have ended. Somebody else may be faster: how they stand once locked is what counts."""
        ended = {execution_id: values for execution_id, values in told.items() if values["ended_at"] is not None}
        if not ended:
            return
        locked = await self._spans.lock(ended, project.id)
        running = {execution_id: row for execution_id, row in locked.items() if row.status == ExecutionStatus.RUNNING}
        if running:
            await self._spans.end_all({execution_id: ended[execution_id] for execution_id in running})
        for execution_id, row in running.items():
            _record_end(self._work, row, ended[execution_id])

    def _rows(self, project: Located, planted: Sequence[Sprout], batch: Batch) -> list[dict[str, Any]]:
        blank = StartFields(operation="span")
        common = starting(self._work, project, blank, new_id(), None)
        return [
            {
                **common,
                **batch.spans[sprout.key],
                "id": sprout.id,
                "parent_execution_id": sprout.parent_id,
                "root_execution_id": sprout.root_id,
            }
            for sprout in planted
        ]


def read_batch(unpack: Callable[[], bytes], media_type: str) -> Batch:
    """Unpack, decode and map; of a span that is sent twice the first counts, or the first with an end.

    Raises:
        BadRequestError, TooLargeError: see ``SpanService.import_``.
    """
    batch, moment = Batch(), now()
    for group in read_groups(unpack(), media_type):
        source = Source.of(group)
        for span in group:
            try:
                if isinstance(span, SpanError):
                    raise span
                values = values_of(span, source, moment)
            except SpanError as error:
                batch.rejected[str(error)] += 1
            else:
                known = batch.spans.setdefault(SpanKey(values["trace_id"], values["span_id"]), values)
                if known["ended_at"] is None and values["ended_at"] is not None:
                    known.update(values)
    return batch


def _record_end(work: UnitOfWork, row: Any, values: Mapping[str, Any]) -> None:
    """Record the end of an execution as if it had been ended by a request of its own."""
    if values["status"] == ExecutionStatus.COMPLETED:
        record(work, AuditAction.EXECUTION_COMPLETED, row)
        return
    error = {name: values["metadata"].get(name) for name in ("error_code", "error_message")}
    record(work, AuditAction.EXECUTION_FAILED, row, **error)


def _parent_of(values: dict[str, Any]) -> SpanKey | None:
    return SpanKey(values["trace_id"], values["parent_span_id"]) if values["parent_span_id"] is not None else None
