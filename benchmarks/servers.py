"""Starts ours and the reference under the same uvicorn, and reads what their processes cost."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from tests.support.database import APP, OWNER, as_role, make_owner, migrate_with_roles
from tests.support.postgres import free_port, run_postgres
from tests.support.server import run_server

OURS, REFERENCE = "ours", "reference"
REFERENCE_PACKAGE = "saasbase[all]==0.1.1"
SAME_VERSIONS = ("fastapi", "starlette", "pydantic", "python-multipart", "uvicorn", "uvloop", "httptools")
ACTOR = {"X-SaaSBase-Actor": "user:alice"}

_ROOT = Path(__file__).parents[1]
_VENV = Path(__file__).parent / ".reference"
_TICKS = os.sysconf("SC_CLK_TCK")


class NotStartedError(RuntimeError):
    """A server did not answer in time."""


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
    python = _install_reference()
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command: list[str | Path] = [python, "-m", "uvicorn", "--factory", "saasbase.fastapi:create_app", "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--ws", "none", "--workers", "1"]
    command += ["--no-proxy-headers", "--no-server-header", "--no-access-log"]
    environment = {
        **_clean(),
        "SAASBASE_DB_URL": database_url or f"jdbc:sqlite:{folder}/reference.db",
        "SAASBASE_STORAGE__LOCAL__BASE_PATH": str(folder / "documents"),
        **given,
    }
    with (folder / "reference.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_alive(process, url)
        yield Running(REFERENCE, url, process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


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


def _install_reference() -> Path:
    python = _VENV / "bin" / "python"
    done = _VENV / ".installed"
    pins = [f"{name}=={version(name)}" for name in SAME_VERSIONS]
    wanted = "\n".join([REFERENCE_PACKAGE, *pins])
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {REFERENCE_PACKAGE} into {_VENV.relative_to(_ROOT)} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", _VENV], check=True)
        pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([python, *pip, REFERENCE_PACKAGE, *pins], check=True)
        done.write_text(wanted)
    return python


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SAASBASE_")}


def _wait_until_alive(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/openapi.json", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise NotStartedError(url)
