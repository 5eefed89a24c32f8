"""Group commit: what several requests write to SQLite at the same time is one transaction, with one trip to the thread and one sync.

As old as transaction processing: J. Gray and A. Reuter, Transaction Processing, 1993, 9.4.7.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.db.errors import is_refused
from app.db.fair_pool import borrowed

# Who else writes waits for one group at most.
MAX_GROUP: Final = 64

Statements = Sequence[tuple[str, list[Any]]]
"""Each with its values, as the driver takes them."""
Outcome = bool | BaseException
"""Written, refused, or a fault."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A request's statements, and whether they were written."""

    statements: Statements
    written: asyncio.Future[bool]

    def tell(self, outcome: Outcome) -> None:
        if self.written.done():  # it has gone away
            return
        if isinstance(outcome, bool):
            self.written.set_result(outcome)
        elif isinstance(outcome, asyncio.CancelledError):
            self.written.cancel()
        else:
            self.written.set_exception(outcome)


class GroupCommit:
    """Writes to one SQLite database, for the requests of one event loop. Nobody waits longer than ``seconds`` for his turn."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._engine = engine
        self._seconds = seconds
        self._line: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, statements: Statements) -> bool:
        """Whether all of them were done, and are durable; none, when the database takes offence at one. Others' play no part in it.

        Who goes away while it waits for its turn leaves nothing; later it goes when its statements are done or undone. Raises whatever
        else the driver raises: then nobody knows. But PoolTimeoutError when its turn did not come in time.
        """
        loop = asyncio.get_running_loop()
        mine = _Waiting(statements, loop.create_future())
        self._line.append(mine)
        if self._task is None:  # a task of nobody's: who began it may go away, and its context is not that of the others
            self._task = loop.create_task(self._write_line(), context=Context())
        deadline = loop.call_later(self._seconds, self._send_away, mine)
        try:
            return await asyncio.shield(mine.written)
        except asyncio.CancelledError:
            if mine in self._line:
                self._line.remove(mine)
                mine.written.cancel()
            elif not mine.written.done():
                await asyncio.wait([mine.written])
            raise
        finally:
            deadline.cancel()

    async def aclose(self) -> None:
        """Wait for what is being written."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _send_away(self, late: _Waiting) -> None:
        if late in self._line:
            self._line.remove(late)
            late.tell(PoolTimeoutError(f"the connection that writes was not free within {self._seconds:g} seconds"))

    async def _write_line(self) -> None:
        try:
            while self._line:
                await self._write_group()
        finally:
            self._task = None
            for waiting in self._line:  # there are some only when this is broken off, with everything
                waiting.written.cancel()

    async def _write_group(self) -> None:
        group, outcomes = list(self._line), list[Outcome]()
        try:
            async with borrowed(self._engine) as driver:
                group, self._line = self._line[:MAX_GROUP], self._line[MAX_GROUP:]  # also who came meanwhile
                # Else each statement is a trip to the thread.
                await driver._execute(_transact_each, driver._conn, [waiting.statements for waiting in group], outcomes)  # noqa: SLF001
        except PoolTimeoutError:  # each in the line has his own time
            group = []
        except BaseException as error:
            self._line = [waiting for waiting in self._line if waiting not in group]
            outcomes += [error] * (len(group) - len(outcomes))
            if not isinstance(error, Exception):
                raise
        finally:
            for waiting, outcome in zip(group, outcomes, strict=True):
                waiting.tell(outcome)


def _transact_each(connection: sqlite3.Connection, group: Sequence[Statements], outcomes: list[Outcome]) -> None:
    """Everybody's in one transaction. When its commit is refused (a deferred constraint), each has its own."""
    try:
        outcomes += _transact(connection, group)
    except Exception as error:
        if not is_refused(error):
            raise
        if len(group) > 1:
            for statements in group:
                _transact_each(connection, [statements], outcomes)
        else:
            outcomes.append(False)


def _transact(connection: sqlite3.Connection, group: Sequence[Statements]) -> list[Outcome]:
    """All at once; when something in it goes wrong, each by itself, so that it does not cost the others theirs."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcomes = [_attempt(connection, [statement for statements in group for statement in statements])] * len(group)
        if len(group) > 1 and outcomes[0] is not True:
            outcomes = [_attempt(connection, statements) for statements in group]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _attempt(connection: sqlite3.Connection, statements: Statements) -> Outcome:
    connection.execute("SAVEPOINT attempt")
    try:
        for sql, values in statements:
            connection.execute(sql, values)
    except Exception as error:
        if not connection.in_transaction:  # the database has undone everything by itself: it has no room
            raise
        connection.execute("ROLLBACK TO attempt")
        connection.execute("RELEASE attempt")
        return False if is_refused(error) else error
    connection.execute("RELEASE attempt")
    return True
