"""Turns what a database driver raises into errors that are meant for a caller."""

import sqlite3
from socket import gaierror

import asyncpg
from sqlalchemy import UniqueConstraint
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.errors import AppError, ConflictError, InvalidError, UnavailableError
from app.db.base import Base

# A connection that breaks while a change is being committed leaves nobody who could say whether it was.
_AWAY = "The database does not answer. See whether your change was made, and try again."
_FULL = "The database has no room; nothing was changed."
_BUSY = "The database is busy; nothing was changed. Try again."
_DISK_FULL = "53100"
# PostgreSQL's error classes (the first two digits of SQLSTATE) that say the server or the transaction is at fault, not the value.
_SERVER_CLASSES = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")
# And those that say it is the value: it cannot be stored, or a constraint forbids it.
_VALUE_CLASSES = ("22", "23")


def as_app_error(error: BaseException) -> AppError | None:  # noqa: PLR0911 - one line for each kind
    """The error for the caller, or None when this is a fault of the service."""
    if _says_full(error):
        return UnavailableError(_FULL, code="database_full")
    if isinstance(error, PoolTimeoutError | OperationalError | sqlite3.OperationalError):
        return UnavailableError(_BUSY, code="database_busy")
    if isinstance(error, IntegrityError):
        return overtaken()
    state = _sqlstate_of(error)
    if state.startswith(_SERVER_CLASSES) or isinstance(error, InterfaceError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return UnavailableError(_AWAY, code="database_unavailable")
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return UnavailableError(_AWAY, code="database_unavailable")
        if isinstance(error, DataError) or state.startswith("22"):
            return InvalidError("has a value that cannot be stored", pointer="")
    if isinstance(error, ConnectionError | TimeoutError | gaierror):
        return UnavailableError(_AWAY, code="database_unavailable")
    return None


def overtaken(_constraint: str | None = None) -> AppError:
    """The error for a violated constraint that nothing better can be said of."""
    return ConflictError("Something else changed this at the same time; nothing was changed.")


def violated_constraint(error: IntegrityError) -> str | None:
    """The name of the constraint a write ran into: ``uq_...`` or ``fk_...``; SQLite names no foreign key: ``"fk"``.

    To be asked by who raises something better: the error forgets where it was raised. SQLAlchemy's frames there know it, and all of them,
    with the request, would stay until the collector comes.
    """
    _forget_frames(error)
    name = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
    if name is not None:
        return str(name)
    text = str(error.orig)
    if "FOREIGN KEY" in text:
        return "fk"
    _, _, columns = text.partition("UNIQUE constraint failed: ")
    names = [part.strip().rpartition(".") for part in columns.split(",")]
    if not columns:
        return None
    table = Base.metadata.tables[names[0][0]]
    wanted = [column for _, _, column in names]
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint) and [column.name for column in constraint.columns] == wanted:
            return str(constraint.name)
    return None


def _forget_frames(error: BaseException | None) -> None:
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def is_refused(error: Exception) -> bool:
    """Whether the database, or its driver before it, took offence at what it was given, so that it did nothing."""
    return _sqlstate_of(error).startswith(_VALUE_CLASSES) or isinstance(error, sqlite3.IntegrityError | ValueError | OverflowError)


def _sqlstate_of(error: BaseException) -> str:
    """Of an error of PostgreSQL's, also within SQLAlchemy's."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) or ""


def _says_full(error: BaseException) -> bool:
    """SQLite's result code, or PostgreSQL's ``disk_full``."""
    said = getattr(error, "orig", error)
    return getattr(said, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(said, "sqlstate", None) == _DISK_FULL
