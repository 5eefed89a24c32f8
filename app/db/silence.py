"""A PostgreSQL that falls silent: how long its word is waited for, and that nothing which fell silent is used again."""

import asyncio
from contextlib import suppress
from typing import Any, Final

import asyncpg
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import Pool, PoolProxiedConnection

# The server ends a statement that takes too long, and says so: who has not heard from it so long after that never will.
GRACE_SECONDS: Final = 3.0
CONNECT_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 0.5


class BoundedConnection(asyncpg.Connection):  # type: ignore[misc] # the driver has no types
    """A connection that waits no longer than its ``command_timeout`` for anything, and for the answer to a goodbye hardly at all."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109 - the driver's signature
        """Say goodbye. Who does not answer is left at once."""
        with suppress(TimeoutError):
            await super().close(timeout=CLOSE_SECONDS)

    async def _cleanup_stmts(self) -> None:
        # Before it prepares a statement the driver closes those that were forgotten, and would wait for that for ever.
        async with asyncio.timeout(self._config.command_timeout):
            await super()._cleanup_stmts()


def limits_of_waiting(statement_seconds: float) -> dict[str, float | None]:
    """What the driver is told: how long anything may take, unless statements have no limit, and how long a new connection."""
    if not statement_seconds:
        return {"command_timeout": None, "timeout": CONNECT_SECONDS}
    patience = statement_seconds + GRACE_SECONDS
    return {"command_timeout": patience, "timeout": min(CONNECT_SECONDS, patience)}


def give_up(failure: ExceptionContext) -> None:
    """Listens to the errors of an engine. To SQLAlchemy a timeout says nothing about the connection; here it says that it is of no use."""
    connection = failure.connection
    if isinstance(failure.original_exception, TimeoutError) and connection is not None and not connection.invalidated:
        _driver_of(connection.connection).terminate()  # else a rollback, and then a goodbye, would be tried, and waited for
        failure.is_disconnect = True  # for every connection of the pool that was made before, too


def leave(pool: Pool, lent: PoolProxiedConnection, error: TimeoutError) -> None:
    """The same for a connection that was taken from the pool itself."""
    _driver_of(lent).terminate()
    pool._invalidate(lent, error)  # noqa: SLF001 - what SQLAlchemy does where it has seen the error itself; there is no other way


def _driver_of(lent: PoolProxiedConnection) -> Any:
    return lent.driver_connection
