"""A blob on its way out of a bucket, fetched as it is read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.blobs.s3_bucket import Body, S3Bucket
from app.blobs.store import READ_BYTES, BlobStoreError

RESUMPTIONS: Final = 3


@dataclass(frozen=True, slots=True)
class S3Blob:
    """Implements ``RemoteBlob``: an object that was there a moment ago."""

    bucket: S3Bucket
    key: str
    size_bytes: int
    modified_at: datetime
    presign_seconds: int | None

    @asynccontextmanager
    async def open(self) -> AsyncIterator["S3Reader"]:
        """See ``RemoteBlob.open``."""
        reader = S3Reader(self)
        try:
            yield reader
        finally:
            reader.close()

    async def address_for(self, disposition: str, media_type: str) -> str | None:
        """See ``RemoteBlob.address_for``."""
        if self.presign_seconds is None:
            return None
        return await self.bucket.presign(self.key, disposition, media_type, self.presign_seconds)

    def close(self) -> None:
        """See ``RemoteBlob.close``: nothing is held yet."""


class S3Reader:
    """Implements ``BlobReader``. A connection that breaks is taken up again where it broke: an object never changes."""

    def __init__(self, blob: S3Blob) -> None:
        self._blob = blob
        self._place = 0
        self._body: Body | None = None
        self._resumptions = 0

    async def seek(self, place: int) -> None:
        """See ``BlobReader.seek``."""
        if place != self._place:
            self.close()
            self._place = place

    async def read(self, size: int) -> bytes:
        """See ``BlobReader.read``."""
        end = min(self._place + size, self._blob.size_bytes)
        data = bytearray()
        while self._place < end:
            if self._body is None:
                # Whoever asks for less than a whole batch wants no more; all others may want everything.
                last = self._blob.size_bytes if size >= READ_BYTES else end
                self._body = await self._blob.bucket.get(self._blob.key, self._place, last)
            piece = await self._next(self._body, end - self._place)
            self._place += len(piece)
            data += piece
        return bytes(data)

    def close(self) -> None:
        """Let go of the connection."""
        body, self._body = self._body, None
        if body is not None:
            body.close()

    async def _next(self, body: Body, size: int) -> bytes:
        try:
            if piece := await body.read(size):
                return piece
        except BlobStoreError:
            self._resumptions += 1
            if self._resumptions > RESUMPTIONS:
                raise
        self.close()  # broken, or a range that is read to its end
        return b""
