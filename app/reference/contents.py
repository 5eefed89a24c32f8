"""The bytes of the reference's documents, and their way into our store: none arrives that is not what its checksum says."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from app.blobs.store import BlobMissingError, BlobStore, BlobStoreError
from app.reference.source import SourceError
from app.reference.values import RottenRowError

if TYPE_CHECKING:
    from app.blobs.s3_bucket import S3Bucket

READ_BYTES: Final = 1024 * 1024
MAX_KEY_BYTES: Final = 900  # S3 takes 1024, with the prefix
_S3: Final = "s3://"


@dataclass(frozen=True, slots=True)
class S3Server:
    """How to reach the server of ``s3://`` addresses; nothing given: Amazon's, with the keys of the environment or the machine."""

    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    path_style: bool = True


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


class BucketContents:
    """Implements ``Contents`` for the reference's storage in S3."""

    def __init__(self, bucket: "S3Bucket") -> None:
        self._bucket = bucket

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See ``Contents.read``.

        Raises:
            SourceError: the server cannot be asked; then nothing is known of any content.
        """
        from app.blobs.s3_reader import S3Blob  # noqa: PLC0415 - its library costs half a second and 40 MiB

        if not key or len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES or not key.isprintable():
            raise RottenRowError("its bytes are missing")  # no object has such a key
        try:
            size, written_at = await self._bucket.head(key)
            async with S3Blob(self._bucket, key, size, written_at, None).open() as reader:
                while piece := await reader.read(READ_BYTES):
                    yield piece
        except BlobMissingError:
            raise RottenRowError("its bytes are missing") from None
        except BlobStoreError as error:
            raise SourceError(f"the documents in S3 cannot be read: {error}") from None


@asynccontextmanager
async def open_contents(place: str, server: S3Server) -> AsyncIterator[Contents]:
    """The storage at a place: a folder, or ``s3://BUCKET/PREFIX`` on a server.

    Raises:
        SourceError: there is none.
    """
    if not place.startswith(_S3):
        folder = Path(place)
        if not await asyncio.to_thread(folder.is_dir):
            raise SourceError("there is no such folder of documents")
        yield FolderContents(folder)
        return
    from app.blobs.s3_bucket import S3Bucket, S3Options  # noqa: PLC0415 - see above

    name, _, prefix = place.removeprefix(_S3).partition("/")
    prefix = prefix.rstrip("/")
    if not name:
        raise SourceError("s3:// names no bucket: s3://BUCKET/PREFIX")
    bucket = S3Bucket(S3Options(name, f"{prefix}/" if prefix else "", **asdict(server)))
    try:
        await bucket.open()
        async for _ in bucket.list_objects():  # whether there is such a bucket, and whether it may be read
            break
    except BlobStoreError as error:
        await bucket.aclose()
        has_keys = server.access_key is not None and server.secret_key is not None
        advice = "" if has_keys else " (REFERENCE_S3_ACCESS_KEY and REFERENCE_S3_SECRET_KEY are not both set)"
        raise SourceError(f"the documents in S3 cannot be read: {error}{advice}") from None
    try:
        yield BucketContents(bucket)
    finally:
        await bucket.aclose()


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
