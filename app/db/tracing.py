"""Spans of statements: what was asked of the database in a request, and how long that took; never with which values."""

from collections.abc import Callable
from typing import Any, Final

from opentelemetry.trace import SpanKind, StatusCode, Tracer, get_current_span
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from app.db.engine import Database

_SYSTEMS: Final = {True: "sqlite", False: "postgresql"}


def trace_statements(database: Database, tracer: Tracer) -> None:
    """From now on each statement of a traced request gets a span below the request's. What no request has asked for gets none."""
    begin = _beginning(tracer, _SYSTEMS[database.is_sqlite])
    for engine in database.engines:
        event.listen(engine, "before_cursor_execute", begin)
        event.listen(engine, "after_cursor_execute", _end)
        event.listen(engine, "handle_error", _fail)


def _beginning(tracer: Tracer, system: str) -> Callable[..., None]:
    def begin(_connection: Any, _cursor: Any, statement: str, parameters: Any, context: Any, is_many: bool) -> None:
        if not get_current_span().is_recording():
            return
        operation = statement.lstrip().partition(" ")[0].upper()
        attributes: dict[str, str | int] = {
            "db.system.name": system,
            "db.operation.name": operation,
            "db.query.text": statement,
        }
        if is_many:
            attributes["db.operation.batch.size"] = len(parameters)
        context.span = tracer.start_span(operation, kind=SpanKind.CLIENT, attributes=attributes)

    return begin


def _end(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _is_many: bool) -> None:
    span = getattr(context, "span", None)
    if span is not None:
        span.end()


def _fail(failure: ExceptionContext) -> None:
    span = getattr(failure.execution_context, "span", None)
    if span is not None and span.is_recording():
        span.set_attribute("error.type", type(failure.original_exception).__name__)
        span.set_status(StatusCode.ERROR)
        span.end()
