"""The outermost ring, plain ASGI: request id, header limit, security headers, access line, metrics, an answer to every fault."""

import logging
import time
from typing import Final

from opentelemetry.trace import Span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import HeadersTooLargeError, problem_of
from app.http.requests import RequestInfo, request_info
from app.observability.metrics import REQUESTS_IN_FLIGHT, observe_request
from app.observability.tracing import describe, span_of_request, trace_id_of

_access = logging.getLogger("app.access")
_log = logging.getLogger(__name__)

MAX_HEADER_BYTES: Final = 32 * 1024


def _limit_headers(scope: Scope) -> None:
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        raise HeadersTooLargeError


def _route_of(scope: Scope) -> str | None:
    return getattr(scope.get("route"), "path", None)


def _describe(span: Span, scope: Scope, info: RequestInfo) -> None:
    told = {
        "request_id": info.request_id,
        "actor": info.actor,
        "on_behalf_of": info.on_behalf_of,
        "organization_id": info.organization_id,
    }
    describe(span, scope["method"], _route_of(scope), told)


class EdgeMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; no exception leaves while an answer can still be given."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        info = request_info(scope)
        span = span_of_request(scope)
        info.trace_id = trace_id_of(span) or info.trace_id

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
                _describe(span, scope, info)
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", info.request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        REQUESTS_IN_FLIGHT.inc()
        try:
            _limit_headers(scope)
            await self._app(scope, receive, send_marked)
        except Exception as error:
            if info.status:
                raise  # the answer is half sent: only a broken connection can tell the client
            response = problem_of(scope, error)
            if response.status_code == 500:  # noqa: PLR2004 - the one status that is our fault
                _log.exception("unforeseen error", extra={"request_id": info.request_id})
            await response(scope, receive, send_marked)
        finally:
            seconds = time.perf_counter() - started
            route = _route_of(scope)
            if not info.status:
                _describe(span, scope, info)
            REQUESTS_IN_FLIGHT.dec()
            observe_request(scope["method"], route, info.status, seconds)
            self._write_access_line(scope, info, route, seconds)

    def _write_access_line(self, scope: Scope, info: RequestInfo, route: str | None, seconds: float) -> None:
        if not _access.isEnabledFor(logging.INFO):
            return
        _access.info(
            "%s %s %s",
            scope["method"],
            route or "-",
            info.status,
            extra={
                "actor": info.actor,
                "on_behalf_of": info.on_behalf_of,
                "organization_id": info.organization_id,
                "duration_ms": round(seconds * 1000, 2),
                "request_id": info.request_id,
                "correlation_id": info.correlation_id,
                "trace_id": info.trace_id,
                "method": scope["method"],
                "route": route,
                "status": info.status,
            },
        )
