"""What every blob store must do, whatever it keeps the bytes in."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from app.blobs.disk import DiskBlobStore
from app.blobs.store import BlobMissingError, BlobStore, StoredBlob
from app.core.clock import now

pytestmark = pytest.mark.anyio

FUTURE = timedelta(seconds=5)
LARGE = random.Random(8).randbytes(3 * 1024 * 1024 + 17)


@dataclass(frozen=True, slots=True)
class Kind:
    """One implementation: how to make it, how its own addresses look, and how to count what it holds behind its back."""

    make: Callable[[Path], BlobStore]
    absent: str
    count: Callable[[Path], int]


def count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


KINDS = {"disk": Kind(lambda folder: DiskBlobStore(folder / "blobs"), f"disk:ab/ab{'0' * 30}", count_files)}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@asynccontextmanager
async def opened(store: BlobStore) -> AsyncIterator[BlobStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(kind: Kind, tmp_path: Path) -> AsyncIterator[BlobStore]:
    async with opened(kind.make(tmp_path)) as store:
        yield store


async def put(store: BlobStore, *batches: bytes) -> StoredBlob:
    async with store.open_write() as writer:
        for batch in batches:
            await writer.write(batch)
        return await writer.finish()


async def read(store: BlobStore, uri: str) -> bytes:
    blob = await store.open_read(uri)
    with blob.file as file:
        return file.read()


async def older_than(store: BlobStore, age: timedelta) -> set[str]:
    return {uri async for batch in store.list_older_than(now() - age) for uri in batch}


@pytest.mark.parametrize(
    "batches",
    [(b"x",), (b"one", b"", b"two"), (bytearray(b"mutable"),), (LARGE[:1_000_000], LARGE[1_000_000:]), ()],
    ids=["byte", "batches", "bytearray", "large", "nothing"],
)
async def test_what_goes_in_comes_out_with_its_size_and_checksum(store: BlobStore, batches: tuple[bytes, ...]) -> None:
    whole = b"".join(batches)
    blob = await put(store, *batches)
    assert (blob.size_bytes, blob.checksum) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert await read(store, blob.uri) == whole
    found = await store.open_read(blob.uri)
    assert found.size_bytes == len(whole)
    found.file.close()


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
async def test_leaving_without_finish_leaves_nothing(store: BlobStore, kind: Kind, tmp_path: Path, batches: int) -> None:
    with suppress(ZeroDivisionError):
        async with store.open_write() as writer:
            for _ in range(batches):
                await writer.write(LARGE)
            raise ZeroDivisionError
    assert kind.count(tmp_path) == 0


async def test_a_writer_cancelled_at_any_moment_leaves_all_or_nothing(store: BlobStore, kind: Kind, tmp_path: Path) -> None:
    finished: list[StoredBlob] = []

    async def write() -> None:
        async with store.open_write() as writer:
            await writer.write(LARGE)
            await writer.write(LARGE)
            finished.append(await writer.finish())

    for milliseconds in (0, 0.5, 1, 2, 4, 6, 8, 10, 12, 15, 18, 22, 26, 30, 40):
        task = asyncio.create_task(write())
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        await asyncio.wait([task])
        assert kind.count(tmp_path) == len(finished)


async def test_a_blob_has_no_address_before_it_is_finished(store: BlobStore) -> None:
    async with store.open_write() as writer:
        await writer.write(b"half")
        await writer.write(b"")
        unfinished = await older_than(store, -FUTURE)
        blob = await writer.finish()
    assert blob.uri not in unfinished
    assert await older_than(store, -FUTURE) == {blob.uri}


async def test_deleting_twice_is_harmless(store: BlobStore, kind: Kind, tmp_path: Path) -> None:
    blob = await put(store, b"gone")
    await store.delete(blob.uri)
    await store.delete(blob.uri)
    assert kind.count(tmp_path) == 0


async def test_a_blob_that_is_being_read_can_be_deleted_and_read_to_its_end(store: BlobStore) -> None:
    blob = await put(store, LARGE)
    found = await store.open_read(blob.uri)
    with found.file as file:
        start = file.read(1000)
        await store.delete(blob.uri)
        assert start + file.read() == LARGE


async def test_missing_bytes_are_an_error_of_their_own(store: BlobStore, kind: Kind) -> None:
    with pytest.raises(BlobMissingError):
        await store.open_read(kind.absent)
    blob = await put(store, b"gone")
    await store.delete(blob.uri)
    with pytest.raises(BlobMissingError) as raised:
        await store.open_read(blob.uri)
    assert blob.uri.partition(":")[2] not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
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
    ],
)
async def test_a_foreign_address_names_nothing(store: BlobStore, tmp_path: Path, address: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"keep")
    with pytest.raises(BlobMissingError):
        await store.open_read(address)
    with pytest.raises(BlobMissingError):
        await store.delete(address)
    assert outside.read_bytes() == b"keep"


async def test_old_blobs_and_unfinished_ones_are_listed_and_young_ones_not(store: BlobStore) -> None:
    first, second = await put(store, b"1"), await put(store, b"2")
    async with store.open_write() as writer:
        await writer.write(b"half")
        await writer.write(b"")
        assert await older_than(store, timedelta(hours=1)) == set()
        listed = await older_than(store, -FUTURE)
        assert {first.uri, second.uri} < listed
        assert len(listed) == 3
        (unfinished,) = listed - {first.uri, second.uri}
        await store.delete(unfinished)
        assert await older_than(store, -FUTURE) == {first.uri, second.uri}


async def test_a_long_list_comes_in_batches(store: BlobStore) -> None:
    blobs = await asyncio.gather(*(put(store, b"%d" % number) for number in range(520)))
    batches = [batch async for batch in store.list_older_than(now() + FUTURE)]
    assert [len(batch) for batch in batches] == [500, 20]
    assert {uri for batch in batches for uri in batch} == {blob.uri for blob in blobs}


async def test_blobs_outlive_the_process(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind.make(tmp_path)) as store:
        blob = await put(store, LARGE)
    async with opened(kind.make(tmp_path)) as store:
        assert await read(store, blob.uri) == LARGE


async def test_a_check_of_a_healthy_store_leaves_nothing(store: BlobStore, kind: Kind, tmp_path: Path) -> None:
    await store.check()
    assert kind.count(tmp_path) == 0
