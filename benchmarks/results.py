"""What was measured, run by run, and the numbers that are told of it: medians, and ratios that are made within a run."""

import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.load import Load
from benchmarks.worlds import Side

Key = tuple[str, Side, int]
"""Workload, side, connections."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and what lies around it."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Results:
    """Every load that was measured."""

    _loads: dict[Key, list[Load]] = field(default_factory=lambda: defaultdict(list))

    def add(self, key: Key, load: Load) -> None:
        """Keep a measurement; those of one key come in the order of the runs."""
        self._loads[key].append(load)

    def measured(self) -> list[Key]:
        """Of what there are measurements."""
        return list(self._loads)

    def failed(self, key: Key) -> int:
        """How many requests were not answered as they should be."""
        return sum(load.failed for load in self._loads.get(key, []))

    def spread(self, key: Key, number: Callable[[Load], float]) -> Spread | None:
        """A number of the loads; None when nothing was measured."""
        loads = self._loads.get(key)
        return Spread.of([number(load) for load in loads]) if loads else None

    def ratio(self, one: Key, other: Key) -> Spread | None:
        """How many times the requests of the other, run by run; None when either was not measured."""
        pairs = list(zip(self._loads.get(one, []), self._loads.get(other, []), strict=False))
        rates = [mine.per_second / its.per_second for mine, its in pairs if its.per_second]
        return Spread.of(rates) if rates else None
