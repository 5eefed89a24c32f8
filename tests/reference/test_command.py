"""The command itself: broken off by kill -9 it goes on, and what cannot be read is told in one line."""

import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select

from app.models import ApiCall
from app.settings import Settings
from tests.conftest import open_service
from tests.reference.conftest import numbers
from tests.support.cli import command, environment, run_saasbase
from tests.support.database import behind, environment_of, open_database
from tests.support.reference_world import World, moment

MANY = 6000


@pytest.fixture
def large_world(own_world: World) -> World:
    """With so many calls that they take several transactions."""
    numbers_ = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})"
    columns = "id, organization_id, project_id, name, operation_key, status, requested_at, created_at, updated_at, created_by_subject"
    number = "printf('%012d', i)" if own_world.is_sqlite else "lpad(i::text, 12, '0')"
    values = ", ".join(
        f"'{value}'" for value in [own_world.ids["acme"], own_world.ids["website"], "c", "k", "RECEIVED", *[moment()] * 3, "user:a"]
    )
    own_world.sql(f"INSERT INTO api_calls ({columns}) {numbers_} SELECT '00000000-0000-4000-8000-' || {number}, {values} FROM n")
    return own_world


async def count_calls(database_url: str) -> int:
    async with open_database(database_url) as database, behind(database) as connection:
        return int((await connection.execute(select(func.count()).select_from(ApiCall))).scalar_one())


async def test_an_import_that_was_killed_is_completed_by_the_next(
    large_world: World, database_url: str, settings: Settings, tmp_path: Path
) -> None:
    given = {**environment_of(database_url), "SAASBASE_STORAGE__LOCAL__BASE_PATH": str(tmp_path / "documents")}
    arguments = ["import", "reference", "--storage", str(large_world.documents)]
    secret = {"REFERENCE_DB_URL": large_world.database_url}
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, env=environment(**given, **secret), stdout=subprocess.DEVNULL)
    while process.poll() is None and not await count_calls(database_url):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    before = await count_calls(database_url)
    assert 0 < before < MANY, "it was killed in the middle"
    ended = run_saasbase(tmp_path, *arguments, **given, **secret)
    assert (ended.status, ended.err) == (0, "")
    assert numbers(ended.out.splitlines())["api_calls"] == (MANY + 1, MANY + 1 - before, before, 0)
    async with open_service(settings) as service:
        alice = service.as_("user:alice")
        trail = f"/audit-events?organization_id={large_world.ids['acme']}&action=ORGANIZATION_IMPORTED&size=500"
        events = (await alice.get(trail)).json()["items"]
        assert sum(event["details"].get("api_calls", 0) for event in events) == MANY + 1
        assert sum(event["details"].get("organizations", 0) for event in events) == 1


def refused(folder: Path, db_url: str, storage: str) -> str:
    ended = run_saasbase(folder, "import", "reference", "--db-url", db_url, "--storage", storage)
    assert (ended.status, ended.out) == (1, "")
    assert re.fullmatch(r"saasbase: [^\n]+\n", ended.err), ended.err
    assert not (folder / "data" / "saasbase.db").exists()
    return ended.err


def test_a_source_that_cannot_be_read_is_told_in_one_line(tmp_path: Path, sqlite_template: Path, postgres_url: str) -> None:
    there, storage = f"jdbc:sqlite:{sqlite_template}", str(tmp_path)
    assert "unable to open database file" in refused(tmp_path, f"jdbc:sqlite:{tmp_path}/none.db", storage)
    assert "cannot be read: no such column" in refused(tmp_path, there, storage)
    assert "there is no such folder" in refused(tmp_path, there, f"{tmp_path}/none")
    assert "the database URL must be" in refused(tmp_path, "jdbc:mysql://h/d", storage)
    server = urlsplit(postgres_url)
    told = refused(tmp_path, f"jdbc:postgresql://{server.hostname}:{server.port}/none?user=postgres&password=hidden", storage)
    assert 'database "none" does not exist' in told
    assert "hidden" not in told
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = refused(tmp_path, f"jdbc:postgresql://127.0.0.1:{silent.getsockname()[1]}/none?user=postgres", storage)
        assert "cannot be read: TimeoutError" in told
    assert not (tmp_path / "none.db").exists(), "nor is the source written to"
