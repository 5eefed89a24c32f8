"""One server for all tests of a database: what is tested here is the transport, and each test works in a project of its own."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.conftest import TEMPLATE, run_sql_on
from tests.support.database import APP, OWNER, as_role
from tests.support.inventory import Inventory, list_files, take_inventory
from tests.support.s3 import Bucket
from tests.support.server import Server, run_server

MAX_UPLOAD = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """A project of alice's on the server, and what lies behind it."""

    server: Server
    database_url: str
    folder: Path
    bucket: Bucket | None  # when documents lie in S3
    project_id: str

    @property
    def documents(self) -> str:
        """Where documents of the project are created."""
        return f"/api/projects/{self.project_id}/documents"

    def client(self, actor: str = "user:alice") -> httpx.Client:
        # verify=False: loading certificates for a plain connection would be the longest part of most tests
        return httpx.Client(base_url=self.server.url + "/api", headers={"X-SaaSBase-Actor": actor}, timeout=60, verify=False)

    def inventory(self) -> Inventory:
        return asyncio.run(take_inventory(self.database_url, self.folder))

    def files(self) -> set[str]:
        """The address of everything the store holds, unfinished uploads included."""
        return set(list_files(self.folder)) if self.bucket is None else asyncio.run(self.bucket.addresses())

    def is_receiving(self) -> bool:
        """Whether some of an upload has arrived in the store; in S3 nothing has before there is a whole part."""
        return self.bucket is not None or any("incoming" in address for address in self.files())

    def wait_until_idle(self) -> None:
        """Until the server serves nothing but this question: an upload that was broken off may still be on its way out of the store.

        A connection that came before is read before one that came after it.
        """
        self.names()
        self.server.wait_until(lambda: self.server.metrics()["saasbase_http_requests_in_flight"] == 1)

    def harm(self, uri: str, content: bytes | None) -> None:
        """Put other bytes at an address, or none."""
        if self.bucket is not None:
            asyncio.run(self.bucket.replace(uri, content))
        elif content is None:
            list_files(self.folder)[uri].unlink()
        else:
            list_files(self.folder)[uri].write_bytes(content)

    def names(self) -> list[str]:
        """The documents of the project."""
        with self.client() as client:
            return [document["name"] for document in client.get(f"/projects/{self.project_id}/documents").json()]


@pytest.fixture(scope="session", params=["sqlite", "postgresql", "s3"])
def _running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The disk under both databases, and S3."""
    folder = tmp_path_factory.mktemp("streaming")
    settings = {"SAASBASE_STORAGE__MAX_UPLOAD_BYTES": str(MAX_UPLOAD)}
    bucket: Bucket | None = request.getfixturevalue("rclone_server").new_bucket() if request.param == "s3" else None
    if bucket is not None:
        settings |= bucket.environment
    if request.param != "postgresql":
        shutil.copy(request.getfixturevalue("sqlite_template"), folder / "test.db")
        url = f"sqlite:///{folder / 'test.db'}"
        with run_server(url, folder, workers=1, **settings) as server:
            yield Place(server, url, folder, bucket, "")
        return
    postgres: str = request.getfixturevalue("postgres_url")
    name = f"test_{uuid4().hex}"
    asyncio.run(run_sql_on(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER}"))
    url = as_role(f"{postgres}/{name}", APP)
    try:
        with run_server(url, folder, workers=1, **settings) as server:
            yield Place(server, url, folder, None, "")
    finally:
        asyncio.run(run_sql_on(postgres, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def place(_running: Place) -> Iterator[Place]:
    """A fresh project; whatever the test did, the server met no error of its own."""
    logged = len(_running.server.log)
    with _running.client() as client:
        organization = client.post("/organizations", json={"slug": f"org-{uuid4().hex[:12]}"}).raise_for_status().json()
        project = client.post("/projects", json={"organization_id": organization["id"], "name": "p"}).raise_for_status().json()
    place = replace(_running, project_id=project["id"])
    yield place
    place.wait_until_idle()  # so that the next test finds nothing of this one coming or going
    assert "Traceback" not in _running.server.log[logged:]
