"""What the two databases are told to be: durable and strict on SQLite, native types on PostgreSQL."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, Float, Integer, String, Uuid, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import TypeEngine

from app.db.base import Base, Json, Timestamp
from app.db.engine import Database, PoolLimits
from app.db.migrations import migrate

pytestmark = pytest.mark.anyio

PRAGMAS = {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 7000}
INSERT = text(
    "INSERT INTO organizations (id, slug, name, metadata, created_at, updated_at, created_by_subject, revision)"
    " VALUES ('0', 'acme', 'Acme', '{}', '2026-01-01', '2026-01-01', 'user:alice', 1)"
)
COUNT = text("SELECT count(*) FROM organizations")


@pytest.fixture
async def sqlite(empty_sqlite: str) -> AsyncIterator[Database]:
    database = Database.from_url(empty_sqlite, PoolLimits(lock_seconds=7))
    await migrate(database)
    try:
        yield database
    finally:
        await database.aclose()


@pytest.fixture
async def neighbour(sqlite: Database) -> AsyncIterator[Database]:
    """The same file as another process would open it, with little patience."""
    database = Database(sqlite.url, PoolLimits(lock_seconds=0.1))
    try:
        yield database
    finally:
        await database.aclose()


async def count(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(COUNT)).scalar_one())


@pytest.mark.parametrize("side", ["reader", "writer"])
async def test_the_pragmas_are_in_force_on_every_connection(side: str, sqlite: Database) -> None:
    engine: AsyncEngine = getattr(sqlite, side)
    async with engine.connect() as connection:
        found = {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in PRAGMAS}
    assert found == PRAGMAS


async def test_a_writer_holds_the_lock_before_it_has_written(sqlite: Database, neighbour: Database) -> None:
    async with sqlite.writer.begin():
        with pytest.raises(OperationalError, match="database is locked"):
            async with neighbour.writer.begin():
                pytest.fail("two writers at once")
    async with neighbour.writer.begin() as connection:
        await connection.execute(INSERT)
    assert await count(sqlite.reader) == 1


async def test_any_other_program_sees_the_lock_too(sqlite: Database) -> None:
    with closing(sqlite3.connect(str(sqlite.url.database), timeout=0, isolation_level=None)) as other:
        async with sqlite.writer.begin():
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


async def test_readers_go_on_beside_a_writer_and_see_only_what_is_committed(sqlite: Database, neighbour: Database) -> None:
    async with sqlite.writer.begin() as connection:
        await connection.execute(INSERT)
        assert await count(sqlite.reader) == 0
        assert await count(neighbour.reader) == 0
    assert await count(sqlite.reader) == 1


async def write_and_fail(database: Database) -> None:
    async with database.writer.begin() as connection:
        await connection.execute(INSERT)
        await connection.exec_driver_sql("DELETE FROM nowhere")


async def test_a_transaction_that_fails_leaves_nothing(sqlite: Database) -> None:
    with pytest.raises(OperationalError, match="no such table: nowhere"):
        await write_and_fail(sqlite)
    assert await count(sqlite.reader) == 0


async def test_a_child_without_its_parent_is_refused(sqlite: Database) -> None:
    row = "'1', '0', '0', 'x', '{}', '2026-01-01', '2026-01-01', 'user:alice', 1, 'v1', 1, 'a/b', 1, 'c', 'd'"
    columns = (
        "id, organization_id, project_id, name, metadata, created_at, updated_at, created_by_subject, revision, "
        "current_version_name, current_version_number, media_type, size_bytes, checksum, storage_uri"
    )
    statement = f"INSERT INTO documents ({columns}, current_version_id) VALUES ({row}, '2')"
    with pytest.raises(Exception, match="FOREIGN KEY constraint failed"):
        async with sqlite.writer.begin() as connection:
            await connection.exec_driver_sql(statement)


def native(kind: TypeEngine[Any]) -> tuple[str, int | None]:
    """The type a column has on PostgreSQL, and its length."""
    if isinstance(kind, String):
        return "character varying", kind.length
    if kind is Json:
        return "jsonb", None
    names = {
        Uuid: "uuid",
        Timestamp: "timestamp with time zone",
        BigInteger: "bigint",
        Integer: "integer",
        Float: "double precision",
        Boolean: "boolean",
    }
    return next(name for cls, name in names.items() if isinstance(kind, cls)), None


async def test_postgresql_has_native_types(empty_postgres: str) -> None:
    database = Database.from_url(empty_postgres)
    try:
        await migrate(database)
        async with database.open_read() as connection:
            rows = await connection.exec_driver_sql(
                "SELECT table_name, column_name, data_type, character_maximum_length AS length FROM information_schema.columns"
                " WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
            )
            found = {(row["table_name"], row["column_name"]): (row["data_type"], row["length"]) for row in rows.mappings()}
    finally:
        await database.aclose()
    expected = {(table.name, column.name): native(column.type) for table in Base.metadata.tables.values() for column in table.columns}
    assert found == expected
    assert {"uuid", "jsonb", "timestamp with time zone"} <= {kind for kind, _ in found.values()}


async def test_postgresql_connections_are_bounded_in_time(empty_postgres: str) -> None:
    database = Database.from_url(empty_postgres, PoolLimits(statement_seconds=1.5, lock_seconds=2))
    try:
        async with database.open_read() as connection:
            for name, value in (("statement_timeout", "1500ms"), ("lock_timeout", "2s"), ("application_name", "saasbase")):
                assert (await connection.exec_driver_sql(f"SHOW {name}")).scalar_one() == value
    finally:
        await database.aclose()
