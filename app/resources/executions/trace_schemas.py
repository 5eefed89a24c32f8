"""Wire shapes of traces."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from app.http.schemas import ActorRef, Schema
from app.resources.executions.schemas import CostRead, ExecutionKind, ExecutionStatus, UsageRead


class Totals(Schema):
    """Sums over an execution and everything below it."""

    executions: int
    by_status: dict[ExecutionStatus, int]
    depth: int
    """Levels below the top."""
    usage: UsageRead
    """Each token once: an execution counts with what it tells itself or with what those below it tell together, whichever is more."""
    costs: list[CostRead]
    """One for each currency: the sum of what each execution tells."""


class _Traced(Schema):
    """What a trace tells of an execution; read it by its id for the rest."""

    id: UUID
    parent_execution_id: UUID | None
    project_id: UUID
    operation: str
    kind: ExecutionKind | None
    status: ExecutionStatus
    actor: ActorRef
    model_provider: str | None
    model_name: str | None
    started_at: datetime
    ended_at: datetime | None
    usage: UsageRead | None
    cost: CostRead | None
    duration_ms: float
    """From start to end; to now while it runs."""

    @classmethod
    def of(cls, row: Any, **more: Any) -> Self:
        """The wire form of a row, with what the trace adds."""
        return cls(**{name: getattr(row, name) for name in _COLUMNS}, actor=ActorRef(type=row.actor_type, id=row.actor_id), **more)


_COLUMNS = tuple(name for name in _Traced.model_fields if name not in {"actor", "duration_ms"})


class TreeNode(_Traced):
    """An execution with everything below it."""

    totals: Totals
    children: list["TreeNode"]
    """By start."""


class TreeRead(Schema):
    """An execution and everything below it that you may read, nested."""

    root: TreeNode
    is_complete: bool
    """False when there are more than 10,000, or more than 100 levels: the rest is left out, though counted as far as it was read."""


class TimelineRow(_Traced):
    """An execution on the time line."""

    depth: int
    offset_ms: float
    """From the start of the trace."""
    is_critical: bool
    """Whether it is on the critical path: the executions that decided when the whole ended."""


class TimelineRead(Schema):
    """An execution and everything below it that you may read, one row each."""

    started_at: datetime
    duration_ms: float
    totals: Totals
    items: list[TimelineRow]
    """Parents before children, siblings by start."""
    is_complete: bool
    """False when there are more than 10,000: then the first of them are shown."""
