"""Every test runs on SQLite and on PostgreSQL, each time on a fresh database that the migrations made."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import hypothesis
import pytest
from fastapi import FastAPI

from app.db.engine import Database
from app.db.migrations import migrate
from app.http.runtime import Runtime
from app.main import create_app
from app.settings import Settings
from tests.support import disks, openfga, replicas
from tests.support.database import APP, OWNER, as_role, make_owner, migrate_with_roles, section_of
from tests.support.openfga import OpenFGAServer, run_openfga
from tests.support.postgres import run_postgres
from tests.support.s3 import S3Server, run_s3
from tests.support.server import Server, run_server

TEMPLATE = "saasbase_template"

# How long an example takes is the machine's business.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither the developer's environment nor a .env file reaches a test."""
    import os  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith("SAASBASE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A running PostgreSQL server, with a migrated template database."""
    with run_postgres() as url:
        asyncio.run(_make_postgres_template(url))
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy from."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, migrated database; each test that asks for it runs once on SQLite and once on PostgreSQL.

    On PostgreSQL it names the role of the service, for which row-level security holds.
    """
    if request.param == "sqlite":
        path = tmp_path / "test.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: str = request.getfixturevalue("postgres_url")
    name = f"test_{uuid4().hex}"
    asyncio.run(run_sql_on(server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER}"))
    try:
        yield as_role(f"{server}/{name}", APP)
    finally:
        asyncio.run(run_sql_on(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def owner_url(database_url: str) -> str:
    """The same database for the role that owns its tables."""
    return as_role(database_url, OWNER)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """A configuration on the test's own database and folder; the test client is a trusted proxy."""
    return make_settings(database_url, tmp_path)


def make_settings(database_url: str, folder: Path, **changes: Any) -> Settings:
    """The same with changes to single sections."""
    given: dict[str, Any] = {
        "db_url": database_url,
        "database": section_of(database_url),
        "storage": {"local": {"base_path": folder / "documents"}, "sweep_interval_seconds": 0},
        "actor": {"trusted_proxies": "127.0.0.1/32"},
    }
    for section, values in changes.items():
        given[section] = {**given.get(section, {}), **values} if isinstance(values, dict) else values
    return Settings(**given)


@dataclass(frozen=True, slots=True)
class Service:
    """The service in this process, without a socket between."""

    app: FastAPI
    client: httpx.AsyncClient

    @property
    def runtime(self) -> Runtime:
        runtime: Runtime = self.app.state.runtime
        return runtime

    def as_(self, actor: str | None) -> "Caller":
        """A caller who names itself ``actor`` in the header, or nobody."""
        return Caller(self.client, {"X-SaaSBase-Actor": actor} if actor is not None else {})


@dataclass(frozen=True, slots=True)
class Caller:
    """Sends requests below /api as one actor."""

    client: httpx.AsyncClient
    headers: dict[str, str]

    async def request(self, method: str, path: str, expect: int | None = None, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        response = await self.client.request(method, "/api" + path, headers=headers, **options)
        if expect is not None:
            assert response.status_code == expect, f"{method} {path} -> {response.status_code}: {response.text}"
        return response

    async def get(self, path: str, expect: int | None = 200, **options: Any) -> httpx.Response:
        return await self.request("GET", path, expect, **options)

    async def post(self, path: str, json: Any = None, expect: int | None = 201, **options: Any) -> httpx.Response:
        return await self.request("POST", path, expect, **({"json": json} if json is not None else {}), **options)

    async def patch(self, path: str, json: Any, expect: int | None = 200, **options: Any) -> httpx.Response:
        return await self.request("PATCH", path, expect, json=json, **options)

    async def delete(self, path: str, expect: int | None = 204, **options: Any) -> httpx.Response:
        return await self.request("DELETE", path, expect, **options)

    async def new_organization(self, **body: Any) -> Any:
        return (await self.post("/organizations", {"slug": f"org-{uuid4().hex[:12]}", **body})).json()

    async def new_project(self, organization_id: str, **body: Any) -> Any:
        return (await self.post("/projects", {"organization_id": organization_id, "name": "project", **body})).json()

    async def upload(self, path: str, content: bytes = b"hello", *, expect: int | None = 201, **fields: str) -> httpx.Response:
        """Send a file; ``file_name`` and ``part_type`` describe its part, all else are form fields."""
        part = (fields.pop("file_name", "f.txt"), content, fields.pop("part_type", "text/plain"))
        return await self.request("POST", path, expect, files={"file": part}, data=fields)

    async def new_document(self, project_id: str, content: bytes = b"hello", **fields: str) -> Any:
        return (await self.upload(f"/projects/{project_id}/documents", content, expect=201, **fields)).json()

    async def grant(
        self, resource_type: str, resource_id: str, subject: str, role: str, expect: int | None = 201, **body: Any
    ) -> httpx.Response:
        kind, _, identifier = subject.partition(":")
        grant = {
            "resource_type": resource_type,
            "resource_id": resource_id,
            "actor_type": kind.upper(),
            "actor_id": identifier,
            "role": role,
        }
        return await self.post("/memberships", {**grant, **body}, expect)


StartService = Callable[..., Any]


def forgive_abandoned_connections() -> None:
    """Let a service end while its jobs are still connecting: of an attempt cancelled early asyncpg leaves a future that nobody reads."""
    loop = asyncio.get_running_loop()
    told = loop.get_exception_handler()
    if told is None or getattr(told, "forgives", False):
        return

    def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, ConnectionError) and str(error) == "unexpected connection_lost() call"):
            told(loop, context)

    tell.forgives = True  # type: ignore[attr-defined] # so that it stands there once
    loop.set_exception_handler(tell)


