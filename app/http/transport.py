"""An answer leaves in one piece: its head with the beginning of its body."""

import asyncio
from typing import Any, Protocol


class Serving(Protocol):
    """The connection, as far as it tells what is being answered."""

    cycle: Any


class WholeAnswers:
    """A transport that keeps the head of an answer until the first part of the body is written.

    uvicorn writes the two apart, and uvloop sends each write at once: that would be two packets for every answer, and a process that is
    killed between them would leave a client with a head that promises what never comes.
    """

    def __init__(self, transport: asyncio.Transport, serving: Serving) -> None:
        self._transport = transport
        self._serving = serving
        self._answered: Any = None  # the request whose head was written last
        self._head: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep a head; send everything else, behind the head that waits."""
        head, cycle = self._head, self._serving.cycle
        if head is not None:
            self._head = None
            self._transport.write(head + data)
        elif cycle is not self._answered and cycle.response_started and cycle.scope["method"] != "HEAD":
            self._answered, self._head = cycle, data
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send a head that waits, and close."""
        if self._head is not None:
            self.write(b"")
        self._transport.close()
