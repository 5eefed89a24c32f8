"""Bytes on their way out: whole, ranged, redirected or not at all, by Starlette's own file response."""

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any
from urllib.parse import quote

import anyio
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from app.blobs.store import READ_BYTES, BlobMissingError, FileBlob, RemoteBlob
from app.core.errors import NotFoundError
from app.http.conditional import matches_weakly
from app.http.problems import make_problem

_ATTR_CHARS = "!#$&+-.^_`|~"  # RFC 8187: what need not be escaped, beside letters and digits


class BlobResponse(FileResponse):
    """A stored blob: ``ETag`` is its SHA-256, so it never changes under an address; HEAD, Range and If-None-Match work.

    Starlette's own file response sends it. What comes from another machine is read like a file; nothing is sent before its first
    bytes are there, so that an error still has an answer of its own.
    """

    chunk_size = READ_BYTES  # four times the rate of the 64 KiB default

    def __init__(self, blob: FileBlob | RemoteBlob, *, name: str, media_type: str, checksum: str) -> None:
        self._etag = f'"{checksum}"'
        self._disposition = content_disposition(name)
        headers = {
            "ETag": self._etag,
            "Content-Disposition": self._disposition,
            "Cache-Control": "private, no-cache",
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        self._blob = blob
        super().__init__("", headers=headers, media_type=media_type, stat_result=_stat(blob))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Errors of the range are told as problems, like every other error.

        Raises:
            NotFoundError: it was there when the request came, and is deleted meanwhile.
            BlobStoreError: the store cannot give it now.
        """
        with closing(self._blob):
            await self._send(scope, receive, send)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[Any]:
        if isinstance(self._blob, FileBlob):
            # Starlette would open the path now, after the headers: if the document was deleted meanwhile, the connection would be cut.
            yield anyio.wrap_file(self._blob.file)
            return
        async with self._blob.open() as reader:
            yield reader

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = Headers(scope=scope).get("if-none-match")
        if known is not None and matches_weakly(known, self._etag):
            await Response(status_code=304, headers={"ETag": self._etag})(scope, receive, send)
            return
        if _has_foreign_unit(Headers(scope=scope).get("range", "")):
            scope = {**scope, "headers": [(key, value) for key, value in scope["headers"] if key != b"range"]}
        if await self._redirect(scope, receive, send):
            return
        answer = _HeldAnswer(send)
        try:
            await super().__call__(scope, receive, answer.send)
        except BlobMissingError:
            if answer.has_begun:
                raise
            raise NotFoundError from None
        if answer.refusal is not None:
            await _range_problem(scope, answer.refusal)(scope, receive, send)

    async def _redirect(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Send a GET to the store, if it wants that. A HEAD is answered here: the signature is for one method."""
        if isinstance(self._blob, FileBlob) or scope["method"] != "GET":
            return False
        address = await self._blob.address_for(self._disposition, self.headers["content-type"])
        if address is None:
            return False
        # Whoever has the address can read the content, so no cache may keep it.
        headers = {"Location": address, "ETag": self._etag, "Cache-Control": "private, no-store"}
        await Response(status_code=307, headers=headers)(scope, receive, send)
        return True


class _HeldAnswer:
    """Starlette's answer on its way: held back until the first of its body is there, and for good when it is a refusal."""

    def __init__(self, send: Send) -> None:
        self.refusal: Message | None = None
        self.has_begun = False
        self._send = send
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """Stands in for the server's ``send``."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400:  # noqa: PLR2004 - refused
                self.refusal = message
            else:
                self._start = message
            return
        if self.refusal is not None:
            return
        if self._start is not None:
            start, self._start, self.has_begun = self._start, None, True
            await self._send(start)
        await self._send(message)


def _stat(blob: FileBlob | RemoteBlob) -> os.stat_result:
    if isinstance(blob, FileBlob):
        return os.fstat(blob.file.fileno())
    moment = int(blob.modified_at.timestamp())
    return os.stat_result((stat.S_IFREG, 0, 0, 1, 0, 0, blob.size_bytes, moment, moment, moment))


def content_disposition(name: str) -> str:
    """An attachment under that name (RFC 6266): an ASCII form for old clients, the exact one in ``filename*`` (RFC 8187)."""
    plain = "".join(letter if " " <= letter <= "~" and letter not in '"\\%/;' else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"


def _has_foreign_unit(header: str) -> bool:
    """Whether a ``Range`` counts something else than bytes; such a header is to be ignored (RFC 9110, section 14.2)."""
    unit, is_sign, _ = header.partition("=")
    return bool(is_sign) and unit.strip().lower() != "bytes"


def _range_problem(scope: Scope, refused: Message) -> Response:
    headers = {key.decode(): value.decode() for key, value in refused["headers"] if key == b"content-range"}
    if refused["status"] == 416:  # noqa: PLR2004
        return make_problem(scope, 416, None, "The range lies outside the content.", headers=headers)
    return make_problem(scope, 400, None, "The Range header cannot be understood.")
