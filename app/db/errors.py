"""Turns what a database driver raises into errors that are meant for a caller."""

from socket import gaierror
from sqlite3 import SQLITE_FULL

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.core.errors import AppError, ConflictError, InvalidError, UnavailableError

# A connection that breaks while a change is being committed leaves nobody who could say whether it was.
_AWAY = "The database does not answer. See whether your change was made, and try again."
_FULL = "The database has no room; nothing was changed."
_BUSY = "The database is busy; nothing was changed. Try again."
_DISK_FULL = "53100"
# PostgreSQL's error classes (the first two digits of SQLSTATE) that say the server or the transaction is at fault, not the value.
_SERVER_CLASSES = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")


def as_app_error(error: BaseException) -> AppError | None:  # noqa: PLR0911 - one line for each kind
    """The error for the caller, or None when this is a fault of the service."""
    if _says_full(error):
        return UnavailableError(_FULL, code="database_full")
    if isinstance(error, PoolTimeoutError | OperationalError):
        return UnavailableError(_BUSY, code="database_busy")
    if isinstance(error, IntegrityError):
        return ConflictError("Something else changed this at the same time; nothing was changed.")
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or isinstance(error, InterfaceError) or state.startswith(_SERVER_CLASSES):
            return UnavailableError(_AWAY, code="database_unavailable")
        if isinstance(error, DataError) or state.startswith("22"):
            return InvalidError("has a value that cannot be stored", pointer="")
    if isinstance(error, ConnectionError | TimeoutError | gaierror):
        return UnavailableError(_AWAY, code="database_unavailable")
    return None


def _says_full(error: BaseException) -> bool:
    """SQLite's result code, or PostgreSQL's ``disk_full``."""
    said = getattr(error, "orig", None)
    return getattr(said, "sqlite_errorcode", None) == SQLITE_FULL or getattr(said, "sqlstate", None) == _DISK_FULL
