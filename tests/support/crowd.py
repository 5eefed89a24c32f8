"""Very many rows in every table of tenants, made by the database itself: what plans look like in production."""

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
    ("organizations", "id"): "md5('organizations' || g)::uuid",
    ("projects", "id"): "md5('projects' || g)::uuid",
    ("groups", "group_id"): "'group' || g",
    ("group_members", "group_id"): "'group' || g",
}
_FEW: Final = ("status", "outcome", "kind", "scope_type", "actor_type", "member_type", "resource_type", "target_type", "action")


async def seed_crowd(url: str, models: Iterable[type[Base]]) -> None:
    """Fill tables, on PostgreSQL, as a superuser. Indexes are made afterwards: that is ten times as fast."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")  # foreign keys hold by how the rows are made
        for model in models:
            await _fill(connection, model.__table__)
        await connection.execute("VACUUM ANALYZE")
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
        return _identifier(table, column.name)
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


def _identifier(table: str, column: str) -> str:
    if column == "id":
        return f"md5('{table}' || g)::uuid"
    if column == "organization_id":
        return f"md5('organizations' || g % {TENANTS})::uuid"
    if column in {"project_id", "resource_id", "scope_id"}:
        return f"md5('projects' || g % {PROJECTS})::uuid"
    return f"md5('{column}' || g % {ROWS // 10})::uuid"
