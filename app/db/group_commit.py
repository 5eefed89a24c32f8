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
from sqlalchemy.util import await_only, greenlet_spawn

from app.db.errors import is_refused
from app.db.lookups import borrowed

# Who else writes waits for one group at most: a few milliseconds.
MAX_GROUP: Final = 64

Statements = Sequence[tuple[str, list[Any]]]
"""Each with its values, as the driver takes them."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A request's statements, and whether they were written."""

    statements: Statements
    written: asyncio.Future[bool]

    def tell(self, outcome: bool | BaseException) -> None:
        if self.written.done():  # it has gone away
            return
        if isinstance(outcome, bool):
            self.written.set_result(outcome)
        else:
            self.written.set_exception(outcome)


class GroupCommit:
    """Writes to one SQLite database, for the requests of one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._line: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, statements: Statements) -> bool:
        """Whether all of them were done, and are durable; none, when the database takes offence at one. Others' play no part in it.

        Who goes away while it waits for its turn leaves nothing. Raises whatever else the driver raises: then nobody knows. But
        PoolTimeoutError when the connection was not free in time.
        """
        mine = _Waiting(statements, asyncio.get_running_loop().create_future())
        self._line.append(mine)
        if self._task is None:  # a task of nobody's: who began it may go away, and its context is not that of the others
            self._task = asyncio.create_task(self._write_line(), context=Context())
        return await mine.written

    async def _write_line(self) -> None:
        try:
            while self._line:
                await greenlet_spawn(self._write_group)
        finally:
            self._task = None

    def _write_group(self) -> None:
        group, outcomes = list(self._line), list[bool]()
        try:
            with borrowed(self._engine) as driver:
                group = [waiting for waiting in self._line if not waiting.written.done()][:MAX_GROUP]  # also who came meanwhile
                self._line = self._line[self._line.index(group[-1]) + 1 :] if group else []
                # Else each statement is a trip to the thread.
                await_only(driver._execute(_transact_each, driver._conn, [waiting.statements for waiting in group], outcomes))  # noqa: SLF001
        except BaseException as error:
            self._line = [waiting for waiting in self._line if waiting not in group]
            for waiting in group[len(outcomes) :]:
                waiting.tell(error)
            if not isinstance(error, Exception):
                raise
        finally:
            for waiting, outcome in zip(group, outcomes, strict=False):
                waiting.tell(outcome)


def _transact_each(connection: sqlite3.Connection, group: Sequence[Statements], outcomes: list[bool]) -> None:
    """All in one transaction; when something in it is refused, each in its own, so that it does not cost the others theirs."""
    if len(group) > 1 and _transact(connection, [statement for statements in group for statement in statements]):
        outcomes += [True] * len(group)
        return
    for statements in group:
        outcomes.append(_transact(connection, statements))


def _transact(connection: sqlite3.Connection, statements: Statements) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for sql, values in statements:
            connection.execute(sql, values)
        connection.execute("COMMIT")
    except Exception as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if not is_refused(error):
            raise
        return False
    return True
