"""The bytes of the reference's documents, and their way into our store: none arrives that is not what its checksum says."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Protocol

from app.blobs.store import BlobStore
from app.reference.source import SourceError
from app.reference.values import RottenRowError

READ_BYTES: Final = 1024 * 1024
_S3: Final = "s3://"


class Contents(Protocol):
    """Where the reference keeps bytes, by the key that stands in the row."""

    def read(self, key: str) -> AsyncIterator[bytes]:
        """The bytes, piece by piece.

        Raises:
            RottenRowError: they cannot be had.
        """


class FolderContents:
    """Implements ``Contents`` for the reference's local storage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See ``Contents.read``. A part of the key is what a client named the file: it leads nowhere else."""
        try:
            path = (self._folder / key).resolve()
            if not path.is_relative_to(self._folder):
                raise RottenRowError("its bytes are said to lie outside the storage")
            file = await asyncio.to_thread(path.open, "rb")
        except (OSError, ValueError, RuntimeError):  # for a name no file can have, and for links in a circle
            raise RottenRowError("its bytes are missing") from None
        with file:
            try:
                while piece := await asyncio.to_thread(file.read, READ_BYTES):
                    yield piece
            except OSError:
                raise RottenRowError("its bytes cannot be read") from None


def open_contents(place: str) -> Contents:
    """The storage at a place.

    Raises:
        SourceError: there is none, or it is of a kind that cannot be read.
    """
    if place.startswith(_S3):
        raise SourceError("contents in S3 cannot be read: copy the bucket (below its prefix) into a folder, and name that")
    folder = Path(place)
    if not folder.is_dir():
        raise SourceError("there is no such folder of documents")
    return FolderContents(folder)


class Copier:
    """Takes bytes over into our store; in a dry run it reads and compares them only."""

    def __init__(self, contents: Contents, store: BlobStore, *, is_dry_run: bool) -> None:
        self._contents = contents
        self._store = store
        self._is_dry_run = is_dry_run

    async def copy(self, key: str, checksum: str, size_bytes: int) -> str:
        """Take one content over; returns its new address.

        Raises:
            RottenRowError: it is missing, or not what it should be; then nothing is kept of it.
            BlobStoreError: our store does not take it.
        """
        if self._is_dry_run:
            digest, size = hashlib.sha256(), 0
            async for piece in self._contents.read(key):
                await asyncio.to_thread(digest.update, piece)
                size += len(piece)
            _compare((digest.hexdigest(), size), (checksum, size_bytes))
            return ""
        async with self._store.open_write() as writer:
            async for piece in self._contents.read(key):
                await writer.write(piece)
            blob = await writer.finish()
        try:
            _compare((blob.checksum, blob.size_bytes), (checksum, size_bytes))
        except RottenRowError:
            await self._store.delete(blob.uri)
            raise
        return blob.uri


def _compare(found: tuple[str, int], told: tuple[str, int]) -> None:
    if found != told:
        raise RottenRowError("its bytes are not those that were uploaded: their size or their checksum is another")
