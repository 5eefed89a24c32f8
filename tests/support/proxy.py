"""Stands between the service and a server that it needs, and misbehaves on demand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any


def canned(status: str, body: bytes) -> bytes:
    """An answer after which the connection ends."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


SLOW_DOWN = canned("503 Slow Down", b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code><Message>less</Message></Error>")


class Proxy:
    """Passes bytes on; but the next connections get the ``answers``, if there are any, and the next ``cuts`` long answers are cut off.

    It falls silent when it is told to, or when all of ``silent_at`` has been asked on one connection, one after the other: then nothing
    comes through any more, not even that a connection has ended, and none breaks. What was asked last comes through if it is to be
    ``heard``: then it is the answer that is missing.
    """

    def __init__(self, port: int) -> None:
        self.endpoint = ""
        self.port = 0
        self.connections = 0
        self.answers: list[bytes] = []
        self.cuts = 0
        self.cut_after = 1_000_000
        self.silent_at: list[bytes] = []
        self.heard = False
        self.silence = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._upstream = port
        self._open: set[asyncio.StreamWriter] = set()
        self._conversations: set[asyncio.Future[Any]] = set()

    def cut(self) -> int:
        """Reset every connection, wherever in a conversation it is; how many there were."""
        found = len(self._open)
        for writer in self._open:
            writer.transport.abort()
        return found

    def fall_silent(self) -> None:
        """Keep whatever comes."""
        self._flowing.clear()
        self.silence.set()

    def speak(self, *, forgetting: bool = False) -> None:
        """Pass it on at last; or forget every connection there is, so that only new ones get through."""
        self.silence.clear()
        if forgetting:
            self._flowing = asyncio.Event()
        self._flowing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the service."""
        self.connections += 1
        if self.answers:
            with suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answers.pop(0))
                await writer.drain()
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._open |= {writer, up_writer}
        passing = self._pass(reader, up_writer, self._flowing), self._pass_answer(up_reader, writer, self._flowing)
        conversation = asyncio.gather(*passing)
        self._conversations.add(conversation)
        try:
            with suppress(asyncio.CancelledError):
                await conversation
        finally:
            self._open -= {writer, up_writer}
            self._conversations.discard(conversation)
            for one in (writer, up_writer):
                one.close()

    async def end(self) -> None:
        """End every connection."""
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        asked = 0
        with suppress(OSError):
            while data := await source.read(65536):
                if self.silent_at[asked:] and self.silent_at[asked] in data:
                    asked += 1
                    if asked == len(self.silent_at):
                        self.fall_silent()
                        if self.heard:
                            target.write(data)
                            data = b""
                await flowing.wait()
                target.write(data)
                await target.drain()
        await flowing.wait()
        target.close()

    async def _pass_answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        passed = 0
        with suppress(OSError):
            while data := await source.read(65536):
                await flowing.wait()
                target.write(data)
                await target.drain()
                passed += len(data)
                if self.cuts and passed >= self.cut_after:
                    self.cuts -= 1
                    break
        await flowing.wait()
        target.close()


@asynccontextmanager
async def run_proxy(port: int) -> AsyncIterator[Proxy]:
    """A proxy before that port of this machine."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    proxy.endpoint = f"http://127.0.0.1:{proxy.port}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
