"""Several statements that see the database of one moment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.confinement import Tenants, confine
from app.db.engine import Database


@asynccontextmanager
async def open_snapshot(database: Database, tenants: Tenants | None = None) -> AsyncIterator[AsyncConnection]:
    """A connection that sees what was committed before its first statement, and of these tenants only; nobody waits for it."""
    async with database.reader.connect() as connection:
        if not database.is_sqlite:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            confine(cast("Connection", connection.sync_connection), tenants)
            yield connection
            return
        await connection.exec_driver_sql("BEGIN")
        try:
            yield connection
        finally:
            await connection.invalidate()  # a reader that stayed in a transaction would never see anything new
