"""An answer to every fault, and the limits that hold before a route is found."""

import asyncio
import logging
from itertools import chain
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import UnavailableError
from app.http.patience import limit_waiting
from app.http.problems import HeadersTooLargeError, problem_of
from app.http.requests import RequestInfo, request_info
from app.http.traffic import Traffic

_log = logging.getLogger(__name__)

MAX_HEADER_BYTES: Final = 32 * 1024


def _limit_headers(scope: Scope) -> None:
    if sum(map(len, chain.from_iterable(scope["headers"]))) > MAX_HEADER_BYTES:
        raise HeadersTooLargeError


class FaultMiddleware:
    """Turns whatever goes wrong into a problem; no exception leaves while an answer can still be given."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic, body_idle_seconds: float) -> None:
        self._app = app
        self._traffic = traffic
        self._body_idle_seconds = body_idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        info = request_info(scope)
        try:
            _limit_headers(scope)
            patient = limit_waiting(receive, info, self._body_idle_seconds) if self._body_idle_seconds else receive
            await self._app(scope, patient, send)
        except Exception as error:  # noqa: BLE001 - every one is answered
            # Not kept beyond this block: it knows this frame, and both would stay until the collector comes.
            await _answer(error, info, scope, receive, send)
        except asyncio.CancelledError:
            if not self._traffic.is_draining or info.status:
                raise
            # What is being written when a request is broken off may be written or not.
            advice = "Try again." if scope["method"] in {"GET", "HEAD"} else "See whether your change was made, and try again."
            stopping = UnavailableError(f"The service is shutting down. {advice}", code="shutting_down")
            await _answer(stopping, info, scope, receive, send)


async def _answer(fault: Exception, info: RequestInfo, scope: Scope, receive: Receive, send: Send) -> None:
    if info.status:
        raise fault  # the answer is half sent: only a broken connection can tell the client
    response = problem_of(scope, fault)
    if response.status_code == 500:  # noqa: PLR2004 - the one status that is our fault
        _log.error("unforeseen error", exc_info=fault, extra={"request_id": info.request_id})
    await response(scope, receive, send)
