"""Two processes behind nginx, which share a database behind PgBouncer and a bucket."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.conftest import TEMPLATE, run_sql_on
from tests.support.cli import run_saasbase
from tests.support.database import APP, OWNER, as_role, environment_of
from tests.support.replicas import Replicas, are_expected, run_replicas
from tests.support.s3 import Bucket, S3Server
from tests.support.with_postgres import run_pooler

collect_ignore_glob = [] if are_expected() else ["test_*.py"]


@dataclass(frozen=True, slots=True)
class Site:
    """What runs, and an owner's way in."""

    replicas: Replicas
    bucket: Bucket
    token: str

    def client(self) -> httpx.Client:
        """A caller from outside, who shows a key."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=f"{self.replicas.url}/api", headers=headers, timeout=30, verify=False)

    def new_project(self) -> str:
        with self.client() as client:
            organization_id = client.get("/organizations").raise_for_status().json()["items"][0]["id"]
            wanted = {"organization_id": organization_id, "name": f"project {uuid4()}"}
            return str(client.post("/projects", json=wanted).raise_for_status().json()["id"])


@pytest.fixture
def site(postgres_url: str, rclone_server: S3Server, tmp_path: Path) -> Iterator[Site]:
    name = f"replicas_{uuid4().hex}"
    bucket = rclone_server.new_bucket()
    asyncio.run(run_sql_on(postgres_url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER}"))
    try:
        with run_pooler(postgres_url) as pooled:
            url = as_role(f"{pooled}/{name}", APP)
            settings = {"SAASBASE_DATABASE__TRANSACTION_POOLER": "true", **bucket.environment}
            made = run_saasbase(tmp_path, "bootstrap", "--organization", "acme", "--owner", "user:alice", **environment_of(url), **settings)
            assert made.status == 0, made.err
            with run_replicas(url, tmp_path, **settings) as replicas:
                yield Site(replicas, bucket, made.out.strip().rpartition("\n")[2])
    finally:
        asyncio.run(run_sql_on(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))
