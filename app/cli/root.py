"""What every command shares: the settings, how work is run, and how a fault is told: one line, status 1, never a traceback."""

import asyncio
import sys
import threading
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from app.settings import LogFormat, Settings, SettingsError, load_settings

Result = TypeVar("Result")


class CommandError(Exception):
    """What the command was told to do cannot be done; one line, or a few."""


def read_settings() -> Settings:
    """The configuration, with logging set up as it says; ends the command when it cannot be used."""
    from app.observability.logging import configure_logging

    try:
        settings = load_settings()
    except SettingsError as error:
        fail(str(error))
    is_terminal = sys.stderr.isatty()
    as_json = settings.log.format is LogFormat.JSON or (settings.log.format is LogFormat.AUTO and not is_terminal)
    configure_logging(settings.log.level, as_json=as_json)
    return settings


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work; ends the command with one clear line when it cannot be done."""
    from alembic.util import CommandError as MigrationError
    from sqlalchemy.exc import SQLAlchemyError

    from app.authz.openfga_terms import OpenFGAError
    from app.blobs.store import BlobStoreError
    from app.core.errors import AppError
    from app.db.migrations import SchemaVersionError
    from app.db.roles import DatabaseRoleError
    from app.db.urls import DatabaseURLError

    try:
        return asyncio.run(_settled(work))
    except (DatabaseURLError, SchemaVersionError, DatabaseRoleError, SettingsError, CommandError) as error:
        fail(str(error))
    except AppError as error:
        fail(error.detail)
    except OpenFGAError as error:
        fail(f"OpenFGA (SAASBASE_AUTHZ__OPENFGA__URL) {error}")
    except MigrationError as error:  # a version this release does not know
        fail(f"the schema cannot be migrated, the database may belong to a newer release: {error}")
    except BlobStoreError as error:
        fail(f"documents cannot be stored: {error} ({error.advice or 'see SAASBASE_STORAGE__LOCAL__BASE_PATH'})")
    except (SQLAlchemyError, OSError) as error:
        told = str(getattr(error, "orig", error)).splitlines()  # a timeout has no words
        fail(f"the database cannot be used: {': '.join([type(error).__name__, *told[:1]])}")


async def _settled(work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for aiosqlite's threads: after a failed open one answers once more, and complains loudly when the loop is closed."""
    try:
        return await work
    finally:
        for thread in threading.enumerate():
            if "_connection_worker_thread" in thread.name:
                await asyncio.to_thread(thread.join, 1)


def fail(text: str) -> NoReturn:
    """Say what is wrong and end with status 1."""
    for line in text.splitlines():
        print(f"saasbase: {line}", file=sys.stderr)
    raise SystemExit(1)
