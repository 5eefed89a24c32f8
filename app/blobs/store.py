"""The port of a blob store: where the bytes of documents lie."""

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol


class BlobStoreError(Exception):
    """The store cannot do what was asked; the message names no path and no key."""


class BlobMissingError(BlobStoreError):
    """The bytes are not there."""


class StoreFullError(BlobStoreError):
    """There is no room for the bytes."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Bytes that are durable: their address, how many, and their SHA-256 in hex."""

    uri: str
    size_bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class FileBlob:
    """Bytes in an open file of this machine, which the server can send by its fastest way. Whoever asked for it closes it.

    It is open so that it can be read to its end although the blob is deleted meanwhile.
    """

    file: BinaryIO

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""
        return os.fstat(self.file.fileno()).st_size


class BlobWriter(Protocol):
    """One upload on its way in."""

    async def write(self, batch: bytes | memoryview) -> None:
        """Hash and store the next bytes. Returns while the store still reads the batch; the one before it is done with."""

    async def finish(self) -> StoredBlob:
        """Make the bytes durable; only then do they have an address."""


class BlobStore(Protocol):
    """Keeps bytes under addresses (``scheme:key``) that it makes itself and that are never used twice."""

    async def open(self) -> None:
        """Get ready for work.

        Raises:
            BlobStoreError: the store cannot be used.
        """

    async def aclose(self) -> None:
        """Let go of everything."""

    def open_write(self) -> AbstractAsyncContextManager[BlobWriter]:
        """Take in one blob. Leaving the block without ``finish`` leaves nothing behind."""

    async def open_read(self, uri: str) -> FileBlob:
        """Where to read a blob.

        Raises:
            BlobMissingError: there are no such bytes.
        """

    async def delete(self, uri: str) -> None:
        """Remove a blob; harmless when it is gone."""

    def list_older_than(self, moment: datetime) -> AsyncIterator[list[str]]:
        """Batches of the addresses of everything last written before the moment, unfinished uploads included."""

    async def check(self) -> None:
        """Prove that the store takes writes.

        Raises:
            BlobStoreError: it does not.
        """
