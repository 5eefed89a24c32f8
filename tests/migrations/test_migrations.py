"""One history for both databases: up, down and up again, always equal to the models, safe when many migrate at once."""

import asyncio
import itertools
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Column, Connection, Integer, MetaData, String, Table, UniqueConstraint, inspect

from alembic import command
from app.db.base import Base
from app.db.engine import Database, PoolLimits
from app.db.migrations import alembic_config, current_version, head_version, migrate
from app.models import Execution
from tests.migrations.conftest import run_sql
from tests.support.application import ROOT
from tests.support.cli import environment, run_saasbase, run_saasbase_at_once
from tests.support.rows import execution, organization, project

pytestmark = pytest.mark.anyio

T = TypeVar("T")
LONGEST_NAME = 63  # PostgreSQL cuts what is longer, silently


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database.from_url(url)
    try:
        yield database
    finally:
        await database.aclose()


async def ask(database: Database, question: Callable[[Connection], T]) -> T:
    async with database.open_read() as connection:
        return await connection.run_sync(question)


async def change(database: Database, step: Callable[[Connection], None]) -> None:
    async with database.writer.begin() as connection:
        await connection.run_sync(step)


def differences(metadata: MetaData) -> Callable[[Connection], list[Any]]:
    def compare(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))

    return compare


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def checks(connection: Connection) -> set[tuple[str, str | None]]:
    inspector = inspect(connection)
    return {(table, str(check["name"])) for table in inspector.get_table_names() for check in inspector.get_check_constraints(table)}


def a_copy_of_the_models() -> MetaData:
    copy = MetaData(naming_convention=Base.metadata.naming_convention)
    for table in Base.metadata.tables.values():
        table.to_metadata(copy)
    return copy


async def test_the_history_leads_from_nothing_to_the_models(empty_url: str) -> None:
    async with opened(empty_url) as database:
        assert await current_version(database) is None
        await migrate(database)
        assert await current_version(database) == head_version()
        assert await ask(database, differences(Base.metadata)) == []
        assert await ask(database, tables) == {*Base.metadata.tables, "alembic_version"}


async def test_the_checks_of_the_models_are_in_the_schema(owner_url: str) -> None:
    """Alembic does not compare them."""
    declared = {
        (table.name, item) for table in Base.metadata.tables.values() for item in table.constraints if isinstance(item, CheckConstraint)
    }
    async with opened(owner_url) as database:
        assert await ask(database, checks) == {(table, str(item.name)) for table, item in declared}
        if not database.is_sqlite:
            return  # PostgreSQL rewrites the text; the history is the same one
        inspector = await ask(database, lambda connection: inspect(connection).get_check_constraints("memberships"))
        assert [check["sqltext"] for check in inspector] == [str(item.sqltext) for table, item in declared if table == "memberships"]


def _add_table(models: MetaData) -> None:
    Table("forgotten", models, Column("id", Integer, primary_key=True))


def _add_column(models: MetaData) -> None:
    models.tables["projects"].append_column(Column("forgotten", Integer, nullable=False))


def _change_length(models: MetaData) -> None:
    models.tables["projects"].c.name.type = String(100)


def _change_nullable(models: MetaData) -> None:
    models.tables["memberships"].c.expires_at.nullable = False


def _drop_index(models: MetaData) -> None:
    models.tables["projects"].indexes.clear()


def _drop_unique(models: MetaData) -> None:
    table = models.tables["organizations"]
    table.constraints -= {item for item in table.constraints if isinstance(item, UniqueConstraint)}


def _drop_table(models: MetaData) -> None:
    models.remove(models.tables["group_members"])


@pytest.mark.parametrize("drift", [_add_table, _add_column, _change_length, _change_nullable, _drop_index, _drop_unique, _drop_table])
async def test_a_model_that_drifts_from_the_history_is_seen(drift: Callable[[MetaData], None], owner_url: str) -> None:
    models = a_copy_of_the_models()
    async with opened(owner_url) as database:
        assert await ask(database, differences(models)) == []
        drift(models)
        assert await ask(database, differences(models)) != []


async def test_down_to_nothing_and_up_again(empty_url: str) -> None:
    async with opened(empty_url) as database:
        await migrate(database)
        await change(database, lambda connection: command.downgrade(alembic_config(connection), "base"))
        assert await ask(database, tables) == {"alembic_version"}
        assert await current_version(database) is None
        await migrate(database)
        assert await current_version(database) == head_version()
        assert await ask(database, differences(Base.metadata)) == []


async def test_migrating_twice_changes_nothing(owner_url: str) -> None:
    async with opened(owner_url) as database:
        before = await current_version(database)
        await migrate(database)
        assert await current_version(database) == before == head_version()


