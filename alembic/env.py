"""Runs migrations over the connection it is given, or over the configured database when called as `alembic ...`."""

import asyncio

from sqlalchemy import Connection

from alembic import context
from app import models  # noqa: F401 - registers every table
from app.db.base import Base
from app.db.engine import Database
from app.settings import load_settings


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=False,
        compare_type=True,
        user_module_prefix="base.",
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_by_itself() -> None:
    settings = load_settings()
    database = Database.from_url((settings.database.migration_url or settings.db_url).get_secret_value())
    try:
        async with database.writer.begin() as connection:
            await connection.run_sync(run)
    finally:
        await database.aclose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_by_itself())
