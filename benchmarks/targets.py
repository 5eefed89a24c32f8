"""What is wanted of the numbers, and whether it is so: computed from what was measured, never typed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.results import Results
from benchmarks.servers import CONFINED, FLOOR, OURS, REFERENCE
from benchmarks.workloads import SMALL, WORKLOADS
from benchmarks.worlds import POSTGRESQL, SQLITE, Side

USUAL, MANY = 16, 64
"""Connections."""

Number = Callable[[Results, str, Side], float | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A number of ours beside what is wanted of it; on PostgreSQL without and with row-level security.

    ``floor`` is the same number of the least that this stack can do: what that misses too, no service on it can reach. It runs on
    PostgreSQL, also when it is set against the reference on SQLite.
    """

    title: str
    database: str
    measure: str
    bound: float
    is_upper: bool
    value: float | None
    confined: float | None = None
    floor: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether a value is as it should be."""
        return value <= self.bound if self.is_upper else value >= self.bound


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted of one workload on one database."""

    workload: str
    database: str
    number: Number
    bound: float
    is_upper: bool = False


def times_the_reference(results: Results, workload: str, side: Side) -> float | None:
    return _ratio(results, (workload, side, USUAL), (workload, (REFERENCE, side[1]), USUAL))


def part_of_the_floor(results: Results, workload: str, side: Side) -> float | None:
    return _ratio(results, (workload, side, USUAL), (workload, (FLOOR, side[1]), USUAL))


def part_of_it_with_little_data(results: Results, workload: str, side: Side) -> float | None:
    return _ratio(results, (workload, side, USUAL), (workload + SMALL, side, USUAL))


def part_of_it_unconfined(results: Results, workload: str, side: Side) -> float | None:
    return None if side[0] == OURS else _ratio(results, (workload, side, USUAL), (workload, (OURS, side[1]), USUAL))


def p99_over_p50(results: Results, workload: str, side: Side) -> float | None:
    found = results.spread((workload, side, MANY), lambda load: load.p99_ms / max(load.p50_ms, 0.001))
    return None if found is None else found.median


MEASURES: Final[dict[Number, str]] = {
    times_the_reference: f"times the reference, {USUAL} connections",
    part_of_the_floor: f"part of the floor, {USUAL} connections",
    part_of_it_with_little_data: f"part of the same with little data, {USUAL} connections",
    part_of_it_unconfined: f"row-level security on / off, {USUAL} connections",
    p99_over_p50: f"p99 / p50, {MANY} connections",
}

_WHOLE: Final = [workload.name for workload in WORKLOADS if OURS in workload.programs and not workload.is_small]

TARGETS: Final = (
    Target("get-key", POSTGRESQL, times_the_reference, 30),
    Target("get-key", POSTGRESQL, part_of_the_floor, 0.40),
    Target("get-key", SQLITE, times_the_reference, 10),
    Target("get-header", POSTGRESQL, times_the_reference, 12),
    Target("get-header", POSTGRESQL, part_of_the_floor, 0.45),
    Target("get-header", SQLITE, times_the_reference, 1.2),
    Target("post-api-call", POSTGRESQL, times_the_reference, 12),
    Target("post-api-call", POSTGRESQL, part_of_the_floor, 0.30),
    Target("post-api-call", SQLITE, times_the_reference, 6),
    Target("keyset", POSTGRESQL, times_the_reference, 40),
    Target("keyset", SQLITE, times_the_reference, 80),
    Target("keyset", POSTGRESQL, part_of_it_with_little_data, 0.80),
    Target("keyset", SQLITE, part_of_it_with_little_data, 0.80),
    Target("page-total", POSTGRESQL, times_the_reference, 5),
    Target("page-total", SQLITE, times_the_reference, 10),
    Target("check-allowed", POSTGRESQL, times_the_reference, 1),
    Target("check-denied", POSTGRESQL, times_the_reference, 12),
    *(
        Target(workload, database, part_of_it_with_little_data, 0.80)
        for workload in ("check-allowed", "check-denied")
        for database in (POSTGRESQL, SQLITE)
    ),
    Target("upload-1mib", SQLITE, times_the_reference, 5),
    *(Target(name, POSTGRESQL, part_of_it_unconfined, 0.65) for name in _WHOLE),
    *(Target(name, database, p99_over_p50, 4, is_upper=True) for name in _WHOLE for database in (POSTGRESQL, SQLITE)),
)


def judge(results: Results) -> Iterator[Verdict]:
    """Every target of which something was measured."""
    titles = {workload.name: workload.title for workload in WORKLOADS}
    names = list(titles)
    for target in sorted(TARGETS, key=lambda target: names.index(target.workload)):
        value, confined = (target.number(results, target.workload, (program, target.database)) for program in (OURS, CONFINED))
        if value is not None or confined is not None:
            floor = _of_the_floor(results, target)
            measure = MEASURES[target.number]
            yield Verdict(titles[target.workload], target.database, measure, target.bound, target.is_upper, value, confined, floor)


def _of_the_floor(results: Results, target: Target) -> float | None:
    """The floor's own number, beside the reference on that database: itself it runs on PostgreSQL."""
    floor = (FLOOR, POSTGRESQL)
    if target.number is times_the_reference:
        return _ratio(results, (target.workload, floor, USUAL), (target.workload, (REFERENCE, target.database), USUAL))
    return target.number(results, target.workload, floor) if target.number is p99_over_p50 and target.database == POSTGRESQL else None


def _ratio(results: Results, one: tuple[str, Side, int], other: tuple[str, Side, int]) -> float | None:
    found = results.ratio(one, other)
    return None if found is None else found.median
