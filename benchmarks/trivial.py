"""A server that does nothing, to learn how fast the load tool can be: ``python -m benchmarks.trivial PORT``."""

import asyncio
import sys
from typing import cast

import uvloop

SMALL = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 302\r\n\r\n" + b'"' + b"x" * 300 + b'"'
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + bytes(1024 * 1024)


class _Trivial(asyncio.Protocol):
    def __init__(self) -> None:
        self._head = b""
        self._rest = -1  # bytes of the body still to come; below 0 while the head is read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if self._rest < 0:
            self._head += data
            head, end, begun = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            length = head.lower().partition(b"content-length:")[2].split(maxsplit=1)
            self._rest, data = int(length[0]) if length else 0, begun
        self._rest -= len(data)
        if self._rest <= 0:
            self._transport.write(LARGE if self._head.startswith(b"GET /large") else SMALL)
            self._head, self._rest = b"", -1


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Trivial, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
