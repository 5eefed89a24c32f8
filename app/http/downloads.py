"""Bytes on their way out: whole, ranged or not at all, by Starlette's own file response."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import anyio
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from app.blobs.store import FileBlob
from app.http.conditional import matches_weakly
from app.http.problems import make_problem

CHUNK_BYTES = 1024 * 1024
_ATTR_CHARS = "!#$&+-.^_`|~"  # RFC 8187: what need not be escaped, beside letters and digits


class BlobResponse(FileResponse):
    """A stored file: ``ETag`` is its SHA-256, so it never changes under an address; HEAD, Range and If-None-Match work."""

    chunk_size = CHUNK_BYTES  # four times the rate of the 64 KiB default

    def __init__(self, blob: FileBlob, *, name: str, media_type: str, checksum: str) -> None:
        self._etag = f'"{checksum}"'
        headers = {
            "ETag": self._etag,
            "Content-Disposition": content_disposition(name),
            "Cache-Control": "private, no-cache",
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        self._file = blob.file
        stat_result = os.fstat(self._file.fileno())
        super().__init__(self._file.name, headers=headers, media_type=media_type, stat_result=stat_result)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Errors of the range are told as problems, like every other error."""
        with self._file:
            await self._send(scope, receive, send)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[anyio.AsyncFile[bytes]]:
        # Starlette would open the path now, after the headers: if the document was deleted meanwhile, the connection would be cut.
        yield anyio.wrap_file(self._file)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = Headers(scope=scope).get("if-none-match")
        if known is not None and matches_weakly(known, self._etag):
            await Response(status_code=304, headers={"ETag": self._etag})(scope, receive, send)
            return
        if _has_foreign_unit(Headers(scope=scope).get("range", "")):
            scope = {**scope, "headers": [(key, value) for key, value in scope["headers"] if key != b"range"]}
        refused: dict[str, Any] = {}

        async def send_or_tell(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:  # noqa: PLR2004 - refused
                refused.update(message)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, send_or_tell)
        if refused:
            await _range_problem(scope, refused)(scope, receive, send)


def content_disposition(name: str) -> str:
    """An attachment under that name (RFC 6266): an ASCII form for old clients, the exact one in ``filename*`` (RFC 8187)."""
    plain = "".join(letter if " " <= letter <= "~" and letter not in '"\\%/;' else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"


def _has_foreign_unit(header: str) -> bool:
    """Whether a ``Range`` counts something else than bytes; such a header is to be ignored (RFC 9110, section 14.2)."""
    unit, is_sign, _ = header.partition("=")
    return bool(is_sign) and unit.strip().lower() != "bytes"


def _range_problem(scope: Scope, refused: dict[str, Any]) -> Response:
    headers = {key.decode(): value.decode() for key, value in refused["headers"] if key == b"content-range"}
    if refused["status"] == 416:  # noqa: PLR2004
        return make_problem(scope, 416, None, "The range lies outside the content.", headers=headers)
    return make_problem(scope, 400, None, "The Range header cannot be understood.")
