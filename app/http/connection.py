"""One connection, with limits on what uvicorn waits for: the head of a request, the rest of a body nobody reads, a client that reads."""

import asyncio
from dataclasses import dataclass
from fcntl import ioctl
from struct import unpack
from termios import TIOCOUTQ
from typing import Any, ClassVar, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.http.access import AccessLog
from app.http.patience import MIN_BYTES_PER_SECOND
from app.http.problems import make_problem
from app.http.protections import marks_of
from app.http.requests import request_info
from app.http.transport import WholeAnswers

MAX_HEAD_BYTES: Final = 64 * 1024
LOOKS: Final = 4  # so often a limit is looked after before it is over
LONGEST_PAUSE: Final = 5.0
_OF_THE_WISH: Final = {b"upgrade", b"http2-settings", b"connection"}


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds a connection waits for its client; 0 = for ever."""

    for_head: float = 0
    for_body: float = 0
    for_reading: float = 0

    @property
    def pause(self) -> float:
        """How often to look; 0 = never."""
        limits = [limit for limit in (self.for_head, self.for_body, self.for_reading) if limit]
        return min(LONGEST_PAUSE, min(limits) / LOOKS) if limits else 0


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's connection, which alone would wait for ever and keep whatever is sent to it before the head is complete.

    While a request is being served, nothing is limited here but how slowly its answer is read; its body is ``limit_waiting``'s. One timer
    for each connection looks a few times in each limit, so a limit can be exceeded by a quarter, and a request costs nothing.
    """

    patience: ClassVar[Patience] = Patience()
    hsts_seconds: ClassVar[int] = 0
    access: ClassVar[AccessLog] = AccessLog()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_since: float | None = None
        self._is_in_body = False
        self._idle_bytes = 0  # received since the last that was part of a body, or the end of a head
        self._unwanted_since: float | None = None
        self._stalled: tuple[float, int] | None = None
        self._is_asking_for_more = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's signature
        """Begin to wait for a head."""
        super().connection_made(WholeAnswers(transport, self))  # type: ignore[arg-type] # as much of one as uvicorn asks for
        self._head_since = self.loop.time()
        if pause := self.patience.pause:
            self._timer = self.loop.call_later(pause, self._look, pause)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and end the connection when too much of it is neither a whole head nor a body."""
        if self._head_since is None and not self._is_in_body:
            self._head_since = self.loop.time()
        self._idle_bytes += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._idle_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "headers_too_large", "The request's headers are larger than 32 KiB.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. What comes behind a body is no header of the request: a proxy has not looked at it (RFC 9110, 6.5.1)."""
        if not self._is_in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request can be served, unless it asks for another protocol: then it is read once more, without that wish."""
        self._head_since, self._is_in_body, self._idle_bytes = None, True, 0
        self._is_asking_for_more = self.parser.should_upgrade()
        if not self._is_asking_for_more:
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            self._refuse(400, "bad_request", "This is no proxy.")

    def on_body(self, body: bytes) -> None:
        """A part of the body. uvicorn would copy it twice; what comes alone is handed on as it is."""
        self._idle_bytes = 0
        cycle: Any = self.cycle
        if not cycle.body:
            cycle.body = b""
        elif isinstance(cycle.body, bytes):  # small parts are added to one another in a time that grows with their size, not its square
            cycle.body = bytearray(cycle.body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_in_body, self._idle_bytes = False, 0
        if not self._is_asking_for_more:
            super().on_message_complete()

    def resume_writing(self) -> None:
        """The client reads."""
        self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text, which is no problem
        """What came is not HTTP."""
        self._refuse(400, "bad_request", "This is not a request of HTTP/1.1.")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            # The parser takes what is behind such a head for another protocol, a body too, and a body for the next request.
            # Libraries ask for HTTP/2 in passing: the wish is ignored (RFC 9110, 7.8).
            if not self.transport.is_closing():
                head, self.parser = self._head_without_wish(), HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self._is_in_body = False
                self._feed(head + data[upgrade.args[0] :])
        except HttpParserError:
            self.send_400_response("")

    def _head_without_wish(self) -> bytes:
        """The head that was just read, of somebody who wants HTTP/1.1 and, if he said so, nothing after it."""
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [header for header in self.headers if header[0] not in _OF_THE_WISH]
        if any(b"close" in value.lower() for name, value in self.headers if name == b"connection"):
            kept.append((b"connection", b"close"))
        return b"".join([first, *(b"%b: %b\r\n" % header for header in kept), b"\r\n"])

    def _look(self, pause: float) -> None:
        now = self.loop.time()
        self._look_after_head(now)
        self._look_after_body(now)
        self._look_after_reading(now)
        self._timer = self.loop.call_later(pause, self._look, pause)

    def _look_after_head(self, now: float) -> None:
        if self._head_since is None or not self.patience.for_head:
            return
        if self._is_answering:  # the next request begins behind one that is being served
            self._head_since = now
        elif now - self._head_since >= self.patience.for_head and not self.transport.is_closing():
            if self._idle_bytes:
                self._refuse(408, "request_timeout", "The head of the request did not come in time.")
            else:
                self.transport.close()

    def _look_after_body(self, now: float) -> None:
        """The rest of a body whose request was answered before it was there."""
        if not self._is_in_body or self._is_answering or not self.patience.for_body:
            self._unwanted_since = None
        elif self._unwanted_since is None:
            self._unwanted_since = now
        elif now - self._unwanted_since >= self.patience.for_body:
            self.transport.close()

    def _look_after_reading(self, now: float) -> None:
        waiting = self.transport.get_write_buffer_size()
        is_stuck = waiting and (self.flow.write_paused or not self._is_answering)
        if not is_stuck or not self.patience.for_reading:
            self._stalled = None
            return
        waiting += _unacknowledged(self.transport)
        since, before = self._stalled or (now, waiting)
        self._stalled = since, before
        if now - since >= self.patience.for_reading:
            if before - waiting < MIN_BYTES_PER_SECOND * self.patience.for_reading:
                self.transport.abort()
            self._stalled = now, waiting

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: int, code: str, detail: str) -> None:
        if self._is_answering:  # a second answer in the midst of the first would be taken for a part of it
            self.transport.abort()
            return
        scope: Scope = {"type": "http", "method": "-", "path": "", "headers": []}
        problem = make_problem(scope, status, code, detail, headers={"Connection": "close"})
        info = request_info(scope)
        info.status = status
        now = self.loop.time()
        self.access.note("-", None, info, now - (self._head_since or now))  # the application has not seen it
        headers = [*problem.raw_headers, *marks_of(scope, problem.raw_headers, self.hsts_seconds)]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", problem.body]))
        self.transport.close()


def _unacknowledged(transport: asyncio.Transport) -> int:
    """How many bytes the operating system still holds for the client, which takes them in larger pieces than the client reads."""
    try:
        return int(unpack("i", ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:  # not every system tells
        return 0
