"""How the service ends: what SIGTERM, SIGINT and SIGHUP do, in one process and in several."""

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from socket import socket
from types import FrameType
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.supervisors import Multiprocess

from app.http.traffic import Traffic

FAILED_TO_START: Final = 3
_PAUSE_SECONDS: Final = 0.05


class Stoppable:
    """The application with the signals of its process: SIGTERM drains first, SIGINT does not wait for that, one more ends at once.

    uvicorn's own handler, which stands behind, stops listening, lets requests end within their limit and then breaks them off.
    """

    def __init__(self, app: ASGIApp, traffic: Traffic, drain_seconds: float) -> None:
        self._app = app
        self._traffic = traffic
        self._drain_seconds = drain_seconds
        # Several workers are stopped by the process that started them, and often by who runs that as well.
        self._is_supervised = multiprocessing.parent_process() is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; at the start, when uvicorn has set its handlers, put ours before them."""
        if scope["type"] == "lifespan":
            self._loop = asyncio.get_running_loop()
            self._stop: Any = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._on_term)
            signal.signal(signal.SIGINT, self._on_interrupt)
            if self._is_supervised:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
        await self._app(scope, receive, send)

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        if not self._traffic.is_draining:
            self._traffic.is_draining = True
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_seconds, self._stop, number, None)
        elif not self._is_supervised:
            self._on_interrupt(signal.SIGINT, frame)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._traffic.is_draining:
            self._stop(number, frame)  # to uvicorn the second SIGINT means at once
        self._traffic.is_draining = True
        self._stop(number, frame)


class Supervisor(Multiprocess):
    """Starts the workers, replaces those that die, and stops them together."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        _ignore_hangups()  # the workers inherit it, so they do so from their first moment; uvicorn has just set a handler

    def init_processes(self) -> None:
        """Start them."""
        super().init_processes()
        self._leave_their_ends()

    def keep_subprocess_alive(self) -> None:
        """Replace those that have died."""
        super().keep_subprocess_alive()
        self._leave_their_ends()

    def _leave_their_ends(self) -> None:
        """Only who holds a pipe's other end alone is told when it breaks: else a worker that dies before it answers is waited for."""
        for worker in self.processes:
            worker.child_conn.close()

    def terminate_all(self) -> None:
        """Tell the workers to stop; the socket is closed when the last of them has closed it."""
        self.signal_queue.clear()  # what comes from here on is one more: whoever sends it may have seen that they stop
        super().terminate_all()
        for one in self.sockets:
            one.close()

    def join_all(self) -> None:
        """Wait for the workers; one more signal makes them end at once."""
        while any(worker.process.is_alive() for worker in self.processes):
            if {signal.SIGTERM, signal.SIGINT}.intersection(self.signal_queue):
                self.signal_queue.clear()
                for worker in self.processes:
                    if worker.pid is not None and worker.process.is_alive():
                        os.kill(worker.pid, signal.SIGINT)
            time.sleep(_PAUSE_SECONDS)
        super().join_all()

    def handle_hup(self) -> None:
        """The terminal was closed in which all this was started."""
        self.handle_term()


def run_server(config: uvicorn.Config) -> None:
    """Serve until a signal ends it."""
    # uvicorn ends in order and then raises the signal once more, which would make an ordinary stop look like a crash.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    _ignore_hangups()
    if config.workers > 1:
        Supervisor(config, sockets=[config.bind_socket()]).run()
        return
    server = uvicorn.Server(config)
    try:
        # asyncio would keep IPv4 out of an IPv6 socket; the one that workers share takes both, where the system does not say otherwise.
        server.run([config.bind_socket()] if ":" in config.host else None)
    except KeyboardInterrupt:
        return
    if not server.started:
        sys.exit(FAILED_TO_START)


def _ignore_hangups() -> None:
    """But when a terminal is closed, what was started there ends."""
    if sys.stdin is None or not sys.stdin.isatty():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
