"""What is sent to the database: by requests, or by whatever is done between two looks."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from app.db.engine import Database

JOBS = {
    *("last use of keys", "denied attempts", "executions past their deadline", "authorization outbox", "sweeper", "measurements"),
    *("audit chain", "audit checkpoints", "audit retention", "lags", "buckets of callers"),
}


def _is_of_a_job() -> bool:
    task = asyncio.current_task()
    return task is not None and task.get_name() in JOBS


@contextmanager
def statements_of_requests(database: Database) -> Iterator[list[str]]:
    """What is sent to the database meanwhile, but by the jobs that write what was collected."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not _is_of_a_job():
            sent.append(statement)

    # On PostgreSQL the reader is a view of the writer, which hears what both send.
    engines = {id(engine.pool): engine for engine in (database.reader.sync_engine, database.writer.sync_engine)}.values()
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


class Statements:
    """The statements since the last ``take``."""

    def __init__(self, database: Database) -> None:
        self.sent: list[str] = []
        for engine in {database.reader, database.writer} if database.is_sqlite else {database.writer}:
            event.listen(engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not _is_of_a_job():
            self.sent.append(statement)

    def take(self) -> list[str]:
        """What was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent
