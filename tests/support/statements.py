"""What requests send to the database."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from app.db.engine import Database

JOBS = {"last use of keys", "denied attempts"}


@contextmanager
def statements_of_requests(database: Database) -> Iterator[list[str]]:
    """What is sent to the database meanwhile, but by the jobs that write what was collected."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        task = asyncio.current_task()
        if task is None or task.get_name() not in JOBS:
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