def test_the_alembic_command_works_for_developers(owner_url: str, tmp_path: Path) -> None:
    alembic = [str(Path(sys.executable).with_name("alembic")), "-c", str(ROOT / "alembic.ini"), "check"]
    settings = environment(SAASBASE_DB_URL=owner_url)
    ended = subprocess.run(alembic, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "No new upgrade operations detected" in ended.stdout


def test_no_name_is_longer_than_postgresql_keeps() -> None:
    tables_ = Base.metadata.tables.values()
    names = [str(key.name) for table in tables_ for key in table.constraints] + [
        str(index.name) for table in tables_ for index in table.indexes
    ]
    assert len(names) > 30
    assert [name for name in names if len(name) > LONGEST_NAME] == []
    assert len(set(names)) == len(names)


async def test_ten_processes_may_migrate_at_once(empty_url: str, tmp_path: Path) -> None:
    ended = run_saasbase_at_once(10, tmp_path, "migrate", SAASBASE_DB_URL=empty_url)
    assert [result for result in ended if result.status != 0] == []
    assert {result.out for result in ended} == {f"schema is at {head_version()}\n"}
    async with opened(empty_url) as database:
        assert await ask(database, differences(Base.metadata)) == []


async def test_who_migrates_waits_for_its_turn_longer_than_for_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "busy.db"
    database = Database.from_url(f"sqlite:///{path}", PoolLimits(lock_seconds=0.05))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(migrate, database)
            await anyio.sleep(0.5)
            other.execute("COMMIT")
    assert await current_version(database) == head_version()
    await database.aclose()


@pytest.mark.parametrize("found", ["nothing", "9999"])
def test_serving_an_outdated_postgresql_is_refused_with_one_line(found: str, empty_postgres: str, tmp_path: Path) -> None:
    if found != "nothing":
        asyncio.run(
            run_sql(empty_postgres, f"CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('{found}')")
        )
    ended = run_saasbase(tmp_path, "serve", "--port", "0", SAASBASE_DB_URL=empty_postgres)
    assert ended.status == 1
    advice = "run 'saasbase migrate'" if found == "nothing" else "it belongs to a newer release of the service"
    assert ended.err == f"saasbase: the database schema is at {found}, this release needs {head_version()}: {advice}\n"
    assert ended.out == ""


async def test_a_database_of_a_newer_release_is_left_alone(owner_url: str, tmp_path: Path) -> None:
    async with opened(owner_url) as database, database.writer.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    ended = run_saasbase(tmp_path, "migrate", SAASBASE_DB_URL=owner_url)
    assert ended.status == 1
    assert ended.err.startswith("saasbase: the schema cannot be migrated, the database may belong to a newer release: ")
    assert ended.err.count("\n") == 1


async def test_executions_keep_their_rows_when_their_foreign_keys_change(empty_url: str) -> None:
    """SQLite has to write the table anew for it, while the keys are in force."""
    place, first = organization("org")
    above, second = project(place)
    rows = [*execution(above), *execution(above), *execution(above)]
    for (_, parent), (_, child) in itertools.pairwise([row for row in rows if row[0] is Execution]):
        child["parent_execution_id"] = parent["id"]

    def content(connection: Connection) -> list[Any]:
        tables_ = (Base.metadata.tables[name] for name in ("executions", "execution_events"))
        return [connection.execute(table.select().order_by(table.c.id)).all() for table in tables_]

    def fill(connection: Connection) -> None:
        for model, row in [*first, *second, *rows]:
            connection.execute(Base.metadata.tables[model.__tablename__].insert(), row)

    async with opened(empty_url) as database:
        await migrate(database)
        await change(database, fill)
        before = await ask(database, content)
        assert [len(found) for found in before] == [3, 3]
        for _ in range(2):
            await change(database, lambda connection: command.downgrade(alembic_config(connection), "0009"))
            assert await ask(database, differences(Base.metadata)) != []
            assert await ask(database, content) == before
            await migrate(database)
            assert await ask(database, differences(Base.metadata)) == []
            assert await ask(database, content) == before


async def test_a_retention_from_before_it_was_signed_stays_unsigned_unless_nobody_could_have_chosen_it(empty_url: str) -> None:
    kept = "SELECT retention_days, key_id, mac FROM audit_retentions"

    def fill(connection: Connection) -> None:
        command.downgrade(alembic_config(connection), "0013")
        for days in (-1000, 0, 1, 36500, 36501):
            row = Table("audit_retentions", MetaData(), autoload_with=connection).insert()
            connection.execute(
                row, {"organization_id": uuid4() if connection.dialect.name != "sqlite" else uuid4().hex, "retention_days": days}
            )

    async with opened(empty_url) as database:
        await migrate(database)
        await change(database, fill)
        await migrate(database)
        assert await ask(database, differences(Base.metadata)) == []
        rows = await ask(database, lambda connection: connection.exec_driver_sql(kept).all())
        assert sorted(map(tuple, rows)) == [(1, "", ""), (36500, "", "")]


def test_the_version_of_this_release_is_that_of_the_last_script() -> None:
    assert head_version() == ScriptDirectory.from_config(alembic_config()).get_current_head()


START = """
import asyncio, sys
from app.main import make_database, prepare_schema
from app.settings import load_settings

async def start():
    database = make_database(load_settings())
    await prepare_schema(database)
    await database.aclose()

asyncio.run(start())
print("alembic" in sys.modules)
"""


def test_who_has_nothing_to_migrate_does_not_wait_for_alembic(tmp_path: Path) -> None:
    for expected in ("True", "False"):
        given = environment(SAASBASE_DB_URL=f"sqlite:///{tmp_path}/x.db")
        ended = subprocess.run([sys.executable, "-c", START], env=given, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert ended.stdout.strip() == expected
