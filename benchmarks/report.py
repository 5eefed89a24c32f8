"""The tables of a run, as Markdown."""

from collections.abc import Iterable, Iterator

from benchmarks.results import Key, Results, Spread
from benchmarks.servers import CONFINED, FLOOR, OURS, REFERENCE
from benchmarks.targets import Verdict
from benchmarks.workloads import WORKLOADS, Workload
from benchmarks.worlds import SIDES, Side

Row = Iterable[str]


def table(head: Row, rows: Iterable[Row]) -> list[str]:
    """The lines of a table."""
    heads = list(head)
    return ["", _line(heads), "|" + "---|" * len(heads), *(_line(row) for row in rows), ""]


def number(value: float | None) -> str:
    """As many digits as mean something; nothing for what was not measured."""
    if value is None:
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(found: Spread | None) -> str:
    """A median with what lies around it."""
    if found is None:
        return ""
    around = "" if found.lowest == found.highest else f" ({number(found.lowest)} to {number(found.highest)})"
    return number(found.median) + around


def render_verdicts(verdicts: Iterable[Verdict]) -> list[str]:
    """What is wanted, what is, and whether that is enough."""
    rows = [
        (
            verdict.title,
            verdict.database,
            verdict.measure,
            f"{'<=' if verdict.is_upper else '>='} {verdict.bound:g}",
            *_judged(verdict, verdict.value),
            *_judged(verdict, verdict.confined),
            number(verdict.floor),
        )
        for verdict in verdicts
    ]
    return table(("what", "database", "measure", "target", "is", "met", "with row-level security", "met", "the floor"), rows)


def render_requests(results: Results) -> Iterator[str]:
    """A table for each workload that was measured."""
    for workload in WORKLOADS:
        if keys := [key for key in results.measured() if key[0] == workload.name]:
            yield f"### `{workload.name}`: {workload.title}"
            order = sorted(keys, key=lambda key: (SIDES.index(key[1]), key[2]))
            head = ("", "connections", "requests/s", "p50 ms", "p99 ms", "server CPU us", "times the reference", "times the floor")
            yield from table(head, (_request_row(results, workload, key) for key in order))


def _request_row(results: Results, workload: Workload, key: Key) -> Iterator[str]:
    _, side, connections = key
    failed = f" ({results.failed(key)} failed)" if results.failed(key) else ""
    yield ", ".join(side)
    yield str(connections)
    yield number(_median(results, key, "per_second")) + failed
    for name in ("p50_ms", "p99_ms", "cpu_us"):
        yield number(_median(results, key, name))
    for other in (REFERENCE, FLOOR):
        against: Side = (other, side[1])
        is_told = side[0] in {OURS, CONFINED, FLOOR} and side[0] != other
        yield spread(results.ratio(key, (workload.name, against, connections))) if is_told else ""


def _median(results: Results, key: Key, name: str) -> float | None:
    found = results.spread(key, lambda load: float(getattr(load, name)))
    return None if found is None else found.median


def _judged(verdict: Verdict, value: float | None) -> tuple[str, str]:
    return (number(value), "") if value is None else (number(value), "yes" if verdict.is_met(value) else "**no**")


def _line(cells: Row) -> str:
    return "| " + " | ".join(cells) + " |"
