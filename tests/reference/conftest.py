"""References that were used for a while, one on SQLite and one on PostgreSQL; and the import into each of our databases."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from app.cli.importing import import_all
from app.reference.contents import S3Server
from app.settings import Settings
from tests.conftest import run_sql_on
from tests.support.reference import run_reference
from tests.support.reference_world import World, make_sound

NO_SERVER = S3Server()

Import = Callable[..., Awaitable[list[str]]]


@pytest.fixture(scope="session")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    with run_reference(tmp_path_factory.mktemp("reference")) as running:
        return make_sound(running)


@pytest.fixture(scope="session")
def postgresql_world(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> World:
    name = f"reference_{uuid4().hex}"
    asyncio.run(run_sql_on(postgres_url, f"CREATE DATABASE {name}"))
    with run_reference(tmp_path_factory.mktemp("reference"), f"{postgres_url}/{name}") as running:
        return make_sound(running)


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest) -> World:
    """Each of them; nobody changes it."""
    made: World = request.getfixturevalue(f"{request.param}_world")
    return made


@pytest.fixture
def own_world(world: World, tmp_path: Path, postgres_url: str) -> Iterator[World]:
    """A copy of it, to change."""
    documents = tmp_path / "reference-documents"
    shutil.copytree(world.documents, documents)
    if world.is_sqlite:
        shutil.copy(world.database_url.removeprefix("jdbc:sqlite:"), tmp_path / "reference.db")
        yield replace(world, database_url=f"jdbc:sqlite:{tmp_path}/reference.db", documents=documents, ids=dict(world.ids))
        return
    name = f"reference_{uuid4().hex}"
    asyncio.run(run_sql_on(postgres_url, f"CREATE DATABASE {name} TEMPLATE {urlsplit(world.database_url).path[1:]}"))
    try:
        yield replace(world, database_url=f"{postgres_url}/{name}", documents=documents, ids=dict(world.ids))
    finally:
        asyncio.run(run_sql_on(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def run_import(settings: Settings) -> Import:
    """``saasbase import reference`` of a world in this process, with the test's own settings; the lines it prints."""

    async def run(world: World, *, is_dry_run: bool = False, storage: str | None = None, server: S3Server = NO_SERVER) -> list[str]:
        place = storage or str(world.documents)
        return list((await import_all(settings, world.database_url, place, server, is_dry_run=is_dry_run)).lines())

    return run


def numbers(report: list[str]) -> dict[str, tuple[int, ...]]:
    """Table -> read, imported, already there, left out."""
    rows = [line.split() for line in report[1:10]]
    return {name: tuple(map(int, found)) for name, *found in rows}
