"""Starts ours and the reference under the same uvicorn, and reads what their processes cost."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from tests.support import reference
from tests.support.database import APP, OWNER, as_role, make_owner, migrate_with_roles
from tests.support.postgres import run_postgres
from tests.support.server import run_server

OURS, REFERENCE = "ours", "reference"
ACTOR = {"X-SaaSBase-Actor": "user:alice"}

_ROOT = Path(__file__).parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Running:
    """A server process."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_mib(self) -> float:
        """Resident memory now."""
        return self._status("VmRSS:")

    def peak_mib(self) -> float:
        """The highest resident memory since ``forget_peak``; since the start where the kernel does not let it be reset."""
        return self._status("VmHWM:")

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

    def _status(self, name: str) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


@contextmanager
def run_ours(folder: Path, database_url: str | None = None, **environment: str) -> Iterator[Running]:
    """This tree, as ``saasbase serve`` with one worker; on SQLite below ``folder`` when no database is given."""
    folder.mkdir(parents=True, exist_ok=True)
    if database_url is not None:
        command = [sys.executable, "-m", "app", "migrate"]
        subprocess.run(command, check=True, cwd=_ROOT, env={**_clean(), "SAASBASE_DB_URL": database_url}, stdout=subprocess.DEVNULL)
    with run_server(database_url or f"sqlite:///{folder}/ours.db", folder, workers=1, **environment) as server:
        yield Running(OURS, server.url, server.process.pid)


@contextmanager
def run_confined(folder: Path, postgres: str, role: str = APP) -> Iterator[tuple[Running, str]]:
    """This tree on a new database of that PostgreSQL, with the schema and roles of production; also yields the database's URL.

    As the role of the service row-level security confines it; as the owner of the tables it does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(make_owner(postgres))
    url = new_postgres_database(postgres, owner=OWNER)
    asyncio.run(migrate_with_roles(url))
    with run_server(as_role(url, role), folder) as server:
        yield Running(OURS, server.url, server.process.pid), as_role(url, role)


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


def new_postgres_database(server_url: str, owner: str = "DEFAULT") -> str:
    """The URL of an empty database on that server."""
    name = f"bench_{uuid4().hex[:12]}"

    async def create() -> None:
        connection = await asyncpg.connect(f"{server_url}/postgres")
        try:
            await connection.execute(f"CREATE DATABASE {name} OWNER {owner}")
        finally:
            await connection.close()

    asyncio.run(create())
    return f"{server_url}/{name}"


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SAASBASE_")}
