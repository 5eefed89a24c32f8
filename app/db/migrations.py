"""The schema's history: bring a database to the newest version, and tell whether it is there."""

import asyncio
import logging
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from app.db.base import Base
from app.db.engine import Database

if TYPE_CHECKING:
    from alembic.config import Config

_log = logging.getLogger(__name__)

# Any fixed number: processes that migrate one database take turns on it.
_ADVISORY_LOCK: Final = 7_230_519_684_112_345
_PAUSE_SECONDS: Final = 0.1
_PRIMARY_CODE: Final = 0xFF  # SQLite's extended result codes add to it
_SCRIPTS: Final = Path(__file__).resolve().parents[2] / "alembic"


class SchemaVersionError(RuntimeError):
    """The database is not at the version this release needs, or not this service's."""


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
    return max(_versions())


def advice_at(current: str | None) -> str:
    """What to do with a database at another version than this release's."""
    return "run 'saasbase migrate'" if current is None or current in _versions() else "it belongs to a newer release of the service"


async def current_version(database: Database) -> str | None:
    """The version of the database; None when it is empty."""
    async with database.open_read() as connection:
        return await connection.run_sync(_read_version)


async def require_ours(database: Database) -> None:
    """Refuse a database with tables that somebody else has made under our names: to open such a SQLite file would change it already.

    Raises:
        SchemaVersionError: says in one line what to do.
    """
    if database.is_sqlite:
        names = await asyncio.to_thread(_names_in_file, Path(database.url.database or ""), database.limits.lock_seconds)
    else:
        async with database.open_read() as connection:
            names = set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))
    if "alembic_version" not in names and not names.isdisjoint(Base.metadata.tables):
        raise SchemaVersionError(
            "the database holds tables that are not this service's: name another one in SAASBASE_DB_URL,"
            " and take over what SaaSBase 0.1.1 left with 'saasbase import reference'"
        )


def _names_in_file(file: Path, lock_seconds: float) -> set[str]:
    """The tables in a SQLite file, which stays as it is."""
    if not file.is_file():
        return set()
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=lock_seconds)) as connection:
            rows: Iterable[tuple[str]] = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    except sqlite3.Error:  # whoever opens it next will say so
        return set()
    return {name for (name,) in rows}


async def migrate(database: Database) -> None:
    """Bring the schema to the newest version in one transaction; safe when several processes do it at once.

    However long that takes, the turn of others too; but for locks of tables no longer is waited than for any.

    Raises:
        SchemaVersionError: see ``require_ours``.
    """
    await require_ours(database)
    while not await _migrate_in_turn(database):
        _log.info("another process writes to the database; this one waits for its turn to migrate it")
        await asyncio.sleep(_PAUSE_SECONDS)


async def _migrate_in_turn(database: Database) -> bool:
    """Migrate, and say whether it was this process's turn. SQLite waits for another no longer than for any lock, and then gives up."""
    try:
        async with database.writer.begin() as connection:
            if not database.is_sqlite:  # SQLite's BEGIN IMMEDIATE is that lock already
                await connection.execute(text("SET LOCAL statement_timeout = 0"))  # the role may have one, too
                await connection.execute(text("SET LOCAL lock_timeout = 0"))
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
                await connection.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
            await connection.run_sync(_upgrade)
    except (OperationalError, sqlite3.OperationalError) as error:
        code: int = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)
        if code & _PRIMARY_CODE != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


async def require_head(database: Database) -> None:
    """Refuse to go on with another schema.

    Raises:
        SchemaVersionError: says in one line what to do.
    """
    await require_ours(database)
    current, head = await current_version(database), head_version()
    if current != head:
        raise SchemaVersionError(f"the database schema is at {current or 'nothing'}, this release needs {head}: {advice_at(current)}")


def _versions() -> set[str]:
    return {path.name.partition("_")[0] for path in (_SCRIPTS / "versions").glob("*.py")}


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
        raise SchemaVersionError(f"the schema cannot be migrated, the database may belong to a newer release: {error}") from None
