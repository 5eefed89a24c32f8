"""A backup taken as docs/operations.md says, from a service that is running, and put back elsewhere."""

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from tests.support.cli import run_saasbase
from tests.support.database import APP, OWNER, as_role, environment_of
from tests.support.postgres import find_binaries
from tests.support.server import Server, run_server

SECRETS = {"SAASBASE_API_KEYS__PEPPER": "a pepper of their own", "SAASBASE_AUDIT__KEY": "an audit key of their own"}
CONTENT = bytes(range(256)) * 5000


def run_tool(name: str, *arguments: str) -> None:
    subprocess.run([find_binaries() / name, *arguments], check=True, capture_output=True)


def as_superuser(url: str, database: str | None = None) -> str:
    parts = urlsplit(url)
    path = parts.path if database is None else f"/{database}"
    return parts._replace(netloc=f"postgres@{parts.hostname}:{parts.port}", path=path).geturl()


def back_up(url: str, copy: Path) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            database.execute("VACUUM INTO ?", (str(copy),))
    else:
        run_tool("pg_dump", "--format=custom", f"--file={copy}", as_superuser(url))


@contextmanager
def restored(url: str, copy: Path, folder: Path) -> Iterator[str]:
    """The URL of a new database with what the backup holds."""
    if url.startswith("sqlite"):
        shutil.copy(copy, folder / "restored.db")
        yield f"sqlite:///{folder}/restored.db"
        return
    name = f"restored_{uuid4().hex}"
    maintenance = f"--maintenance-db={as_superuser(url, 'postgres')}"
    run_tool("createdb", maintenance, f"--owner={OWNER}", name)
    try:
        new = as_superuser(url, name)
        run_tool("pg_restore", "--exit-on-error", "--no-owner", "--no-acl", f"--role={OWNER}", f"--dbname={new}", str(copy))
        settings = {**environment_of(as_role(new, APP)), "SAASBASE_DATABASE__MIGRATION_URL": as_role(new, OWNER)}
        assert run_saasbase(folder, "migrate", "--create-roles", **settings).status == 0
        yield as_role(new, APP)
    finally:
        run_tool("dropdb", maintenance, "--force", name)


def seal(client: httpx.Client, organization: str) -> Any:
    """What ``verify`` tells once everything is sealed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = client.get("/audit-events/verify", params={"organization_id": organization}).raise_for_status().json()
        if not told["unsealed"]:
            return told
        time.sleep(0.1)
    raise AssertionError(told)


def serve(url: str, folder: Path) -> AbstractContextManager[Server]:
    return run_server(url, folder, workers=1, **SECRETS)


def connect(server: Server, token: str) -> httpx.Client:
    return httpx.Client(base_url=f"{server.url}/api", headers={"Authorization": f"Bearer {token}"}, timeout=60)


def test_a_backup_of_a_running_service_comes_back_whole(database_url: str, tmp_path: Path) -> None:
    old, new, copy = tmp_path / "old", tmp_path / "new", tmp_path / "copy"
    for folder in (old, new):
        folder.mkdir()
    with serve(database_url, old) as server:
        made = run_saasbase(old, "bootstrap", "--organization", "acme", "--owner", "user:alice", **environment_of(database_url), **SECRETS)
        token = made.out.strip()
        with connect(server, token) as client:
            (home,) = client.get("/organizations").raise_for_status().json()["items"]
            project = client.post("/projects", json={"organization_id": home["id"], "name": "p"}).raise_for_status().json()
            file = {"file": ("f.bin", CONTENT)}
            document = client.post(f"/projects/{project['id']}/documents", files=file).raise_for_status().json()
            known = seal(client, home["id"])["sealed_through"]
            back_up(database_url, copy)
            shutil.copytree(old / "documents", new / "documents")
            late = client.post(f"/projects/{project['id']}/documents", files=file).raise_for_status().json()
    with restored(database_url, copy, new) as url, serve(url, new) as server, connect(server, token) as client:
        path = f"/documents/{document['id']}"
        assert client.get(f"{path}/content").raise_for_status().content == CONTENT
        assert client.get(f"/documents/{late['id']}").status_code == 404
        client.patch(path, json={"name": "goes on"}).raise_for_status()
        told = seal(client, home["id"])
        assert (told["ok"], told["sealed_through"]["position"] > known["position"]) == (True, True)
        query = {"organization_id": home["id"], "known_position": known["position"], "known_hash": known["hash"]}
        assert client.get("/audit-events/verify", params=query).raise_for_status().json()["ok"] is True
        settings = {**environment_of(url), **SECRETS, "SAASBASE_STORAGE__LOCAL__BASE_PATH": str(new / "documents")}
        assert run_saasbase(new, "doctor", **settings).status == 0
