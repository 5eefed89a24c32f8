"""A sweeper removes nothing from a store that is not known to be its database's."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import text

from app.blobs.mark import ForeignStoreError, claim, recognize, take_over
from app.blobs.s3 import S3BlobStore
from app.blobs.store import MARK, BlobStore, BlobStoreError
from app.blobs.sweeper import sweep
from app.db.engine import Database
from app.main import make_store
from app.settings import Settings
from tests.conftest import Caller, Service, make_settings, open_service
from tests.streaming.test_sweeper import HOUR, age_all, put_orphan
from tests.support.cli import run_saasbase
from tests.support.database import behind, environment_of
from tests.support.inventory import FOLDER, list_files
from tests.support.jobs import sweep_of_the_start
from tests.support.metrics import read_samples
from tests.support.s3 import S3Server

pytestmark = pytest.mark.anyio

OTHER = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    """The service after the sweep of its start, which marks, removes and fails as a test's own does."""
    async with open_service(settings) as running:
        await sweep_of_the_start()
        yield running


@pytest.fixture
async def document(service: Service, alice: Caller, tmp_path: Path) -> Any:
    """One that is old, as everything in the store."""
    project = await alice.new_project((await alice.new_organization())["id"])
    made = await alice.new_document(project["id"], b"content")
    age_all(tmp_path, 2 * HOUR)
    return made


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / FOLDER / MARK


async def become_another(service: Service) -> None:
    """What the service sees whose database was lost, and made anew."""
    async with behind(service.runtime.context.database) as connection:
        await connection.execute(text("DELETE FROM document_versions"))
        await connection.execute(text("DELETE FROM documents"))
        value = OTHER if not service.runtime.context.database.is_sqlite else OTHER.replace("-", "")
        await connection.execute(text(f"UPDATE installation SET id = '{value}'"))


async def run_sweep(service: Service, min_age: int = HOUR) -> int:
    return (await sweep(service.runtime.context.database, service.runtime.store, timedelta(seconds=min_age))).removed


async def test_the_start_marks_an_empty_store_and_what_it_finds_marked_it_leaves(settings: Settings, mark: Path) -> None:
    for _ in range(2):
        async with open_service(settings) as service:
            await sweep_of_the_start()
            assert await recognize(service.runtime.context.database, service.runtime.store)
        made = mark.stat().st_mtime_ns, mark.read_text()
    assert (mark.stat().st_mtime_ns, mark.read_text()) == made


async def test_two_databases_have_two_ids(tmp_path: Path) -> None:
    found = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        settings = make_settings(f"sqlite:///{tmp_path / name}/new.db", tmp_path / name)
        async with open_service(settings):
            await sweep_of_the_start()
            found.add((tmp_path / name / FOLDER / MARK).read_text())
    assert len(found) == 2


async def test_a_database_made_anew_removes_nothing(service: Service, document: Any, tmp_path: Path, mark: Path) -> None:
    await become_another(service)
    with pytest.raises(ForeignStoreError, match=OTHER):
        await run_sweep(service)
    assert document["storage_uri"] in list_files(tmp_path)
    mark.unlink()  # a store of an earlier release
    with pytest.raises(ForeignStoreError, match="and no mark"):
        await run_sweep(service)
    assert document["storage_uri"] in list_files(tmp_path)
    assert not mark.exists()


async def test_another_mark_holds_for_an_empty_store_too(service: Service, mark: Path) -> None:
    """Whoever marked it may be about to write."""
    mark.write_text(f"{OTHER}\n")
    with pytest.raises(ForeignStoreError, match="SAASBASE_DB_URL"):
        await run_sweep(service)
    assert mark.read_text() == f"{OTHER}\n"


@pytest.mark.parametrize("content", [b"", b"\xff\x00" * 1000], ids=["empty", "rubbish"])
async def test_a_mark_that_cannot_be_read_is_another(service: Service, document: Any, tmp_path: Path, mark: Path, content: bytes) -> None:
    mark.write_bytes(content)
    with pytest.raises(ForeignStoreError):
        await run_sweep(service)
    assert document["storage_uri"] in list_files(tmp_path)


async def test_a_store_of_an_earlier_release_is_marked_when_the_database_names_one_of_its_contents(
    service: Service, document: Any, tmp_path: Path, mark: Path
) -> None:
    await put_orphan(service)
    age_all(tmp_path, 2 * HOUR)
    made = mark.read_text()
    mark.unlink()
    assert await run_sweep(service) == 1
    assert (mark.read_text(), set(list_files(tmp_path))) == (made, {document["storage_uri"]})


async def test_contents_that_are_young_or_unfinished_are_contents(service: Service, mark: Path, tmp_path: Path) -> None:
    mark.unlink()
    (tmp_path / FOLDER / "incoming" / ("f" * 32)).touch()
    with pytest.raises(ForeignStoreError):
        await run_sweep(service)
    assert not mark.exists()


