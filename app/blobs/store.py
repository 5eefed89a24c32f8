"""The port of a blob store: where the bytes of documents lie."""

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final, Protocol

READ_BYTES: Final = 1024 * 1024
# The name of the mark, beside the blobs; none of them can have it. Of what stands there no more than this is read.
MARK: Final = "installation"
MARK_BYTES: Final = 64


class BlobStoreError(Exception):
    """The store cannot do what was asked; the message names no path and no key.

    ``advice`` is for whoever runs the service: what to look at. It stands in the log, and never in an answer.
    """

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


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

    def close(self) -> None:
        """Let go of it without reading it."""
        self.file.close()


class BlobReader(Protocol):
    """A place in the bytes, as a file has it."""

    async def seek(self, place: int) -> None:
        """Go on reading from there."""

    async def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end.

        Raises:
            BlobMissingError: they were there, and are gone.
            BlobStoreError: they cannot be had now.
        """


class RemoteBlob(Protocol):
    """Bytes on another machine, which are fetched as they are sent: nothing is held until somebody reads."""

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""

    @property
    def modified_at(self) -> datetime:
        """When they were written."""

    def open(self) -> AbstractAsyncContextManager[BlobReader]:
        """Read them. Reads of ``READ_BYTES`` are of one stream to the end, which a deletion does not cut; shorter ones of a range."""

    async def address_for(self, disposition: str, media_type: str) -> str | None:
        """A signed URL at which a client gets them with those headers for a short time; None when clients are not to be sent there."""

    def close(self) -> None:
        """Let go of it without reading it."""


class BlobWriter(Protocol):
    """One upload on its way in."""

    async def write(self, batch: bytes | memoryview) -> None:
        """Hash and store the next bytes. Returns while the store still reads the batch; the one before it is done with."""

    async def finish(self, batch: bytes | memoryview = b"") -> StoredBlob:
        """Hash and store the last bytes, and make all durable; only then do they have an address."""


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

    async def open_read(self, uri: str) -> FileBlob | RemoteBlob:
        """Where to read a blob.

        Raises:
            BlobMissingError: there are no such bytes.
        """

    async def delete(self, uri: str) -> None:
        """Remove a blob; harmless when it is gone."""

    def list_older_than(self, moment: datetime) -> AsyncIterator[list[str]]:
        """Batches of the addresses of everything last written before the moment, unfinished uploads included."""

    async def read_mark(self) -> str | None:
        """Whose the store is; None when it has no mark. One small read.

        Raises:
            BlobStoreError: it cannot be asked.
        """

    async def write_mark(self, mark: str) -> None:
        """Say whose the store is, in ASCII; durable, and in the place of another mark at once. The last that writes has said it."""

    async def check(self) -> None:
        """Prove that the store takes writes.

        Raises:
            BlobStoreError: it does not.
        """

    async def ping(self) -> None:
        """Ask whether the store works, as often as one likes: leaves no trace, in the versions of a bucket neither.

        Raises:
            BlobStoreError: it does not.
        """
