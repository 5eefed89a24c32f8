"""The schema's history: bring a database to the newest version, and tell whether it is there."""

from pathlib import Path
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from alembic import command
from app.db.engine import Database

# Any fixed number: processes that migrate one database take turns on it.
_ADVISORY_LOCK: Final = 7_230_519_684_112_345
_SCRIPTS: Final = Path(__file__).resolve().parents[2] / "alembic"


class SchemaVersionError(RuntimeError):
    """The database is not at the version this release needs."""


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, bound to an open connection."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    return config


def head_version() -> str:
    """The version this release was written for."""
    return str(ScriptDirectory.from_config(alembic_config()).get_current_head())


async def current_version(database: Database) -> str | None:
    """The version of the database; None when it is empty."""
    async with database.open_read() as connection:
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


async def migrate(database: Database) -> None:
    """Bring the schema to the newest version in one transaction; safe when several processes do it at once.

    However long that takes, the turn of others too; but for locks of tables no longer is waited than for any.
    """
    async with database.writer.begin() as connection:
        if not database.is_sqlite:  # SQLite's BEGIN IMMEDIATE is that lock already
            await connection.execute(text("SET LOCAL statement_timeout = 0"))  # the role may have one, too
            await connection.execute(text("SET LOCAL lock_timeout = 0"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            await connection.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
        await connection.run_sync(_upgrade)


async def require_head(database: Database) -> None:
    """Refuse to go on with another schema.

    Raises:
        SchemaVersionError: says in one line what to do.
    """
    current, head = await current_version(database), head_version()
    if current != head:
        raise SchemaVersionError(f"the database schema is at {current or 'nothing'}, this release needs {head}: run 'saasbase migrate'")


def _upgrade(connection: Any) -> None:
    command.upgrade(alembic_config(connection), "head")
