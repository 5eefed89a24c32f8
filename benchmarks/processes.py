"""What a process costs before it is asked anything, how soon it answers, what a second one brings; and what the load tool can do."""

import asyncio
import compileall
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.db.migrations import migrate
from benchmarks.load import Load, Request, run_load
from benchmarks.report import number, spread, table
from benchmarks.results import Spread
from benchmarks.servers import ACTOR, Running, new_postgres_database, run_process, serve, wait_until_idle, wait_until_open
from benchmarks.targets import MANY, USUAL, Verdict
from benchmarks.workloads import MIB, WrongAnswerError
from benchmarks.worlds import SQLITE
from tests.support.database import APP, OWNER, as_role, migrate_with_roles, open_database
from tests.support.postgres import free_port
from tests.support.server import ROOT

START_SECONDS, IDLE_MIB, TWO_WORKERS = 1.5, 120, 1.6


@dataclass(frozen=True, slots=True)
class Start:
    """One start: how long until the first answer, and the memory of the process when it rests."""

    seconds: float
    idle_mib: float


@dataclass(frozen=True, slots=True)
class Pair:
    """The same reads answered by one worker and by two."""

    one: Load
    two: Load

    @property
    def ratio(self) -> float:
        """What the second worker brings."""
        return self.two.per_second / self.one.per_second


def make_database(kind: str, folder: Path, postgres: str) -> str:
    """The URL of a new database that has its schema; on PostgreSQL as in production, with roles and row-level security."""
    if kind == SQLITE:
        url = f"sqlite:///{folder}/processes.db"
        asyncio.run(_migrate(url))
        return url
    url = new_postgres_database(postgres, owner=OWNER)
    asyncio.run(migrate_with_roles(url))
    return as_role(url, APP)


async def _migrate(url: str) -> None:
    async with open_database(url) as database:
        await migrate(database)


def measure_starts(folder: Path, databases: Mapping[str, str], repeat: int) -> dict[str, list[Start]]:
    """Start and end it a few times on each database; compiled, as pip and the Dockerfile install it, whatever the environment forbids."""
    compileall.compile_dir(ROOT / "app", quiet=1)
    starts: dict[str, list[Start]] = defaultdict(list)
    for _ in range(repeat):
        for name, url in databases.items():
            begun = time.perf_counter()
            with serve(folder / "starts", url) as server:
                seconds = time.perf_counter() - begun
                server.new_project()
                wait_until_idle()
                starts[name].append(Start(seconds, max(server.worker_mib())))
    return starts


def measure_workers(folder: Path, databases: Mapping[str, str], seconds: float, repeat: int) -> dict[str, list[Pair]]:
    """Reads on so many connections that a worker has no rest, answered by one and by two, in turns."""
    pairs: dict[str, list[Pair]] = defaultdict(list)
    for name, url in databases.items():
        with serve(folder / "one", url) as one, serve(folder / "two", url, workers=2) as two:
            request = Request("GET", f"/api/projects/{one.new_project()[1]}", ACTOR)
            for server in (one, two):
                run_load(server, request, MANY, seconds)  # connections and statements exist from here on
            pairs[name] += [Pair(*(_load(server, request, seconds) for server in (one, two))) for _ in range(repeat)]
    return pairs


def _load(server: Running, request: Request, seconds: float) -> Load:
    load = run_load(server, request, MANY, seconds)
    if load.failed:
        raise WrongAnswerError(f"{load.failed} requests failed")
    return load


def measure_ceiling(folder: Path, seconds: float) -> dict[str, Load]:
    """What the load tool makes of a server that takes no time."""
    port = free_port()
    requests = {
        "300 bytes": Request("GET", "/"),
        "upload of 1 MiB": Request("POST", "/", body=os.urandom(MIB)),
        "download of 1 MiB": Request("GET", "/large"),
    }
    with run_process([sys.executable, "-m", "benchmarks.trivial", str(port)], folder / "trivial.log") as process:
        server = wait_until_open(Running("trivial server", f"http://127.0.0.1:{port}", process.pid))
        return {name: run_load(server, request, USUAL, seconds) for name, request in requests.items()}


def judge_starts(starts: dict[str, list[Start]]) -> Iterator[Verdict]:
    """The targets of one process."""
    for database, found in starts.items():
        seconds, idle = (Spread.of(values).median for values in ([start.seconds for start in found], [start.idle_mib for start in found]))
        yield Verdict("start", database, "seconds to the first answer", START_SECONDS, is_upper=True, value=seconds)
        yield Verdict("worker at rest", database, "resident memory, MiB", IDLE_MIB, is_upper=True, value=idle)


def judge_workers(pairs: dict[str, list[Pair]]) -> Iterator[Verdict]:
    """The target of two workers."""
    for database, found in pairs.items():
        ratio = Spread.of([pair.ratio for pair in found]).median
        yield Verdict("two workers, GET project by id", database, "times one worker", TWO_WORKERS, is_upper=False, value=ratio)


def render_workers(pairs: dict[str, list[Pair]]) -> Iterator[str]:
    """Both rates, and who takes the processors meanwhile: what is missing of them goes to the database and to nobody."""
    yield f"## Two workers, {MANY} connections"
    rows = []
    for database, found in pairs.items():
        for name, loads in (("one", [pair.one for pair in found]), ("two", [pair.two for pair in found])):
            rate = spread(Spread.of([load.per_second for load in loads]))
            busy = [load.cpu_us * load.per_second / 1e6 for load in loads]
            tool = [load.tool_cores for load in loads]
            rows.append((database, name, rate, spread(Spread.of(busy)), spread(Spread.of(tool))))
    yield from table(("", "workers", "requests/s", "processors for the workers", "for the load tool"), rows)


def render_ceiling(loads: dict[str, Load]) -> Iterator[str]:
    """One rate for each kind of request."""
    yield f"## The load tool against a server that does nothing, {USUAL} connections"
    yield from table(("", "requests/s"), ((name, number(load.per_second)) for name, load in loads.items()))
