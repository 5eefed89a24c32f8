"""A service that is put under load, and what must hold afterwards whatever happened to it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support import disks
from tests.support.cli import run_saasbase
from tests.support.database import environment_of
from tests.support.inventory import take_inventory
from tests.support.load import Load
from tests.support.s3 import Bucket
from tests.support.server import Server, run_server

AWAY = frozenset({"database_unavailable", "database_busy"})

collect_ignore = [] if disks.are_expected() else ["test_full_disks.py"]


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


@asynccontextmanager
async def serving(url: str, folder: Path, **settings: str) -> AsyncIterator[Server]:
    """Started and ended aside, because what stands between it and its database lives in this loop."""
    with ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, run_server(url, folder, workers=1, **settings))
        try:
            yield server
        finally:
            await asyncio.to_thread(stack.close)


async def check(load: Load, url: str, folder: Path, bucket: Bucket | None = None, refusals: frozenset[str] = AWAY) -> None:
    """Only that was refused, what was acknowledged is there, nothing is half-written, and the sweeper removes what nobody names."""
    await load.finish()
    assert load.refused.keys() <= {(503, code) for code in refusals}, load.refused
    await load.check()
    (await take_inventory(url, folder, bucket)).check()
    settings = {**(bucket.environment if bucket is not None else {}), "SAASBASE_STORAGE__SWEEP_MIN_AGE_SECONDS": "0"}
    settings["SAASBASE_STORAGE__LOCAL__BASE_PATH"] = str(folder / "documents")
    swept = await asyncio.to_thread(run_saasbase, folder, "sweep", **environment_of(url), **settings)
    assert swept.status == 0, swept.err
    found = await take_inventory(url, folder, bucket)
    found.check()
    assert (found.orphans, found.incoming) == (set(), [])
