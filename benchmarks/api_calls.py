"""API calls put on record per second, each with its audit event, beside what the database alone takes of the same two inserts."""

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from benchmarks.load import Load, Request, run_load, tool
from benchmarks.servers import ACTOR, Running, run_confined
from tests.support.database import OWNER, as_role
from tests.support.postgres import find_binaries, run_postgres

CONNECTIONS: Final = (1, 16, 64)
SCRIPT: Final = Path(__file__).with_suffix(".sql")
_COUNTS: Final = "SELECT (SELECT count(*) FROM api_calls), (SELECT count(*) FROM audit_events WHERE action = 'API_CALL_CREATED')"


class NotRecordedError(RuntimeError):
    """Calls and events are not as many."""


@dataclass(frozen=True, slots=True)
class Run:
    """Both sides of one comparison: calls over HTTP, and transactions of pgbench, in a second."""

    load: Load
    limit: float

    @property
    def ratio(self) -> float:
        """How much of what the database takes reaches it through the service."""
        return self.load.per_second / self.limit


def run_pgbench(url: str, variables: dict[str, str], connections: int, seconds: int) -> float:
    """Transactions per second on so many connections, without those that begin them."""
    parts = urlsplit(url)
    command: list[str | Path] = [find_binaries() / "pgbench", "-n", "-M", "prepared", "-f", SCRIPT, "-T", str(seconds)]
    command += ["-c", str(connections), "-j", "1", *(part for given in variables.items() for part in ("-D", "=".join(given)))]
    command += ["-h", parts.hostname or "", "-p", str(parts.port), "-U", parts.username or "", parts.path[1:]]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith("tps = "))
    return float(line.split()[2])


def measure(server: Running, url: str, given: argparse.Namespace) -> dict[int, list[Run]]:
    """Service and database in turns, for each number of connections."""
    organization, project = server.new_project()
    body = json.dumps({"name": "call", "operation_key": "ocr", "request_payload": {"page": 1}}).encode()
    request = Request("POST", f"/api/projects/{project}/api-calls", {**ACTOR, "Content-Type": "application/json"}, body)
    variables = {"organization": organization, "project": project, "subject": ACTOR["X-SaaSBase-Actor"]}
    results: dict[int, list[Run]] = defaultdict(list)
    run_load(server, request, CONNECTIONS[-1], 1)  # connections and statements exist from here on
    for repeat in range(given.repeat):
        print(f"run {repeat + 1}", file=sys.stderr, flush=True)
        for connections in CONNECTIONS:
            load = run_load(server, request, connections, given.seconds)
            results[connections].append(Run(load, run_pgbench(url, variables, connections, given.seconds)))
    calls, events = asyncio.run(count(url))
    if calls != events:
        raise NotRecordedError(f"{calls} calls, {events} events")
    return results


async def count(url: str) -> tuple[int, int]:
    """How many calls there are, and how many events of their creation."""
    connection = await asyncpg.connect(as_role(url, OWNER))
    try:
        calls, events = await connection.fetchrow(_COUNTS)
    finally:
        await connection.close()
    return calls, events


def report(results: dict[int, list[Run]]) -> None:
    """Print a table."""
    print("| connections | calls/s | p50 ms | p99 ms | CPU us | database alone/s | ratio (lowest to highest) |")
    print("|---" * 7 + "|")
    for connections, runs in results.items():
        rate, p50, p99 = (statistics.median(getattr(run.load, name) for run in runs) for name in ("per_second", "p50_ms", "p99_ms"))
        cpu, limit = statistics.median(run.load.cpu_us for run in runs), statistics.median(run.limit for run in runs)
        ratios = [run.ratio for run in runs]
        failed = " (some fail)" if any(run.load.failed for run in runs) else ""
        spread = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {connections} | {rate:,.0f}{failed} | {p50:.1f} | {p99:.1f} | {cpu:,.0f} | {limit:,.0f} | {spread} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers end with the script
    with (
        tempfile.TemporaryDirectory(prefix="saasbase-bench-") as name,
        run_postgres() as postgres,
        run_confined(Path(name), postgres) as (server, url),
    ):
        results = measure(server, url, given)
    print(f"Load by {tool()}, limit by pgbench; medians of {given.repeat} interleaved runs of {given.seconds} s; ratios within each run.\n")
    report(results)


if __name__ == "__main__":
    main()
