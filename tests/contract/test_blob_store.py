"""What every blob store must do, whatever it keeps the bytes in."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.blobs.disk import DiskBlobStore
from app.blobs.s3 import S3BlobStore
from app.blobs.store import READ_BYTES, BlobMissingError, BlobStore, FileBlob, RemoteBlob, StoredBlob
from app.core.clock import now
from tests.support.s3 import S3_KINDS, S3Server

pytestmark = pytest.mark.anyio

FUTURE = timedelta(seconds=5)
LARGE = random.Random(8).randbytes(3 * 1024 * 1024 + 17)


@dataclass(frozen=True, slots=True)
class Kind:
    """One implementation: how to make it, how its own addresses look, and how to count what it holds behind its back."""

    make: Callable[[], BlobStore]
    absent: str
    count: Callable[[], Awaitable[int]]


def count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


@pytest.fixture(params=["disk", *S3_KINDS])
async def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    if request.param == "disk":

        async def count() -> int:
            return count_files(tmp_path)

        return Kind(lambda: DiskBlobStore(tmp_path / "blobs"), f"disk:ab/ab{'0' * 30}", count)
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    bucket = await server.make_bucket()
    return Kind(lambda: S3BlobStore(bucket.options), f"s3:ab{'0' * 30}", bucket.count)


@asynccontextmanager
async def opened(store: BlobStore) -> AsyncIterator[BlobStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(kind: Kind) -> AsyncIterator[BlobStore]:
    async with opened(kind.make()) as store:
        yield store


async def put(store: BlobStore, *batches: bytes) -> StoredBlob:
    async with store.open_write() as writer:
        for batch in batches:
            await writer.write(batch)
        return await writer.finish()


async def give_up(store: BlobStore, *batches: bytes) -> None:
    async with store.open_write() as writer:
        for batch in batches:
            await writer.write(batch)
        raise ZeroDivisionError


async def read(store: BlobStore, uri: str) -> bytes:
    async with reading(await store.open_read(uri)) as blob:
        return bytes(await blob.read(1 << 30))


@asynccontextmanager
async def reading(blob: FileBlob | RemoteBlob) -> AsyncIterator[Any]:
    """A blob as what reads it, wherever it lies."""
    if isinstance(blob, FileBlob):
        async with anyio.wrap_file(blob.file) as file:
            yield file
        return
    async with blob.open() as reader:
        yield reader


async def older_than(store: BlobStore, age: timedelta) -> set[str]:
    return {uri async for batch in store.list_older_than(now() - age) for uri in batch}


@pytest.mark.parametrize(
    "batches",
    [(b"x",), (b"one", b"", b"two"), (bytearray(b"mutable"),), (LARGE[:1_000_000], LARGE[1_000_000:]), (LARGE,) * 5, ()],
    ids=["byte", "batches", "bytearray", "large", "parts", "nothing"],
)
async def test_what_goes_in_comes_out_with_its_size_and_checksum(store: BlobStore, batches: tuple[bytes, ...]) -> None:
    whole = b"".join(batches)
    blob = await put(store, *batches)
    assert (blob.size_bytes, blob.checksum) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert await read(store, blob.uri) == whole
    found = await store.open_read(blob.uri)
    assert found.size_bytes == len(whole)
    found.close()


async def test_the_same_bytes_twice_are_two_blobs(store: BlobStore) -> None:
    first, second = await put(store, b"same"), await put(store, b"same")
    assert first.uri != second.uri
    await store.delete(first.uri)
    assert await read(store, second.uri) == b"same"


async def test_many_writers_at_once_do_not_mix(store: BlobStore) -> None:
    contents = [random.Random(seed).randbytes(200_000 + seed) for seed in range(20)]
    blobs = await asyncio.gather(*(put(store, content[:70_000], content[70_000:]) for content in contents))
    assert len({blob.uri for blob in blobs}) == 20
    for blob, content in zip(blobs, contents, strict=True):
        assert await read(store, blob.uri) == content


@pytest.mark.parametrize("batches", [0, 1, 3])
async def test_leaving_without_finish_leaves_nothing(store: BlobStore, kind: Kind, batches: int) -> None:
    with suppress(ZeroDivisionError):
        await give_up(store, *[LARGE] * batches)
    assert await kind.count() == 0


async def test_a_writer_cancelled_at_any_moment_leaves_all_or_nothing(store: BlobStore, kind: Kind) -> None:
    finished: list[StoredBlob] = []

    async def write() -> None:
        async with store.open_write() as writer:
            await writer.write(LARGE)
            await writer.write(LARGE)
            finished.append(await writer.finish())

    for milliseconds in (0, 0.5, 1, 2, 4, 6, 8, 10, 12, 15, 18, 22, 26, 30, 40, 60, 90, 130, 200):
        task = asyncio.create_task(write())
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        await asyncio.wait([task])
        assert await kind.count() == len(finished)


async def test_a_blob_has_no_address_before_it_is_finished(store: BlobStore) -> None:
    async with store.open_write() as writer:
        await writer.write(b"half")
        await writer.write(b"")
        unfinished = await older_than(store, -FUTURE)
        blob = await writer.finish()
    assert blob.uri not in unfinished
    assert await older_than(store, -FUTURE) == {blob.uri}


async def test_deleting_twice_is_harmless(store: BlobStore, kind: Kind) -> None:
    blob = await put(store, b"gone")
    await store.delete(blob.uri)
    await store.delete(blob.uri)
    assert await kind.count() == 0


async def test_a_blob_that_is_being_read_can_be_deleted_and_read_to_its_end(store: BlobStore) -> None:
    blob = await put(store, LARGE)
    async with reading(await store.open_read(blob.uri)) as file:
        start = await file.read(READ_BYTES)
        await store.delete(blob.uri)
        assert start + await file.read(1 << 30) == LARGE


async def test_any_place_can_be_read(store: BlobStore) -> None:
    blob = await put(store, LARGE, LARGE)
    async with reading(await store.open_read(blob.uri)) as file:
        for place, size in [(0, 10), (10, 10), (5, READ_BYTES), (4_000_000, 3), (5 + READ_BYTES, READ_BYTES), (2 * len(LARGE) - 3, 9)]:
            await file.seek(place)
            assert await file.read(size) == (LARGE * 2)[place : place + size]
        assert await file.read(1) == b""


async def test_missing_bytes_are_an_error_of_their_own(store: BlobStore, kind: Kind) -> None:
    with pytest.raises(BlobMissingError):
        await store.open_read(kind.absent)
    blob = await put(store, b"gone")
    await store.delete(blob.uri)
    with pytest.raises(BlobMissingError) as raised:
        await store.open_read(blob.uri)
    assert blob.uri.partition(":")[2] not in str(raised.value)


FOREIGN = [
    "",
    "disk:",
    "disk:../../etc/passwd",
    "disk:/etc/passwd",
    "disk:et/etc",
    "disk:ab/../../outside",
    "disk:incoming/../../outside",
    "disk:ab/ab" + "0" * 300,
    "disk:ab/cd" + "0" * 30,
    "disk:AB/AB" + "0" * 30,
    "disk:ab/ab" + "0" * 29 + "\n",
    "disk:ab/ab" + "0" * 29 + "٣",
    "disk:ab/ab\x00" + "0" * 29,
    "file:///etc/passwd",
    "ftp:ab/ab" + "0" * 30,
    "s4:bucket/key",
    "s3:",
    "s3:" + "0" * 31,
    "s3:" + "0" * 33,
    "s3:AB" + "0" * 30,
    "s3:ab" + "0" * 30 + "/",
    "s3:ab" + "0" * 30 + "\n",
    "s3:ab" + "0" * 29 + "٣",
    "s3:../" + "0" * 29,
]


async def test_a_foreign_address_names_nothing(store: BlobStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"keep")
    for address in FOREIGN:
        with pytest.raises(BlobMissingError):
            await store.open_read(address)
        with pytest.raises(BlobMissingError):
            await store.delete(address)
    assert outside.read_bytes() == b"keep"


async def test_old_blobs_and_unfinished_ones_are_listed_and_young_ones_not(store: BlobStore) -> None:
    first, second = await put(store, b"1"), await put(store, b"2")
    async with store.open_write() as writer:
        for batch in (LARGE, LARGE, b""):  # a smaller one would not have left the process for S3
            await writer.write(batch)
        assert await older_than(store, timedelta(hours=1)) == set()
        listed = await older_than(store, -FUTURE)
        assert {first.uri, second.uri} < listed
        assert len(listed) == 3
        (unfinished,) = listed - {first.uri, second.uri}
        await store.delete(unfinished)
        assert await older_than(store, -FUTURE) == {first.uri, second.uri}


async def test_a_long_list_comes_in_batches(store: BlobStore) -> None:
    at_once = asyncio.Semaphore(8)

    async def put_one(number: int) -> StoredBlob:
        async with at_once:
            return await put(store, b"%d" % number)

    blobs = await asyncio.gather(*(put_one(number) for number in range(520)))
    batches = [batch async for batch in store.list_older_than(now() + FUTURE)]
    assert [len(batch) for batch in batches] == [500, 20]
    assert {uri for batch in batches for uri in batch} == {blob.uri for blob in blobs}


async def test_blobs_outlive_the_process(kind: Kind) -> None:
    async with opened(kind.make()) as store:
        blob = await put(store, LARGE)
    async with opened(kind.make()) as store:
        assert await read(store, blob.uri) == LARGE


async def test_a_check_of_a_healthy_store_leaves_nothing(store: BlobStore, kind: Kind) -> None:
    await store.check()
    await store.ping()
    assert await kind.count() == 0


async def test_a_mark_is_what_was_written_last_and_outlives_the_process(kind: Kind) -> None:
    async with opened(kind.make()) as store:
        assert await store.read_mark() is None
        await store.write_mark("one")
        assert await store.read_mark() == "one"
        await store.write_mark("another")
    async with opened(kind.make()) as store:
        assert await store.read_mark() == "another"
        await store.ping()


async def test_a_mark_is_no_blob(store: BlobStore) -> None:
    await store.write_mark("mark")
    assert await older_than(store, -FUTURE) == set()
    blob = await put(store, b"content")
    assert await older_than(store, -FUTURE) == {blob.uri}
    for address in ("disk:installation", "s3:installation"):
        with pytest.raises(BlobMissingError):
            await store.open_read(address)
        with pytest.raises(BlobMissingError):
            await store.delete(address)
    assert await store.read_mark() == "mark"


async def test_many_write_the_mark_at_once_and_one_of_theirs_is_there(store: BlobStore) -> None:
    await asyncio.gather(*(store.write_mark(f"mark {number}") for number in range(10)))
    assert await store.read_mark() in {f"mark {number}" for number in range(10)}
    assert await older_than(store, -FUTURE) == set()
