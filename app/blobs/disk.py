"""Blobs as files: written beside their final place, synced, renamed, and the folder synced."""

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import uuid4

from app.blobs.store import MARK, MARK_BYTES, BlobMissingError, BlobStoreError, FileBlob, StoredBlob, StoreFullError

SCHEME = "disk"
LIST_BATCH = 500
SYNC_EACH_BYTES = 16 * 1024 * 1024
_NAME = re.compile(r"[0-9a-f]{32}")
_FULL = {errno.ENOSPC, errno.EDQUOT}

Result = TypeVar("Result")


class DiskBlobStore:
    """Implements ``BlobStore`` in a folder. A blob's name is random; nothing a client sends is part of a path.

    ``objects/ab/<uuid>`` are blobs, ``incoming/<uuid>`` are uploads on their way, ``installation`` is the mark; all lie in one
    file system, so a rename is atomic. Hashing and writing run in threads, because both release the interpreter. Large blobs are synced
    while they are written: else the disk would begin when the last byte has come, and whoever sent it would wait for all of it.
    """

    def __init__(self, base_path: Path, *, threads: int = 4) -> None:
        self._objects = base_path / "objects"
        self._incoming = base_path / "incoming"
        self._mark = base_path / MARK
        self._durable_folders: set[str] = set()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="blobs")
        self._syncs = ThreadPoolExecutor(1, thread_name_prefix="blob-syncs")  # no thread that hashes waits for the disk

    async def open(self) -> None:
        """See ``BlobStore.open``: creates the folders and proves that they take writes."""
        await self.run(self._make_folders)
        await self.check()

    async def aclose(self) -> None:
        """See ``BlobStore.aclose``."""
        self._threads.shutdown(wait=True)
        self._syncs.shutdown(wait=True)

    @asynccontextmanager
    async def open_write(self) -> AsyncIterator["DiskBlobWriter"]:
        """See ``BlobStore.open_write``."""
        name = uuid4().hex
        writer = DiskBlobWriter(self, self._incoming / name, self._objects / name[:2] / name)
        try:
            yield writer
        finally:
            await writer.aclose()

    async def open_read(self, uri: str) -> FileBlob:
        """See ``BlobStore.open_read``."""
        path = self._path_of(uri)
        return FileBlob(await self.run(lambda: _open_file(path)))

    async def delete(self, uri: str) -> None:
        """See ``BlobStore.delete``."""
        await self.run(lambda: self._path_of(uri).unlink(missing_ok=True))

    async def list_older_than(self, moment: datetime) -> AsyncIterator[list[str]]:
        """See ``BlobStore.list_older_than``."""
        files = self._old_files(moment.timestamp())
        while batch := await self.run(lambda: list(islice(files, LIST_BATCH))):
            yield batch

    async def read_mark(self) -> str | None:
        """See ``BlobStore.read_mark``."""
        return await self.run(self._read_mark)

    async def write_mark(self, mark: str) -> None:
        """See ``BlobStore.write_mark``."""
        await self.run(lambda: self._write_mark(mark))

    async def check(self) -> None:
        """See ``BlobStore.check``."""
        async with self.open_write() as writer:
            await writer.write(b"ready?")
            await writer.write(b"")  # waits for the first, and raises what it met

    async def ping(self) -> None:
        """See ``BlobStore.ping``: a file that is written and removed leaves no trace."""
        await self.check()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do file work in a thread; the operating system's complaints become errors of the port."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            if error.errno in _FULL:
                raise StoreFullError("the store is full") from error
            raise BlobStoreError(f"the store failed: {os.strerror(error.errno or 0)}") from error

    def begin_sync(self, descriptor: int) -> Future[None]:
        """Have what was written so far brought to the disk, behind the back of who writes on. The file stays open meanwhile."""
        return self._syncs.submit(os.fsync, descriptor)

    def make_object_folder(self, folder: Path) -> None:
        """Create a folder of ``objects``; each process makes sure by itself that it outlives a crash before it relies on it."""
        folder.mkdir(exist_ok=True)  # whoever tidies up may have removed an empty one
        if folder.name not in self._durable_folders:
            _sync_folder(folder.parent)
            self._durable_folders.add(folder.name)

    def _make_folders(self) -> None:
        for folder in (self._objects, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(self._objects.parent)

    def _read_mark(self) -> str | None:
        try:
            with self._mark.open("rb") as file:
                return file.read(MARK_BYTES).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None

    def _write_mark(self, mark: str) -> None:
        temporary = self._mark.with_name(f"{MARK}.{uuid4().hex}")  # in no folder of contents: an empty store is one without any
        try:
            with temporary.open("xb") as file:
                file.write(f"{mark}\n".encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._mark)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(self._mark.parent)

    def _path_of(self, uri: str) -> Path:
        scheme, _, key = uri.partition(":")
        folder, _, name = key.partition("/")
        if scheme == SCHEME and _NAME.fullmatch(name):
            if folder == name[:2]:
                return self._objects / folder / name
            if folder == self._incoming.name:
                return self._incoming / name
        raise BlobMissingError("the content is not in this store")

    def _old_files(self, before: float) -> Iterator[str]:
        for folder in (self._incoming, *sorted(self._objects.iterdir())):
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not _NAME.fullmatch(entry.name):
                        continue  # nothing of ours
                    try:
                        is_old = entry.stat().st_mtime < before
                    except FileNotFoundError:
                        continue
                    if is_old:
                        yield f"{SCHEME}:{folder.name}/{entry.name}"


class DiskBlobWriter:
    """Implements ``BlobWriter``: one batch is hashed and written in a thread while the next is received."""

    def __init__(self, store: DiskBlobStore, temporary: Path, final: Path) -> None:
        self._store = store
        self._temporary = temporary
        self._final = final
        self._digest = hashlib.sha256()
        self._size = 0
        self._sync_at = SYNC_EACH_BYTES
        self._syncing: Future[None] | None = None
        self._descriptor: int | None = None
        self._has_file = False
        self._is_finished = False
        self._under_way: asyncio.Task[None] | None = None

    async def write(self, batch: bytes | memoryview) -> None:
        """See ``BlobWriter.write``."""
        await self._settle()
        self._under_way = asyncio.create_task(self._store.run(lambda: self._append_and_sync(batch)))

    async def finish(self, batch: bytes | memoryview = b"") -> StoredBlob:
        """See ``BlobWriter.finish``."""
        await self._settle()
        self._under_way = asyncio.create_task(self._store.run(lambda: self._publish(batch)))
        await self._settle()
        self._is_finished = True
        return StoredBlob(f"{SCHEME}:{self._final.parent.name}/{self._final.name}", self._size, self._digest.hexdigest())

    async def aclose(self) -> None:
        """Remove what was not finished, also when nobody waits until it is."""
        if not self._is_finished:
            await asyncio.shield(self._give_up())

    async def _give_up(self) -> None:
        if self._under_way is not None:
            await asyncio.wait([self._under_way])
            self._under_way.exception()  # whoever left the block has an error of his own to tell
        if self._has_file:
            await self._store.run(self._discard)

    async def _settle(self) -> None:
        if self._under_way is not None:
            # A caller that is cancelled must leave aclose something to wait for: the thread goes on.
            await asyncio.shield(self._under_way)
            self._under_way = None

    def _append(self, batch: bytes | memoryview) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            self._has_file = True
        self._digest.update(batch)
        rest = memoryview(batch)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._size += len(batch)

    def _append_and_sync(self, batch: bytes | memoryview) -> None:
        """As long as more is to come: with the last of it everything is synced anyhow."""
        self._append(batch)
        if self._descriptor is not None and self._size >= self._sync_at and (self._syncing is None or self._syncing.done()):
            self._end_sync()
            self._sync_at = self._size + SYNC_EACH_BYTES
            self._syncing = self._store.begin_sync(self._descriptor)

    def _end_sync(self) -> None:
        """Wait for the sync that has begun. What it met has to be told here: of an error a file is told only once."""
        syncing, self._syncing = self._syncing, None
        if syncing is not None and not syncing.cancel():
            syncing.result()

    def _publish(self, batch: bytes | memoryview) -> None:
        self._append(batch)  # an empty blob has a file too
        self._end_sync()
        if self._descriptor is not None:
            os.fsync(self._descriptor)
        self._close()
        self._store.make_object_folder(self._final.parent)
        self._temporary.rename(self._final)
        _sync_folder(self._final.parent)

    def _discard(self) -> None:
        try:
            with suppress(OSError):  # what it met concerns nobody now, but until it ends the descriptor is its
                self._end_sync()
            self._close()
        finally:
            for path in (self._temporary, self._final):
                path.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise BlobMissingError("the content is missing from the store") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
