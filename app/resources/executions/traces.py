"""A whole trace from its rows: nesting, offsets, totals, and the path that decided how long it took."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from app.resources.executions.schemas import CostRead, ExecutionStatus, UsageRead
from app.resources.executions.trace_schemas import TimelineRead, TimelineRow, Totals, TreeNode, TreeRead

_COUNTED = tuple(UsageRead.model_fields)
MAX_NESTED = 100


@dataclass(slots=True)
class Node:
    """An execution in its trace."""

    row: Any
    ended_at: datetime
    depth: int = 0
    children: list["Node"] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From start to end, or to now."""
        started_at: datetime = self.row.started_at
        return (self.ended_at - started_at).total_seconds()


def arrange(rows: Sequence[Any], top_id: UUID, moment: datetime) -> list[Node]:
    """The executions from ``top_id`` down, parents before children, siblings by their start; the top comes first.

    Rows that do not hang below it are left out. Cost: one pass and a sort.
    """
    children: defaultdict[UUID | None, list[Any]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.started_at, row.id)):
        children[row.parent_execution_id].append(row)
    top = next(row for row in rows if row.id == top_id)
    arranged: list[Node] = []
    waiting = [Node(top, top.ended_at or moment)]
    seen = {top.id}
    while waiting:
        node = waiting.pop()
        arranged.append(node)
        below = [row for row in children[node.row.id] if row.id not in seen]
        seen.update(row.id for row in below)
        node.children = [Node(row, row.ended_at or moment, node.depth + 1) for row in below]
        waiting.extend(reversed(node.children))
    return arranged


def tree(nodes: Sequence[Node], *, is_complete: bool) -> TreeRead:
    """The nested form, to a depth that every JSON reader takes; each node with the totals of everything below it, itself included."""
    made: dict[UUID, TreeNode] = {}
    sums = sum_up(nodes)
    for node in reversed(nodes):
        below = [made.pop(child.row.id) for child in node.children if child.row.id in made]
        if node.depth <= MAX_NESTED:
            made[node.row.id] = TreeNode.of(node.row, duration_ms=_ms(node.seconds), totals=sums[node.row.id].told(), children=below)
    is_whole = all(node.depth <= MAX_NESTED for node in nodes)
    return TreeRead(root=made[nodes[0].row.id], is_complete=is_complete and is_whole)


def timeline(nodes: Sequence[Node], *, is_complete: bool) -> TimelineRead:
    """The flat form, in the order of the tree."""
    begin = min(node.row.started_at for node in nodes)
    end = max(node.ended_at for node in nodes)
    critical = critical_path(nodes[0])
    rows = [
        TimelineRow.of(
            node.row,
            depth=node.depth,
            offset_ms=_ms((node.row.started_at - begin).total_seconds()),
            duration_ms=_ms(node.seconds),
            is_critical=node.row.id in critical,
        )
        for node in nodes
    ]
    return TimelineRead(
        started_at=begin,
        duration_ms=_ms((end - begin).total_seconds()),
        totals=sum_up(nodes)[nodes[0].row.id].told(),
        items=rows,
        is_complete=is_complete,
    )


@dataclass(slots=True)
class Sums:
    """Counts and sums over an execution and what is below it."""

    statuses: Counter[str]
    tokens: Counter[str]
    costs: defaultdict[str, Decimal]
    depth: int = 0

    @classmethod
    def of(cls, row: Any, below: Sequence["Sums"]) -> Self:
        """Those of an execution with the sums of its children.

        Tokens are counted once: an execution has used what it tells itself or what those below it tell together, whichever is
        more. The conventions of OpenTelemetry put ``gen_ai.usage.*`` on the span of a model call and on that of the agent which
        made it, and most instrumentations give the agent the sum of its calls, without a mark that says so. The agent's own word
        counts where its calls are not there to be counted. What something cost is told by applications, each for itself: all of
        it is added up.
        """
        statuses, counted = Counter([row.status]), Counter[str]()
        costs = defaultdict(Decimal, {row.cost["currency"]: Decimal(row.cost["amount"])} if row.cost is not None else {})
        for sums in below:
            statuses.update(sums.statuses)
            counted.update(sums.tokens)
            for currency, amount in sums.costs.items():
                costs[currency] += amount
        told = row.usage or {}
        tokens = Counter({name: max(told.get(name, 0), counted[name]) for name in _COUNTED})
        return cls(statuses, tokens, costs, depth=max((sums.depth + 1 for sums in below), default=0))

    def told(self) -> Totals:
        """The wire form."""
        return Totals(
            executions=self.statuses.total(),
            by_status={ExecutionStatus(status): count for status, count in sorted(self.statuses.items())},
            depth=self.depth,
            usage=UsageRead(**self.tokens),
            costs=[CostRead(amount=amount, currency=currency) for currency, amount in sorted(self.costs.items())],
        )


def sum_up(nodes: Sequence[Node]) -> dict[UUID, Sums]:
    """The sums of every execution of a trace; each is added to its parent's once."""
    sums: dict[UUID, Sums] = {}
    for node in reversed(nodes):
        sums[node.row.id] = Sums.of(node.row, [sums[child.row.id] for child in node.children])
    return sums


def critical_path(top: Node) -> frozenset[UUID]:
    """The executions that decided when the top one ended.

    Walked backwards from the end: the child that ended last is on the path; before it began, the one that had ended last by
    then, and so on; the same inside each of them.
    """
    found = set()
    waiting: list[tuple[Node, datetime]] = [(top, top.ended_at)]
    while waiting:
        node, until = waiting.pop()
        found.add(node.row.id)
        for child in sorted(node.children, key=lambda child: child.ended_at, reverse=True):
            end = min(child.ended_at, node.ended_at)
            if end <= until:
                waiting.append((child, end))
                until = child.row.started_at
    return frozenset(found)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
