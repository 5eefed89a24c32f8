"""Blobs as objects of an S3 bucket."""

import asyncio
import base64
import hashlib
import io
import re
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final
from uuid import uuid4

from app.blobs.s3_bucket import Listed, S3Bucket, S3Options
from app.blobs.s3_reader import S3Blob
from app.blobs.s3_writer import SCHEME, S3BlobWriter
from app.blobs.store import MARK, MARK_BYTES, BlobMissingError, BlobStoreError

__all__ = ["S3BlobStore", "S3Options"]

LIST_BATCH: Final = 500
CHECK_SECONDS: Final = 5
PING_INTERVAL_SECONDS: Final = 5
_EMPTY_MD5: Final = "1B2M2Y8AsgTpgAmY7PhCfg=="
_NAME: Final = re.compile(r"[0-9a-f]{32}")
_ADDRESS: Final = re.compile(rf"{SCHEME}:([0-9a-f]{{32}})(?:/([!-~]+))?")


class S3BlobStore:
    """Implements ``BlobStore`` below the prefix of a bucket. A key is random; nothing a client sends is part of it.

    ``s3:<uuid>`` is a blob, ``s3:<uuid>/<upload id>`` a multipart upload on its way; the object ``installation`` is the mark.
    Neither bucket nor prefix is part of an address, so the objects can move to another place together.
    """

    def __init__(self, options: S3Options, *, threads: int = 4) -> None:
        self._options = options
        self._bucket = S3Bucket(options)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="blobs")
        self._discarding: set[asyncio.Task[None]] = set()
        self._pinging = asyncio.Lock()
        self._pinged_at = -float(PING_INTERVAL_SECONDS)
        self._fault: BlobStoreError | None = None

    async def open(self) -> None:
        """See ``BlobStore.open``: proves that the bucket takes writes."""
        await self._bucket.open()
        await self.check()

    async def aclose(self) -> None:
        """See ``BlobStore.aclose``; uploads that failed are removed first."""
        await asyncio.gather(*self._discarding)
        await self._bucket.aclose()
        self._threads.shutdown(wait=True)

    @asynccontextmanager
    async def open_write(self) -> AsyncIterator[S3BlobWriter]:
        """See ``BlobStore.open_write``."""
        writer = S3BlobWriter(self._bucket, self._threads, self._options.part_bytes)
        try:
            yield writer
        finally:
            # A task of its own: a request that is cancelled, twice even, removes what it began.
            task = asyncio.create_task(writer.discard())
            self._discarding.add(task)
            task.add_done_callback(self._discarding.discard)
            await asyncio.shield(task)

    async def open_read(self, uri: str) -> S3Blob:
        """See ``BlobStore.open_read``."""
        key, upload_id = _parse(uri)
        if upload_id is not None:
            raise BlobMissingError("the content is not whole")
        size, modified_at = await self._bucket.head(key)
        return S3Blob(self._bucket, key, size, modified_at, self._options.presign_seconds)

    async def delete(self, uri: str) -> None:
        """See ``BlobStore.delete``."""
        key, upload_id = _parse(uri)
        if upload_id is not None:
            await self._bucket.abort(key, upload_id)
        else:
            await self._bucket.delete(key)

    async def list_older_than(self, moment: datetime) -> AsyncIterator[list[str]]:
        """See ``BlobStore.list_older_than``."""
        batch: list[str] = []
        async for uri in self._old(moment):
            batch.append(uri)
            if len(batch) == LIST_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    async def read_mark(self) -> str | None:
        """See ``BlobStore.read_mark``."""
        try:
            return (await self._bucket.get_head(MARK, MARK_BYTES)).decode("ascii", "replace").strip()
        except BlobMissingError:
            return None

    async def write_mark(self, mark: str) -> None:
        """See ``BlobStore.write_mark``."""
        content = f"{mark}\n".encode("ascii")
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        await self._bucket.put(MARK, io.BytesIO(content), base64.b64encode(md5).decode())

    async def check(self) -> None:
        """See ``BlobStore.check``: writes an object and removes it."""
        key = uuid4().hex
        async with _answering_soon():
            await self._bucket.put(key, io.BytesIO(), _EMPTY_MD5)
            await self._bucket.delete(key)

    async def ping(self) -> None:
        """See ``BlobStore.ping``: reads the mark. Whoever asks again within seconds gets the last answer."""
        async with self._pinging:
            if time.monotonic() - self._pinged_at >= PING_INTERVAL_SECONDS:
                self._fault = await self._find_fault()
                self._pinged_at = time.monotonic()
            if self._fault is not None:
                raise BlobStoreError(str(self._fault), advice=self._fault.advice)

    async def _find_fault(self) -> BlobStoreError | None:
        try:
            async with _answering_soon():
                await self.read_mark()
        except BlobStoreError as error:
            return error
        return None

    async def _old(self, moment: datetime) -> AsyncIterator[str]:
        async for page in self._bucket.list_objects():
            for found in page:
                if _NAME.fullmatch(found.key) and found.moment < moment:
                    yield f"{SCHEME}:{found.key}"
        async for page in self._bucket.list_uploads():
            for found in page:
                if _NAME.fullmatch(found.key) and await self._is_idle(found, moment):
                    yield f"{SCHEME}:{found.key}/{found.upload_id}"

    async def _is_idle(self, upload: Listed, moment: datetime) -> bool:
        """Whether no part of it came since: one that was begun long ago may still be on its way."""
        if upload.moment >= moment:
            return False
        try:
            return await self._bucket.last_part_at(upload) < moment
        except BlobMissingError:
            return False  # ended meanwhile


@asynccontextmanager
async def _answering_soon() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            yield
    except TimeoutError:
        raise BlobStoreError("the store does not answer", advice=f"nothing came from S3 for {CHECK_SECONDS} s") from None


def _parse(uri: str) -> tuple[str, str | None]:
    found = _ADDRESS.fullmatch(uri)
    if found is None:
        raise BlobMissingError("the content is not in this store")
    return found.group(1), found.group(2)
