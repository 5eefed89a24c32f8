"""The schema's history: bring a database to the newest version, and tell whether it is there."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, inspect, text

from app.db.engine import Database

if TYPE_CHECKING:
    from alembic.config import Config

# Any fixed number: processes that migrate one database take turns on it.
_ADVISORY_LOCK: Final = 7_230_519_684_112_345
_SCRIPTS: Final = Path(__file__).resolve().parents[2] / "alembic"


class SchemaVersionError(RuntimeError):
    """The database is not at the version this release needs."""


def alembic_config(connection: Connection | None = None) -> "Config":
    """Alembic's configuration, bound to an open connection."""
    from alembic.config import Config  # noqa: PLC0415 - only who migrates waits for the library

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    return config


@cache
def head_version() -> str:
    """The version this release was written for: scripts are numbered. Alembic itself is loaded only to migrate."""
    return max(path.name for path in (_SCRIPTS / "versions").glob("*.py")).partition("_")[0]


async def current_version(database: Database) -> str | None:
    """The version of the database; None when it is empty."""
    async with database.open_read() as connection:
        return await connection.run_sync(_read_version)


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


def _read_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def _upgrade(connection: Any) -> None:
    from alembic.util import CommandError  # noqa: PLC0415 - see above

    from alembic import command  # noqa: PLC0415

    try:
        command.upgrade(alembic_config(connection), "head")
    except CommandError as error:
        raise SchemaVersionError(f"the schema cannot be migrated: {error}") from None
