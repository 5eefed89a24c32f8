"""The outermost ring, plain ASGI: the peer's address in its plain form, request id, security headers, access line, metrics."""

import time

from opentelemetry.trace import Span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.addresses import plain_address
from app.http.access import AccessLog
from app.http.limits import headers_of
from app.http.protections import marks_of
from app.http.requests import RequestInfo, request_info
from app.http.traffic import Traffic
from app.observability.metrics import REQUESTS_IN_FLIGHT
from app.observability.tracing import describe, span_of_request, trace_id_of


def _route_of(scope: Scope) -> str | None:
    return getattr(scope.get("route"), "path", None)


def _describe(span: Span, scope: Scope, info: RequestInfo) -> None:
    if not span.is_recording():
        return
    told = {
        "request_id": info.request_id,
        "actor": info.actor,
        "on_behalf_of": info.on_behalf_of,
        "organization_id": info.organization_id,
    }
    describe(span, scope["method"], _route_of(scope), told)


class EdgeMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, *, access: AccessLog, traffic: Traffic, hsts_seconds: int) -> None:
        self._app = app
        self._access = access
        self._hsts_seconds = hsts_seconds
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        if peer := scope.get("client"):
            scope["client"] = (plain_address(peer[0]), peer[1])
        info = request_info(scope)
        span = span_of_request(scope)
        info.trace_id = trace_id_of(span) or info.trace_id

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
                _describe(span, scope, info)
                message["headers"] = [*message["headers"], *marks_of(scope, message["headers"], self._hsts_seconds)]
                if info.standing is not None:
                    message["headers"].extend(headers_of(info.standing))
                if self._traffic.is_draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        self._traffic.begin()
        REQUESTS_IN_FLIGHT.inc()
        try:
            await self._app(scope, receive, send_marked)
        finally:
            seconds = time.perf_counter() - started
            route = _route_of(scope)
            if not info.status:
                _describe(span, scope, info)
            self._traffic.end()
            REQUESTS_IN_FLIGHT.dec()
            self._access.note(scope["method"], route, info, seconds)
