"""Counts what a database is sent."""

from typing import Any

from sqlalchemy import event

from app.db.engine import Database


class Statements:
    """The statements since the last ``take``."""

    def __init__(self, database: Database) -> None:
        self.sent: list[str] = []
        for engine in {database.reader, database.writer} if database.is_sqlite else {database.writer}:
            event.listen(engine.sync_engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        self.sent.append(statement)

    def take(self) -> list[str]:
        """What was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent
