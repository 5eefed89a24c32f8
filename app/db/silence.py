"""A PostgreSQL that falls silent: how long its word is waited for, and that nothing which fell silent is used again."""

import asyncio
from contextlib import suppress
from typing import Final

import asyncpg
from sqlalchemy.engine import ExceptionContext

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
    """Listens to the errors of an engine. SQLAlchemy parts with a connection after a timeout; so with every older one of its pool."""
    if isinstance(failure.original_exception, TimeoutError):
        failure.invalidate_pool_on_disconnect = True
