"""Very many rows in tables of tenants, made by the database itself: what plans look like in production."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import asyncpg
from sqlalchemy import Boolean, Column, Float, Integer, String, Uuid

from app.db.base import Base, Json, Timestamp

ROWS: Final = 200_000
TENANTS: Final = 200
PROJECTS: Final = 2_000  # g % PROJECTS lies in g % TENANTS

# Columns whose values depend on each other or are checked; %s is the number of the row.
_TOLD: Final = {
    ("memberships", "resource_type"): "(ARRAY['PROJECT', 'ORGANIZATION', 'DOCUMENT', 'API_CALL'])[1 + g % 4]",
    ("memberships", "role"): "(ARRAY['PROJECT_VIEWER', 'ORG_MEMBER', 'DOCUMENT_VIEWER', 'API_CALL_VIEWER'])[1 + g % 4]",
    ("groups", "group_id"): "'group' || g",
    ("group_members", "group_id"): "'group' || g",
}
_OF_PROJECTS: Final = ("project_id", "resource_id", "scope_id")
_FEW: Final = ("status", "outcome", "kind", "scope_type", "actor_type", "member_type", "resource_type", "target_type", "action")


async def seed_crowd(url: str, models: Iterable[type[Base]]) -> None:
    """Fill tables, on PostgreSQL, as a superuser, two at a time. Indexes are made afterwards: that is ten times as fast."""
    waiting = [model.__table__ for model in models]
    await asyncio.gather(*(_fill_all(url, waiting) for _ in range(2)))


async def _fill_all(url: str, waiting: list[Any]) -> None:
    connection = await asyncpg.connect(url, server_settings={"maintenance_work_mem": "256MB", "synchronous_commit": "off"})
    try:
        await connection.execute("SET session_replication_role = replica")  # foreign keys hold by how the rows are made
        while waiting:
            table = waiting.pop()
            await _fill(connection, table)
            await connection.execute(f'VACUUM ANALYZE "{table.name}"')
    finally:
        await connection.close()


async def _fill(connection: Any, table: Any) -> None:
    indexes = await connection.fetch(
        "SELECT indexdef, indexname FROM pg_indexes JOIN pg_class ON relname = indexname JOIN pg_index ON indexrelid = pg_class.oid"
        " WHERE tablename = $1 AND NOT indisunique",
        table.name,
    )
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['indexname']}")
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(_value(table.name, column) for column in table.columns)
    await connection.execute(
        f'INSERT INTO "{table.name}" ({names}) SELECT {values} FROM generate_series(1, {ROWS}) AS g ON CONFLICT DO NOTHING'
    )
    for index in indexes:
        await connection.execute(index["indexdef"])


def _value(table: str, column: Column[Any]) -> str:
    if (table, column.name) in _TOLD:
        return _TOLD[table, column.name]
    if isinstance(column.type, Uuid):
        return _identifier(column.name)
    if isinstance(column.type, Timestamp):
        return "now() - g * interval '1 second'" if not column.nullable else "CASE WHEN g % 3 = 0 THEN now() - g * interval '1 second' END"
    if isinstance(column.type, String):
        number = "g" if column.primary_key else f"g % {4 if column.name in _FEW else 20_000}"
        return f"right('{column.name}' || {number}, {column.type.length})"
    return _plain(column)


def _plain(column: Column[Any]) -> str:
    if isinstance(column.type, type(Json)):
        return "'{}'"
    if isinstance(column.type, Boolean):
        return "false"
    if isinstance(column.type, Integer | Float):
        return "g"
    raise TypeError(column.type)


def _identifier(column: str) -> str:
    """Those of one kind in order: what is random is slow to write, and plans do not ask."""
    if column == "id":
        return _nth("g")
    return _nth(f"g % {TENANTS if column == 'organization_id' else PROJECTS if column in _OF_PROJECTS else ROWS // 10}")


def _nth(number: str) -> str:
    return f"lpad(to_hex({number}), 32, '0')::uuid"
