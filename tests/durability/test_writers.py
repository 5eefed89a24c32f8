"""64 writers at once, in one process and against two: everyone is served, nobody meets a locked database."""

import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.settings import Settings
from tests.conftest import Caller
from tests.support.inventory import take_inventory
from tests.support.server import run_server

pytestmark = pytest.mark.anyio

WRITERS = 64


async def _write_as(caller: Caller, start: asyncio.Event, organization_id: str, number: int) -> list[int]:
    """Create, upload, add a version, rename, grant and delete, as fast as the answers come."""
    await start.wait()
    project = await caller.new_project(organization_id, name=f"project {number}")
    path = f"/projects/{project['id']}"
    kept, created = [await caller.upload(f"{path}/documents", b"content %d" % number, expect=None) for _ in range(2)]
    document = f"/documents/{created.json()['id']}"
    statuses = [kept.status_code, created.status_code]
    statuses.append((await caller.upload(f"{document}/versions", b"second", expect=None, version_name="v2")).status_code)
    statuses.append((await caller.patch(path, {"name": "renamed"}, None)).status_code)
    statuses.append((await caller.grant("PROJECT", project["id"], f"user:{uuid4()}", "PROJECT_VIEWER", None)).status_code)
    statuses.append((await caller.delete(document, None)).status_code)
    return statuses


async def _write_all(caller: Caller) -> None:
    organization: Any = await caller.new_organization()
    start = asyncio.Event()
    tasks = [asyncio.create_task(_write_as(caller, start, organization["id"], number)) for number in range(WRITERS)]
    await asyncio.sleep(0)
    start.set()
    for statuses in await asyncio.gather(*tasks):
        assert statuses == [201, 201, 201, 200, 201, 204]


async def test_64_writers_in_one_process(alice: Caller, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await _write_all(alice)
    assert "locked" not in caplog.text
    found = await take_inventory(settings.db_url.get_secret_value(), tmp_path)
    found.check()
    assert (len(found.documents), len(found.orphans)) == (WRITERS, 0)


async def test_64_writers_against_two_workers(database_url: str, tmp_path: Path) -> None:
    headers = {"X-SaaSBase-Actor": "user:alice"}
    limits = httpx.Limits(max_connections=WRITERS)
    with run_server(database_url, tmp_path, workers=2) as server:
        async with httpx.AsyncClient(base_url=server.url, headers=headers, limits=limits, timeout=60, verify=False) as client:
            await _write_all(Caller(client, headers))
        log = server.log
    assert "locked" not in log
    assert "Traceback" not in log
    assert not re.search(r'"status": ?5\d\d', log)
    found = await take_inventory(database_url, tmp_path)
    found.check()
    assert (len(found.documents), len(found.orphans)) == (WRITERS, 0)
