"""What row-level security costs: the same service on PostgreSQL, once as the owner of the tables without it, once confined by it."""

import argparse
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.load import Target, run_load, tool
from benchmarks.requests import (
    CONNECTIONS,
    GET_DOCUMENT,
    GET_PROJECT,
    LIST_CURSOR,
    LIST_PAGE,
    POST_PROJECT,
    Result,
    prepare,
)
from benchmarks.servers import Running, run_confined
from tests.support.database import APP, OWNER
from tests.support.postgres import run_postgres

OFF, ON = "off", "on"
WITH_KEY: Final = "GET project with an API key"
WORKLOADS: Final = (GET_PROJECT, GET_DOCUMENT, WITH_KEY, LIST_PAGE, LIST_CURSOR, POST_PROJECT)

Key = tuple[str, str, int]
"""On or off, workload, connections."""


@contextmanager
def run_services(folder: Path) -> Iterator[dict[str, Running]]:
    """Both at once, each on a database of its own; the load goes to one at a time."""
    with ExitStack() as stack:
        postgres = stack.enter_context(run_postgres())
        yield {wall: stack.enter_context(run_confined(folder / wall, postgres, role))[0] for wall, role in ((OFF, OWNER), (ON, APP))}


def prepare_all(server: Running, projects: int) -> dict[str, Target]:
    """What the requests ask for, and the first of them with a key."""
    targets = prepare(server, projects)
    organization = targets[LIST_PAGE].path.partition("organization_id=")[2].partition("&")[0]
    wanted = {"name": "bench", "scope_type": "ORGANIZATION", "scope_id": organization, "role": "ORG_MEMBER"}
    token = server.post("/api-keys", wanted)["token"]
    targets[WITH_KEY] = Target("GET", targets[GET_PROJECT].path, {"Authorization": f"Bearer {token}"})
    return targets


def measure(folder: Path, given: argparse.Namespace) -> dict[Key, list[Result]]:
    """Every workload without and with it, one after the other, ``repeat`` times."""
    results: dict[Key, list[Result]] = defaultdict(list)
    with run_services(folder) as services:
        targets = {wall: prepare_all(server, given.projects) for wall, server in services.items()}
        for repeat in range(given.repeat):
            for workload in WORKLOADS:
                print(f"run {repeat + 1}: {workload}", file=sys.stderr, flush=True)
                for connections in CONNECTIONS:
                    for wall, server in services.items():
                        cpu = server.cpu_seconds()
                        load = run_load(server.url, targets[wall][workload], connections, given.seconds)
                        cpu_us = (server.cpu_seconds() - cpu) * 1e6 / max(load.per_second * given.seconds, 1)
                        results[wall, workload, connections].append(Result(load, cpu_us))
    return results


def report(results: dict[Key, list[Result]]) -> None:
    """Print a table."""
    print("\n| workload | connections | off: requests/s | on: requests/s | ratio (lowest to highest) | p50 ms, off / on | ratio of CPU |")
    print("|---" * 7 + "|")
    for workload in WORKLOADS:
        for connections in CONNECTIONS:
            off, on = (results[wall, workload, connections] for wall in (OFF, ON))
            failed = " (some fail)" if any(result.load.failed for result in (*off, *on)) else ""
            ratios = [its.load.per_second / mine.load.per_second for mine, its in zip(off, on, strict=True)]
            cpu = statistics.median(its.cpu_us / mine.cpu_us for mine, its in zip(off, on, strict=True))
            rates = [statistics.median(result.load.per_second for result in side) for side in (off, on)]
            waits = [statistics.median(result.load.p50_ms for result in side) for side in (off, on)]
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(
                f"| {workload} | {connections} | {rates[0]:,.0f}{failed} | {rates[1]:,.0f} | {ratio}"
                f" | {waits[0]:.1f} / {waits[1]:.1f} | {cpu:.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--projects", type=int, default=1000, help="length of the list that is paged through")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers end with the script
    with tempfile.TemporaryDirectory(prefix="saasbase-bench-") as name:
        results = measure(Path(name), given)
    print(f"Load by {tool()}; medians of {given.repeat} interleaved runs of {given.seconds} s; ratios on : off are made within each run.")
    report(results)


if __name__ == "__main__":
    main()
