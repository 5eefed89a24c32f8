"""A disk fills up under load: of the documents, or of the database. Refusals say so, and with room again work goes on by itself."""

import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from tests.durability.conftest import check, serving
from tests.support.disks import small_disk
from tests.support.inventory import take_inventory
from tests.support.load import put_under_load

pytestmark = pytest.mark.anyio

SEED = random.randrange(1 << 30)  # shown by the assertion that fails
MEBIBYTES = 8


async def test_the_disk_of_the_documents_is_full(sqlite_url: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "documents", MEBIBYTES) as disk:
        place = {"SAASBASE_STORAGE__LOCAL__BASE_PATH": str(disk)}
        async with serving(sqlite_url, tmp_path, **place) as server, put_under_load(server, SEED) as load:
            await load.wait_for_refusals(20)
            await load.finish()
            assert load.refused.keys() == {(507, "store_full")}, (SEED, load.refused)
            assert list((disk / "incoming").iterdir()) == [], "a refused upload holds on to its room"
            await load.check()
            (document_id, _), *_ = load.checksums
            await load.remove(document_id)
            file = {"file": ("f.bin", b"small")}
            (await load.client.post(f"/projects/{load.project_id}/documents", files=file)).raise_for_status()
            shutil.copytree(disk, tmp_path / "copy/documents")
        (await take_inventory(sqlite_url, tmp_path / "copy")).check()


async def test_the_disk_of_the_database_is_full(sqlite_url: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "database", MEBIBYTES) as disk:
        shutil.copy(sqlite_url.removeprefix("sqlite:///"), disk / "test.db")
        ballast = disk / "ballast"
        url = f"sqlite:///{disk / 'test.db'}"
        async with serving(url, tmp_path) as server, put_under_load(server, SEED) as load:
            await load.wait_for(10)
            with suppress(OSError):  # until there is no room
                ballast.write_bytes(bytes(MEBIBYTES * 1024 * 1024))
            await load.wait_for_refusals(20)
            assert (await load.client.get(f"/projects/{load.project_id}")).status_code == 200
            ballast.unlink()
            await load.wait_for(60)
            await check(load, url, tmp_path, refusals=frozenset({"database_full"}))
