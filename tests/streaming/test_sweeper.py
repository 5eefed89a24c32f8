"""Bytes that no row names are removed when they are old enough; all others stay."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.blobs.sweeper import Sweep, sweep
from app.settings import Settings
from tests.conftest import Caller, Service, make_settings, open_service
from tests.support.database import environment_of
from tests.support.inventory import FOLDER, list_files
from tests.support.jobs import sweep_of_the_start

pytestmark = pytest.mark.anyio

HOUR = 3600


def age(file: Path, seconds: float) -> None:
    """Make a file look last written some time ago."""
    moment = time.time() - seconds
    os.utime(file, (moment, moment))


def age_all(folder: Path, seconds: float) -> None:
    for file in list_files(folder).values():
        age(file, seconds)


async def put_orphan(service: Service) -> str:
    """Bytes that are durable, and no row."""
    async with service.runtime.store.open_write() as writer:
        await writer.write(b"orphan")
        return (await writer.finish()).uri


def put_leftover(folder: Path) -> str:
    """What a process leaves that dies during an upload."""
    name = os.urandom(16).hex()
    (folder / FOLDER / "incoming" / name).write_bytes(b"half")
    return f"disk:incoming/{name}"


async def run_sweep(service: Service, min_age: int = HOUR) -> Sweep:
    return await sweep(service.runtime.context.database, service.runtime.store, timedelta(seconds=min_age))


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    """The service after the sweep of its start, which would remove what a test has made old before the test's own sweep can."""
    async with open_service(settings) as running:
        await sweep_of_the_start()
        yield running


@pytest.fixture
async def project(alice: Caller) -> Any:
    return await alice.new_project((await alice.new_organization())["id"])


async def test_old_orphans_go_young_ones_and_named_bytes_stay(service: Service, alice: Caller, project: Any, tmp_path: Path) -> None:
    document = await alice.new_document(project["id"], b"first")
    version = (await alice.upload(f"/documents/{document['id']}/versions", b"second", version_name="v2")).json()
    old, young = await put_orphan(service), await put_orphan(service)
    old_leftover, young_leftover = put_leftover(tmp_path), put_leftover(tmp_path)
    files = list_files(tmp_path)
    for address in (document["storage_uri"], version["storage_uri"], old, old_leftover):
        age(files[address], HOUR + 10)
    for address in (young, young_leftover):
        age(files[address], HOUR - 10)
    found = await run_sweep(service)
    assert set(list_files(tmp_path)) == {document["storage_uri"], version["storage_uri"], young, young_leftover}
    assert (found.examined, found.removed) == (4, 2)
    for name, content in (("v1", b"first"), ("v2", b"second")):
        assert (await alice.get(f"/documents/{document['id']}/versions/{name}/content")).content == content


async def test_a_second_run_finds_nothing(service: Service, tmp_path: Path) -> None:
    await put_orphan(service)
    age_all(tmp_path, 2 * HOUR)
    assert (await run_sweep(service)).removed == 1
    assert (await run_sweep(service)).removed == 0


async def test_an_upload_under_way_is_left_alone_and_finishes(service: Service, tmp_path: Path) -> None:
    async with service.runtime.store.open_write() as writer:
        await writer.write(b"one")
        await writer.write(b"two")
        assert (await run_sweep(service)).removed == 0
        blob = await writer.finish()
    assert set(list_files(tmp_path)) == {blob.uri}


@pytest.mark.parametrize("what", ["organization", "project"])
async def test_what_lies_below_something_deleted_is_removed(
    service: Service, alice: Caller, project: Any, tmp_path: Path, what: str
) -> None:
    elsewhere = await alice.new_project((await alice.new_organization())["id"])
    kept = await alice.new_document(elsewhere["id"], b"kept")
    document = await alice.new_document(project["id"], b"first")
    await alice.upload(f"/documents/{document['id']}/versions", b"second", version_name="v2")
    path = f"/organizations/{project['organization_id']}" if what == "organization" else f"/projects/{project['id']}"
    await alice.delete(path)
    assert len(list_files(tmp_path)) == 3
    age_all(tmp_path, 2 * HOUR)
    assert (await run_sweep(service)).removed == 2
    assert set(list_files(tmp_path)) == {kept["storage_uri"]}
    assert (await alice.get(f"/documents/{kept['id']}/content")).content == b"kept"


async def test_more_files_than_one_batch_are_all_looked_at(service: Service, alice: Caller, project: Any, tmp_path: Path) -> None:
    document = await alice.new_document(project["id"])
    for number in range(1100):
        name = f"{number:032x}"
        folder = tmp_path / FOLDER / "objects" / name[:2]
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    age_all(tmp_path, 2 * HOUR)
    found = await run_sweep(service)
    assert (found.examined, found.removed) == (1101, 1100)
    assert set(list_files(tmp_path)) == {document["storage_uri"]}


async def test_the_service_sweeps_when_it_starts(settings: Settings, database_url: str, tmp_path: Path) -> None:
    async with open_service(settings) as service:
        orphan = await put_orphan(service)
        leftover = put_leftover(tmp_path)
    age_all(tmp_path, 2 * HOUR)
    fresh = tmp_path / "documents" / "incoming" / ("f" * 32)
    fresh.write_bytes(b"fresh")
    async with open_service(make_settings(database_url, tmp_path)):
        with anyio.fail_after(60):
            while {orphan, leftover} & set(list_files(tmp_path)):
                await anyio.sleep(0.01)
    assert fresh.exists()


async def test_the_service_sweeps_again_and_again(database_url: str, tmp_path: Path) -> None:
    changed = {"local": {"base_path": tmp_path / FOLDER}, "sweep_interval_seconds": 1}
    async with open_service(make_settings(database_url, tmp_path, storage=changed)):
        for _ in range(2):
            leftover = tmp_path / FOLDER / "incoming" / os.urandom(16).hex()
            leftover.write_bytes(b"half")
            age(leftover, 2 * HOUR)
            with anyio.fail_after(60):
                while leftover.exists():
                    await anyio.sleep(0.02)


def command(settings: Settings, *options: str) -> str:
    environment = {
        **os.environ,
        **environment_of(settings.db_url.get_secret_value()),
        "SAASBASE_STORAGE__LOCAL__BASE_PATH": str(settings.storage.local.base_path),
    }
    line = [sys.executable, "-m", "app", "sweep", *options]
    done = subprocess.run(line, env=environment, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def test_the_command_sweeps_once_and_tells_what_it_did(settings: Settings, alice: Caller, project: Any, tmp_path: Path) -> None:
    document = await alice.new_document(project["id"])
    young, old = put_leftover(tmp_path), put_leftover(tmp_path)
    files = list_files(tmp_path)
    for address in (old, document["storage_uri"]):
        age(files[address], 2 * HOUR)
    assert command(settings) == "examined 2, removed 1"
    assert set(list_files(tmp_path)) == {document["storage_uri"], young}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the age is no question to the database
async def test_the_command_takes_another_age(service: Service, settings: Settings, tmp_path: Path) -> None:
    young, old = put_leftover(tmp_path), put_leftover(tmp_path)
    age(list_files(tmp_path)[old], 60)
    assert command(settings, "--min-age", "30") == "examined 1, removed 1"
    assert set(list_files(tmp_path)) == {young}