@asynccontextmanager
async def open_service(settings: Settings, *, peer: str = "127.0.0.1") -> AsyncIterator[Service]:
    """Start the service with its jobs, and a client that seems to come from ``peer``."""
    forgive_abandoned_connections()
    app = create_app(settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app, client=(peer, 50000), raise_app_exceptions=False)

        async def write_line(_response: httpx.Response) -> None:
            app.state.runtime.access.write()  # what a test looks for next need not be waited for

        hooks = {"response": [write_line]}
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://service", event_hooks=hooks))
        yield Service(app, client)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    """The service on the test's own database."""
    async with open_service(settings) as running:
        yield running


@pytest.fixture
async def alice(service: Service) -> Caller:
    return service.as_("user:alice")


@pytest.fixture
async def bob(service: Service) -> Caller:
    return service.as_("user:bob")


@pytest.fixture
async def mallory(service: Service) -> Caller:
    """A stranger."""
    return service.as_("user:mallory")


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    """The service as its own process, over a real socket."""
    with run_server(database_url, tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def openfga_server() -> Iterator[OpenFGAServer]:
    """A running OpenFGA server; every test makes a store of its own."""
    with run_openfga() as running:
        yield running


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[S3Server]:
    """A quick S3 server; every test makes a bucket of its own."""
    with run_s3("rclone") as running:
        yield running


@pytest.fixture(scope="session")
def swift_server() -> Iterator[S3Server]:
    """A strict S3 server; every test makes a bucket of its own."""
    with run_s3("swift") as running:
        yield running


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what did not run, and why."""
    if not openfga.is_expected():
        terminalreporter.write_line(f"without OpenFGA: this machine has neither it nor Go ({openfga.INSTALL})", yellow=True)
    if not disks.are_expected():
        terminalreporter.write_line("without full disks: on this machine these tests may not mount one", yellow=True)
    if not replicas.are_expected():
        terminalreporter.write_line("without replicas: this machine has no nginx or no PgBouncer", yellow=True)


async def _make_postgres_template(server: str) -> None:
    await make_owner(server)
    await run_sql_on(server, f"DROP DATABASE IF EXISTS {TEMPLATE}")
    await run_sql_on(server, f"CREATE DATABASE {TEMPLATE} OWNER {OWNER}")
    await migrate_with_roles(f"{server}/{TEMPLATE}")


async def _migrate(url: str) -> None:
    database = Database.from_url(url)
    try:
        await migrate(database)
    finally:
        await database.aclose()


async def run_sql_on(server: str, statement: str) -> None:
    """Run a statement as the server's superuser."""
    connection = await asyncpg.connect(f"{server}/postgres")
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