async def test_whoever_takes_over_sweeps_and_the_other_no_more(service: Service, document: Any, tmp_path: Path) -> None:
    database, store = service.runtime.context.database, service.runtime.store
    await become_another(service)
    await take_over(database, store)
    assert await run_sweep(service) == 1
    assert list_files(tmp_path) == {}
    await store.write_mark("the other one's")
    with pytest.raises(ForeignStoreError):
        await run_sweep(service)


async def test_many_processes_mark_a_store_at_once(settings: Settings, service: Service, mark: Path) -> None:
    mark.unlink()
    stores = [make_store(settings) for _ in range(8)]
    await asyncio.gather(*(claim(service.runtime.context.database, store) for store in stores))
    assert await recognize(service.runtime.context.database, stores[0])
    for store in stores:
        await store.aclose()


async def test_what_a_process_beside_it_writes_to_see_whether_it_can_is_no_content(service: Service, mark: Path, tmp_path: Path) -> None:
    mark.unlink()
    passing = tmp_path / FOLDER / "incoming" / ("f" * 32)
    passing.touch()
    asyncio.get_running_loop().call_later(0.3, passing.unlink)
    assert await run_sweep(service) == 0
    assert mark.exists()


async def test_the_job_says_it_once_and_fails_each_time(
    database_url: str, settings: Settings, service: Service, document: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await become_another(service)
    storage = {"local": {"base_path": tmp_path / FOLDER}, "sweep_interval_seconds": 1}
    failures = 'saasbase_job_failures_total{name="sweeper"}'
    async with open_service(make_settings(database_url, tmp_path, storage=storage)) as second:
        before = read_samples(await second.client.get("/metrics"))[failures]
        with anyio.fail_after(60):
            while read_samples(await second.client.get("/metrics"))[failures] < before + 2:
                await anyio.sleep(0.1)
        assert (await second.client.get("/readyz")).status_code == 200
    told = [record for record in caplog.records if "nothing is swept" in record.getMessage() or "job failed" in record.getMessage()]
    assert [(record.levelname, record.exc_info) for record in told] == [("ERROR", None)]
    assert document["storage_uri"] in list_files(tmp_path)


async def test_a_store_that_cannot_tell_its_mark_does_not_keep_the_service_from_starting(
    settings: Settings, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark.mkdir(parents=True)
    async with open_service(settings) as service:
        await sweep_of_the_start()
        assert (await service.client.get("/readyz")).status_code == 200
        with pytest.raises(BlobStoreError):
            await run_sweep(service)


async def test_the_commands_tell_and_take_over(service: Service, settings: Settings, document: Any, tmp_path: Path) -> None:
    environment = environment_of(settings.db_url.get_secret_value())
    environment["SAASBASE_STORAGE__LOCAL__BASE_PATH"] = str(tmp_path / FOLDER)

    async def command(*words: str) -> Any:
        return await asyncio.to_thread(run_saasbase, tmp_path, *words, **environment)

    assert "ok   sweeper        the storage is this database's" in (await command("doctor")).out
    await become_another(service)
    ended = await command("sweep", "--min-age", "0")
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1), ended
    assert "saasbase: nothing is swept" in ended.err
    assert "SAASBASE_STORAGE__LOCAL__BASE_PATH" in ended.err
    assert document["storage_uri"] in list_files(tmp_path)
    told = await command("doctor")
    assert (told.status, "BAD  sweeper        nothing is swept" in told.out) == (1, True), told
    assert (await command("sweep", "--take-over")).out == "examined 1, removed 1\n"
    assert (await command("sweep")).out == "examined 0, removed 0\n"
    assert (await command("doctor")).status == 0


@pytest.fixture(params=["rclone", "swift"])
async def s3_store(request: pytest.FixtureRequest) -> AsyncIterator[BlobStore]:
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    store = S3BlobStore((await server.make_bucket()).options)
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture
async def database(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """One kind is enough: whose a bucket is, is no question to it."""
    shutil.copy(sqlite_template, tmp_path / "of-bucket.db")
    database = Database.from_url(f"sqlite:///{tmp_path / 'of-bucket.db'}")
    yield database
    await database.aclose()


async def test_a_bucket_is_marked_and_recognized_as_a_folder_is(s3_store: BlobStore, database: Database) -> None:
    assert not await recognize(database, s3_store)
    await claim(database, s3_store)
    assert await recognize(database, s3_store)
    async with s3_store.open_write() as writer:
        await writer.write(b"of another")
        uri = (await writer.finish()).uri
    await s3_store.write_mark(OTHER)
    with pytest.raises(ForeignStoreError):
        await sweep(database, s3_store, timedelta(seconds=-5))
    (await s3_store.open_read(uri)).close()
    await take_over(database, s3_store)
    assert (await sweep(database, s3_store, timedelta(seconds=-5))).removed == 1
