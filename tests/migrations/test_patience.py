"""How long a migration may take: as long as its work and its turn need; but it waits for the lock of somebody no longer than a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from app.db import migrations
from app.main import migrate_database
from app.settings import Settings
from tests.migrations.conftest import run_sql

pytestmark = pytest.mark.anyio

LIMITS = {"statement_timeout_seconds": 0.3, "lock_timeout_seconds": 0.3}


def settings_of(url: str, **database: Any) -> Settings:
    return Settings.model_validate({"db_url": url, "database": {**LIMITS, **database}})


@asynccontextmanager
async def another(url: str, statement: str) -> AsyncIterator[None]:
    """Somebody else's transaction, in which that was done."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


@pytest.mark.parametrize("pooler", [False, True], ids=["", "pooler"])
async def test_a_migration_waits_for_its_turn_and_takes_its_time(empty_postgres: str, pooler: bool) -> None:
    """What the settings say about statements, or the role where a pooler keeps settings away, is for requests."""
    name = urlsplit(empty_postgres).path[1:]
    for limit in ("statement_timeout", "lock_timeout"):
        await run_sql(empty_postgres, f"ALTER DATABASE {name} SET {limit} = '300ms'")
    async with another(empty_postgres, f"SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({migrations._ADVISORY_LOCK})"):
        waiting = asyncio.create_task(migrate_database(settings_of(empty_postgres, transaction_pooler=pooler), with_roles=False))
        await asyncio.sleep(4)
        assert not waiting.done()
    await waiting


async def test_a_statement_of_a_migration_has_no_limit(empty_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = migrations._upgrade

    def upgrade_slowly(connection: Any) -> None:
        connection.exec_driver_sql("SELECT pg_sleep(4)")
        upgrade(connection)

    monkeypatch.setattr(migrations, "_upgrade", upgrade_slowly)
    await migrate_database(settings_of(empty_postgres), with_roles=False)


async def test_a_migration_does_not_wait_behind_somebody_who_holds_a_table(empty_postgres: str) -> None:
    await migrate_database(settings_of(empty_postgres), with_roles=False)
    async with another(empty_postgres, "LOCK alembic_version IN ACCESS EXCLUSIVE MODE"):
        with pytest.raises(DBAPIError, match="lock timeout"):
            await asyncio.wait_for(migrate_database(settings_of(empty_postgres), with_roles=False), 60)
