"""One server for all tests of a database: what is tested here is the transport, and each test works in a project of its own."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.conftest import TEMPLATE, run_sql_on
from tests.support.database import APP, OWNER, as_role
from tests.support.inventory import Inventory, list_files, take_inventory
from tests.support.server import Server, run_server

MAX_UPLOAD = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A project of alice's on the server, and what lies behind it."""

    server: Server
    database_url: str
    folder: Path
    project_id: str

    @property
    def documents(self) -> str:
        """Where documents of the project are created."""
        return f"/api/projects/{self.project_id}/documents"

    def client(self, actor: str = "user:alice") -> httpx.Client:
        # verify=False: loading certificates for a plain connection would be the longest part of most tests
        return httpx.Client(base_url=self.server.url + "/api", headers={"X-SaaSBase-Actor": actor}, timeout=30, verify=False)

    def inventory(self) -> Inventory:
        return asyncio.run(take_inventory(self.database_url, self.folder))

    def files(self) -> set[str]:
        return set(list_files(self.folder))

    def names(self) -> list[str]:
        """The documents of the project."""
        with self.client() as client:
            return [document["name"] for document in client.get(f"/projects/{self.project_id}/documents").json()]


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def _running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, Path]]:
    folder = tmp_path_factory.mktemp("streaming")
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), folder / "test.db")
        url = f"sqlite:///{folder / 'test.db'}"
        with run_server(url, folder, SAASBASE_STORAGE__MAX_UPLOAD_BYTES=str(MAX_UPLOAD)) as server:
            yield server, url, folder
        return
    postgres: str = request.getfixturevalue("postgres_url")
    name = f"test_{uuid4().hex}"
    asyncio.run(run_sql_on(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER}"))
    url = as_role(f"{postgres}/{name}", APP)
    try:
        with run_server(url, folder, SAASBASE_STORAGE__MAX_UPLOAD_BYTES=str(MAX_UPLOAD)) as server:
            yield server, url, folder
    finally:
        asyncio.run(run_sql_on(postgres, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def place(_running: tuple[Server, str, Path]) -> Iterator[Place]:
    """A fresh project; whatever the test did, the server met no error of its own."""
    server, url, folder = _running
    logged = len(server.log)
    place = Place(server, url, folder, "")
    with place.client() as client:
        organization = client.post("/organizations", json={"slug": f"org-{uuid4().hex[:12]}"}).raise_for_status().json()
        project = client.post("/projects", json={"organization_id": organization["id"], "name": "p"}).raise_for_status().json()
    yield Place(server, url, folder, project["id"])
    assert "Traceback" not in server.log[logged:]
