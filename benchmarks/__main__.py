"""Everything at once: ours beside the reference and the floor, on both databases, into one file of tables. See README.md."""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Final

import httpx

from benchmarks import machine, report
from benchmarks.files import judge_files, measure_files, render_files
from benchmarks.load import run_load
from benchmarks.machine import Work
from benchmarks.processes import (
    judge_starts,
    judge_workers,
    make_database,
    measure_ceiling,
    measure_starts,
    measure_workers,
    render_ceiling,
    render_workers,
)
from benchmarks.results import Results
from benchmarks.servers import REFERENCE
from benchmarks.targets import USUAL, Verdict, judge
from benchmarks.workloads import WORKLOADS, Workload
from benchmarks.worlds import POSTGRESQL, SQLITE, Side, Sizes, run_worlds
from tests.support.database import make_owner
from tests.support.postgres import run_postgres

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
CONNECTIONS: Final = (1, 16, 64)
TINY: Final = Sizes(long=100, short=30, crowd=20, handful=10)
FILES, START, WORKERS, CEILING = "file-1gib", "start", "workers", "ceiling"
PARTS: Final = {
    **{workload.name: workload.title for workload in WORKLOADS},
    FILES: "upload and download of one file of 1 GiB; with S3=1 also in S3",
    START: "time to the first answer, and memory at rest",
    WORKERS: "reads of two workers against one",
    CEILING: "what the load tool can do at best",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how thoroughly."""

    parts: tuple[str, ...]
    seconds: float
    warm_up: float
    repeat: int
    connections: tuple[int, ...]
    kinds: tuple[str, ...]
    """The databases on which processes are started and compared; requests always go to all sides."""
    sizes: Sizes
    file_mib: int
    in_s3: bool

    @property
    def compared(self) -> tuple[int, ...]:
        """The numbers of connections with which sides are compared."""
        return tuple(number for number in self.connections if number == USUAL) or self.connections

    @property
    def workloads(self) -> list[Workload]:
        """The kinds of requests among the parts."""
        return [workload for workload in WORKLOADS if workload.name in self.parts]


@dataclass(slots=True)
class Report:
    """What comes of it."""

    verdicts: list[Verdict] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def measure_requests(plan: Plan, folder: Path, postgres: str) -> Results:
    """Every workload on every side, one after the other, ``repeat`` times."""
    results = Results()
    say("filling the databases")
    with run_worlds(folder, postgres, plan.sizes) as worlds, httpx.Client(timeout=60) as client:
        say("first answers")
        requests = {
            (workload.name, side): workload.prepare(world, client)
            for workload in plan.workloads
            for side, world in worlds.items()
            if workload.is_for(side)
        }
        for (_, side), request in requests.items() if plan.warm_up else ():
            run_load(worlds[side].server, request, plan.connections[-1], plan.warm_up)
        for number in range(plan.repeat):
            for workload, connections, side in _turns(plan, worlds):
                say(f"run {number + 1} of {plan.repeat}: {workload.name}, {connections} connections, {', '.join(side)}")
                load = run_load(worlds[side].server, requests[workload.name, side], connections, plan.seconds)
                results.add((workload.name, side, connections), load)
    return results


def _turns(plan: Plan, sides: Iterable[Side]) -> Iterator[tuple[Workload, int, Side]]:
    for workload in plan.workloads:
        for turn in product([workload], plan.compared if workload.is_small else plan.connections, sides):
            if workload.is_for(turn[2]):
                yield turn


def measure(plan: Plan, folder: Path, postgres: str) -> Report:
    """All parts of the plan."""
    done = Report()
    if plan.workloads:
        results = measure_requests(plan, folder, postgres)
        done.verdicts += judge(results)
        done.lines += ["## Requests", "", *report.render_requests(results)]
        done.failures += [
            f"{results.failed(key)} requests failed: {key[0]}, {', '.join(key[1])}, {key[2]} connections"
            for key in results.measured()
            if results.failed(key) and key[1][0] != REFERENCE  # how it fails under load is a result
        ]
    if FILES in plan.parts:
        for in_s3 in (False, True)[: 1 + plan.in_s3]:
            say("one large file" + (" in S3" if in_s3 else ""))
            files = measure_files(folder, plan.file_mib, plan.repeat, in_s3=in_s3)
            done.verdicts += judge_files(files)
            done.lines += render_files(files)
    measure_processes(plan, folder, postgres, done)
    return done


def measure_processes(plan: Plan, folder: Path, postgres: str, done: Report) -> None:
    """The parts that look at processes rather than at requests."""
    kinds = plan.kinds if {START, WORKERS} & {*plan.parts} else ()
    databases = {kind: make_database(kind, folder, postgres) for kind in kinds}
    if START in plan.parts:
        say("starts")
        done.verdicts += judge_starts(measure_starts(folder, databases, plan.repeat))
    if WORKERS in plan.parts:
        say("two workers against one")
        pairs = measure_workers(folder, databases, plan.seconds, plan.repeat)
        done.verdicts += judge_workers(pairs)
        done.lines += render_workers(pairs)
    if CEILING in plan.parts:
        done.lines += render_ceiling(measure_ceiling(folder, plan.seconds))


def render(plan: Plan, done: Report, others: float) -> str:
    """The whole file."""
    told = f"Runs: {plan.repeat}, interleaved, of {plan.seconds:g} s each. Medians (lowest to highest); ratios are made within each run."
    told += f" Other programs took {others:.0%} of the processors meanwhile."
    head = ["# Results", "", "Made by `make bench`. How to read them: [README.md](README.md).", "", told, "", machine.describe(), ""]
    return "\n".join([*head, "## Targets", *report.render_verdicts(done.verdicts), *done.lines])


def say(what: str) -> None:
    """Tell who waits."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="names of parts, with commas between them; 'help' lists them")
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the servers keep their data; a temporary folder when absent")
    parser.add_argument("--output", type=Path, help=f"{RESULTS.name} for a whole run, the screen for parts of it, when absent")
    parser.add_argument("--s3", action="store_true", help="the large file in S3 too, served by rclone on this machine")
    parser.add_argument("--smoke", action="store_true", help="whether everything runs: tiny tables, one short run")
    given = parser.parse_args()
    parts = tuple(name for name in given.only.split(",") if name) or tuple(PARTS)
    if unknown := [name for name in parts if name not in PARTS]:
        return explain_parts(unknown)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers end with the script
    before, plan = Work.so_far(), make_plan(parts, given)
    with tempfile.TemporaryDirectory(prefix="saasbase-bench-", dir=given.folder) as name:
        with run_postgres() as postgres:
            asyncio.run(make_owner(postgres))
            done = measure(plan, Path(name), postgres)
        others = Work.so_far().of_others_since(before)
        # Parts of it, and a smoke run, do not replace the results of a whole run.
        usual = Path(name) / RESULTS.name if given.smoke else None if given.only else RESULTS
        return tell(render(plan, done, others), done.failures, given.output or usual)


def explain_parts(unknown: Sequence[str]) -> int:
    """Which names there are; the exit status."""
    print("\n".join(f"{name:20} {title}" for name, title in PARTS.items()))
    if unknown == ["help"]:
        return 0
    say(f"there is no {', no '.join(unknown)}")
    return 2


def make_plan(parts: tuple[str, ...], given: argparse.Namespace) -> Plan:
    """Large tables only where they are asked for: they take a while to fill."""
    if given.smoke:
        return Plan(parts, 0.1, 0, 1, (4,), (SQLITE,), TINY, 8, in_s3=given.s3)
    is_large = any(workload.is_about_size for workload in WORKLOADS if workload.name in parts)
    sizes = Sizes() if is_large else TINY
    return Plan(parts, given.seconds, 0.3, given.repeat, CONNECTIONS, (SQLITE, POSTGRESQL), sizes, 1024, in_s3=given.s3)


def tell(text: str, failures: Sequence[str], output: Path | None) -> int:
    """Write or print the tables; the exit status."""
    if output is None:
        print(text)
    else:
        output.write_text(text)
    for failure in failures:
        say(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
