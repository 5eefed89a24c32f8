"""Starts ours, the reference and the floor under the same uvicorn, and reads what their processes cost."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx

from tests.support import reference
from tests.support.database import APP, OWNER, as_role, make_owner, migrate_with_roles
from tests.support.postgres import free_port, run_postgres
from tests.support.server import run_server

OURS, CONFINED, REFERENCE, FLOOR = "ours", "ours, row-level security", "reference", "floor"
ACTOR = {"X-SaaSBase-Actor": "user:alice"}
SAME_OPTIONS: Final = (
    "--loop",
    "uvloop",
    "--http",
    "httptools",
    "--ws",
    "none",
    "--no-proxy-headers",
    "--no-server-header",
    "--no-access-log",
)

_ROOT = Path(__file__).parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")
_PAUSE_SECONDS, _MAX_PAUSES, _IDLE_TICKS = 0.1, 100, 2


@dataclass(frozen=True, slots=True)
class Running:
    """A server, one process or a parent with its workers."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        return (_ticks(self.pid) + sum(map(_ticks, _children(self.pid)))) / _TICKS

    def worker_mib(self) -> list[float]:
        """Resident memory of each process that answers requests, now."""
        workers = [pid for pid in _children(self.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return [_memory(pid, "VmRSS:") for pid in workers or [self.pid]]

    def rss_mib(self) -> float:
        """Resident memory now."""
        return _memory(self.pid, "VmRSS:")

    def peak_mib(self) -> float:
        """The highest resident memory since ``forget_peak``; since the start where the kernel does not let it be reset."""
        return _memory(self.pid, "VmHWM:")

    def forget_peak(self) -> None:
        """Begin a new peak."""
        with suppress(PermissionError, FileNotFoundError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Create something; returns the answer's JSON."""
        return httpx.post(f"{self.url}/api{path}", json=body, headers=ACTOR, timeout=60).raise_for_status().json()

    def new_project(self) -> tuple[str, str]:
        """The ids of a new organization and of a project in it."""
        organization = self.post("/organizations", {"slug": f"bench-{uuid4().hex[:12]}"})["id"]
        return organization, self.post("/projects", {"organization_id": organization, "name": "bench"})["id"]


@contextmanager
def serve(folder: Path, database_url: str, *, name: str = OURS, workers: int = 1, **environment: str) -> Iterator[Running]:
    """This tree, as ``saasbase serve``, on a database that has its schema, or on a SQLite file."""
    folder.mkdir(parents=True, exist_ok=True)
    with run_server(database_url, folder, workers=workers, **environment) as server:
        yield Running(name, server.url, server.process.pid)


@contextmanager
def run_ours(folder: Path, database_url: str | None = None, **environment: str) -> Iterator[Running]:
    """The same on a new database; on SQLite below ``folder`` when none is given."""
    if database_url is not None:
        command = [sys.executable, "-m", "app", "migrate"]
        subprocess.run(command, check=True, cwd=_ROOT, env={**_clean(), "SAASBASE_DB_URL": database_url}, stdout=subprocess.DEVNULL)
    with serve(folder, database_url or f"sqlite:///{folder}/ours.db", name=OURS, workers=1, **environment) as server:
        yield server


@contextmanager
def run_confined(folder: Path, postgres: str) -> Iterator[tuple[Running, str]]:
    """This tree on a new database of that PostgreSQL, with the schema, the roles and the row-level security of production.

    Also yields the database's URL.
    """
    asyncio.run(make_owner(postgres))
    url = new_postgres_database(postgres, owner=OWNER)
    asyncio.run(migrate_with_roles(url))
    with serve(folder, as_role(url, APP)) as server:
        yield server, as_role(url, APP)


@contextmanager
def run_both(folder: Path) -> Iterator[dict[str, tuple[Running, str]]]:
    """This tree on SQLite and on PostgreSQL, confined, with the URLs of the databases; for loads that go to one at a time."""
    sqlite = f"sqlite:///{folder}/sqlite/ours.db"
    with run_postgres() as postgres, run_ours(folder / "sqlite") as on_sqlite, run_confined(folder / "postgresql", postgres) as on_postgres:
        yield {"SQLite": (on_sqlite, sqlite), "PostgreSQL": on_postgres}


@contextmanager
def run_reference(folder: Path, database_url: str | None = None, **given: str) -> Iterator[Running]:
    """The reference, with the options ``saasbase serve`` gives to uvicorn."""
    with reference.run_reference(folder, database_url, **given) as started:
        yield Running(REFERENCE, started.url, started.pid)


@contextmanager
def run_floor(folder: Path, database_url: str) -> Iterator[Running]:
    """The least that this stack can do, on a database with the schema of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.floor:make_app", "--port", str(port), *SAME_OPTIONS]
    with run_process(command, folder / "floor.log", FLOOR_DATABASE=database_url, FLOOR_FOLDER=str(folder)) as process:
        yield wait_until_open(Running(FLOOR, f"http://127.0.0.1:{port}", process.pid))


@contextmanager
def run_process(command: list[str], log_path: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this folder for the block."""
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, cwd=_ROOT, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def wait_until_idle() -> None:
    """Until the servers and databases of this program take hardly any time, or ten seconds.

    What was asked last, and what is still being done behind the answers, must not be paid for by what is measured next.
    """
    for _ in range(_MAX_PAUSES):
        before = _all_ticks(os.getpid())
        time.sleep(_PAUSE_SECONDS)
        if _all_ticks(os.getpid()) - before <= _IDLE_TICKS:
            return


def wait_until_open(server: Running) -> Running:
    """The same server once it takes connections.

    Raises:
        TimeoutError: it does not.
    """
    for _ in range(200):
        with suppress(httpx.TransportError):
            httpx.get(server.url, timeout=5)
            return server
        time.sleep(0.05)
    raise TimeoutError(f"the {server.name} did not start")


def new_postgres_database(server_url: str, owner: str = "DEFAULT", template: str = "template1") -> str:
    """The URL of a new database on that server: empty, or a copy of a database that nobody uses."""
    name = f"bench_{uuid4().hex[:12]}"

    async def create() -> None:
        connection = await asyncpg.connect(f"{server_url}/postgres")
        try:
            await connection.execute(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE {template}")
        finally:
            await connection.close()

    asyncio.run(create())
    return f"{server_url}/{name}"


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SAASBASE_")}


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _all_ticks(pid: int) -> int:
    """Of everything below a process; what ends meanwhile does not count."""
    total = 0
    for child in _children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            total += _ticks(child)
        total += _all_ticks(child)
    return total


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _memory(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
