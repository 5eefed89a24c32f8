"""What is kept of every request: its access line, and its place in the metrics."""

import logging

from app.http.requests import RequestInfo
from app.observability.metrics import observe_request

_access = logging.getLogger("app.access")


def note_request(method: str, route: str | None, info: RequestInfo, seconds: float) -> None:
    """Count a request that is over, and write its line: no header, no body, no query."""
    observe_request(method, route, info.status, seconds)
    if not _access.isEnabledFor(logging.INFO):
        return
    _access.info(
        "%s %s %s",
        method,
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
            "method": method,
            "route": route,
            "status": info.status,
        },
    )
