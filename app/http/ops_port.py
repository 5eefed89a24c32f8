"""A second port, for whoever runs the service: each worker process serves it beside the first, and all of them share it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from app.http.connection import PatientProtocol

_GRACE_SECONDS: Final = 5


class _SecondServer(uvicorn.Server):
    """Leaves signals to the first: what ends that one ends the application, and so this one."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket that takes connections; with ``shared``, beside those of other processes that have said so, too.

    Raises:
        OSError: there is no such address here, or it is taken.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(address)
        found.listen()
    except OSError:
        found.close()
        raise
    return found


@asynccontextmanager
async def serve_beside(app: ASGIApp, host: str, port: int) -> AsyncIterator[None]:
    """Serve an application while the block lasts.

    Raises:
        OSError: see ``listen``.
    """
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        lifespan="off",  # it has no life of its own
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _SecondServer(config)
    serving = asyncio.create_task(server.serve([listen(host, port, shared=True)]), name="operations port")
    try:
        yield
    finally:
        server.should_exit = True
        await serving
