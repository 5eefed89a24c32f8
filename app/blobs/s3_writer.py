"""A blob on its way into a bucket: one PUT when it is small, else parts of equal size, a few of them under way at once."""

import asyncio
import base64
import hashlib
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from app.blobs.s3_bucket import Part, S3Bucket
from app.blobs.store import BlobMissingError, BlobStoreError, StoredBlob

_log = logging.getLogger(__name__)

SCHEME: Final = "s3"
PARTS_UNDER_WAY: Final = 2
SETTLE_SECONDS: Final = 10
CLEAN_UP_SECONDS: Final = 30


def _new_md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


@dataclass(slots=True)
class _Buffer:
    """A part while it is filled; its MD5 is what the server compares."""

    data: io.BytesIO = field(default_factory=io.BytesIO)
    md5: Any = field(default_factory=_new_md5)
    size: int = 0

    @property
    def content_md5(self) -> str:
        return base64.b64encode(self.md5.digest()).decode()

    def rewound(self) -> io.BytesIO:
        """The bytes, to be read from their beginning."""
        self.data.truncate(self.size)  # of a part before, which may have been longer
        self.data.seek(0)
        return self.data

    def clear(self) -> None:
        """Get ready for another part; the memory is kept."""
        self.data.seek(0)
        self.md5, self.size = _new_md5(), 0


class S3BlobWriter:
    """Implements ``BlobWriter``. Holds one part that is being filled and at most ``PARTS_UNDER_WAY`` that are being sent."""

    def __init__(self, bucket: S3Bucket, threads: ThreadPoolExecutor, part_bytes: int) -> None:
        self._bucket = bucket
        self._threads = threads
        self._part_bytes = part_bytes
        self._key = uuid4().hex
        self._digest = hashlib.sha256()
        self._size = 0
        self._buffer = _Buffer()
        self._free: list[_Buffer] = []  # a new one for each part would scatter the memory of a long upload
        self._upload_id: str | None = None
        self._sent = 0
        self._sending: set[asyncio.Task[Part]] = set()
        self._parts: list[Part] = []
        self._under_way: asyncio.Task[None] | None = None
        self._may_exist = False
        self._is_finished = False

    async def write(self, batch: bytes | memoryview) -> None:
        """See ``BlobWriter.write``."""
        await self._settle()
        self._under_way = asyncio.create_task(self._take(batch))

    async def finish(self, batch: bytes | memoryview = b"") -> StoredBlob:
        """See ``BlobWriter.finish``."""
        await self.write(batch)
        await self._settle()
        self._under_way = asyncio.create_task(self._publish())
        await self._settle()
        self._is_finished = True
        return StoredBlob(f"{SCHEME}:{self._key}", self._size, self._digest.hexdigest())

    async def discard(self) -> None:
        """Remove what was not finished; what cannot be removed now is the sweeper's. Takes bounded time and raises nothing."""
        if self._is_finished:
            return
        # What is being sent ends first: a part or an object that arrives behind its removal would stay.
        if self._under_way is not None:
            await _end(self._under_way)
        for task in self._sending:
            await _end(task)
        try:
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                if self._upload_id is not None:
                    await self._bucket.abort(self._key, self._upload_id)
                if self._may_exist:
                    await self._bucket.delete(self._key)
        except (BlobStoreError, TimeoutError):
            _log.warning("an upload that failed could not be removed; the sweeper will")

    async def _settle(self) -> None:
        if self._under_way is not None:
            # A caller that is cancelled must leave discard something to wait for: the request may reach the server all the same.
            await asyncio.shield(self._under_way)
            self._under_way = None

    async def _take(self, batch: bytes | memoryview) -> None:
        rest = memoryview(batch)
        while rest:
            if self._buffer.size == self._part_bytes:
                await self._send_part()
            room = self._part_bytes - self._buffer.size
            piece, rest = rest[:room], rest[room:]
            await asyncio.get_running_loop().run_in_executor(self._threads, self._fill, self._buffer, piece)
            self._size += len(piece)

    def _fill(self, buffer: _Buffer, piece: memoryview) -> None:
        self._digest.update(piece)
        buffer.md5.update(piece)
        buffer.data.write(piece)
        buffer.size += len(piece)

    async def _send_part(self) -> None:
        if self._upload_id is None:
            self._upload_id = await self._bucket.begin(self._key)
        if len(self._sending) >= PARTS_UNDER_WAY:
            await self._collect(asyncio.FIRST_COMPLETED)
        self._sent += 1
        self._sending.add(asyncio.create_task(self._put_part(self._upload_id, self._sent, self._buffer)))
        self._buffer = self._free.pop() if self._free else _Buffer()

    async def _put_part(self, upload_id: str, number: int, buffer: _Buffer) -> Part:
        part = await self._bucket.put_part(self._key, upload_id, number, buffer.rewound(), buffer.content_md5)
        buffer.clear()
        self._free.append(buffer)
        return part

    async def _collect(self, when: str) -> None:
        done, self._sending = await asyncio.wait(self._sending, return_when=when)
        self._parts += await asyncio.gather(*done)

    async def _publish(self) -> None:
        self._may_exist = True
        if self._upload_id is None:
            await self._bucket.put(self._key, self._buffer.rewound(), self._buffer.content_md5)
            return
        if self._buffer.size:
            await self._send_part()
        await self._collect(asyncio.ALL_COMPLETED)
        try:
            await self._bucket.complete(self._key, self._upload_id, sorted(self._parts, key=lambda part: part.number))
        except BlobMissingError:  # an attempt whose answer was lost may have done it: the object tells
            _log.info("a multipart upload was gone when it was to be completed; looking for its object")
        size, _ = await self._bucket.head(self._key)
        if size != self._size:
            raise BlobStoreError("the store has kept another number of bytes")


async def _end(task: asyncio.Task[Any]) -> None:
    """Wait for what may take that long, then cancel it; whoever left the block has an error of his own to tell."""
    await asyncio.wait([task], timeout=SETTLE_SECONDS)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
