"""How blobs go up to S3: in which pieces, how many at once, and what stays of those that fail."""

import asyncio
import io
import random
from contextlib import suppress
from typing import Any

import pytest

from app.blobs.s3 import S3BlobStore
from app.blobs.s3_bucket import Part, S3Bucket
from app.blobs.s3_writer import PARTS_UNDER_WAY
from app.blobs.store import BlobMissingError, BlobStore, BlobStoreError, StoredBlob, StoreFullError
from tests.contract.test_blob_store import FUTURE, older_than, opened, put, read
from tests.support.faults import Fault
from tests.support.s3 import PART_BYTES, Bucket

pytestmark = pytest.mark.anyio

CONTENT = random.Random(3).randbytes(3 * PART_BYTES + 17)
CALLS = ["begin", "put_part", "complete", "head"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
async def test_whatever_call_fails_nothing_stays(
    s3_store: BlobStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, call: str, when: Any
) -> None:
    struck = 0
    for nth in range(1, 10):
        with monkeypatch.context() as patch:
            fault = Fault(patch, S3Bucket, call, nth=nth, error=StoreFullError("injected"), when=when)
            try:
                blob = await put(s3_store, CONTENT)
            except StoreFullError:
                struck += 1
                # whoever does not learn an upload's id cannot abort it: the sweeper finds it
                if (call, when) == ("begin", "after"):
                    for uri in await older_than(s3_store, -FUTURE):
                        await s3_store.delete(uri)
                assert await bucket.count() == 0
                continue
        assert not fault.has_struck
        assert await read(s3_store, blob.uri) == CONTENT
        break
    assert struck == (4 if call == "put_part" else 1)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_small_blob_whose_put_fails_leaves_nothing(
    s3_store: BlobStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, when: Any
) -> None:
    Fault(monkeypatch, S3Bucket, "put", nth=1, error=BlobStoreError("injected"), when=when)
    with pytest.raises(BlobStoreError, match="injected"):
        await put(s3_store, b"small")
    assert await bucket.count() == 0


async def test_a_completion_whose_answer_was_lost_is_one(s3_store: BlobStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    Fault(monkeypatch, S3Bucket, "complete", nth=1, error=BlobMissingError("no such upload"), when="after")
    blob = await put(s3_store, CONTENT)
    assert await read(s3_store, blob.uri) == CONTENT
    monkeypatch.undo()
    Fault(monkeypatch, S3Bucket, "complete", nth=1, error=BlobMissingError("no such upload"), when="before")
    with pytest.raises(BlobMissingError):
        await put(s3_store, CONTENT)
    assert await bucket.keys() == [blob.uri.removeprefix("s3:")]
    assert await bucket.uploads() == []


async def test_a_clean_up_that_fails_is_left_for_the_sweeper(s3_store: BlobStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, suppress(ZeroDivisionError):
        Fault(patch, S3Bucket, "abort", nth=1, error=BlobStoreError("down"))
        async with s3_store.open_write() as writer:
            await writer.write(CONTENT)
            raise ZeroDivisionError
    (left,) = await older_than(s3_store, -FUTURE)
    assert await bucket.count() == 1
    await s3_store.delete(left)
    assert await bucket.count() == 0


async def test_who_is_cancelled_twice_cleans_up_all_the_same(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, abort = asyncio.Event(), S3Bucket.abort

    async def slow_abort(*args: Any) -> None:
        begun.set()
        await asyncio.sleep(0.2)
        await abort(*args)

    monkeypatch.setattr(S3Bucket, "abort", slow_abort)
    async with opened(S3BlobStore(bucket.options)) as store:
        writing = asyncio.create_task(_write_for_ever(store))
        while not await bucket.uploads():
            await asyncio.sleep(0.01)
        writing.cancel()
        await begun.wait()
        writing.cancel()
        await asyncio.wait([writing])
    assert await bucket.count() == 0


async def _write_for_ever(store: BlobStore) -> None:
    async with store.open_write() as writer:
        await writer.write(CONTENT[: PART_BYTES + 1])
        await asyncio.sleep(3600)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Number and size of every part that goes up."""
    seen: list[tuple[int, int]] = []
    original = S3Bucket.put_part

    async def recorded(self: S3Bucket, key: str, upload_id: str, number: int, body: io.BytesIO, md5: str) -> Part:
        seen.append((number, len(body.getvalue())))
        return await original(self, key, upload_id, number, body, md5)

    monkeypatch.setattr(S3Bucket, "put_part", recorded)
    return seen


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, []),
        (PART_BYTES, []),
        (PART_BYTES + 1, [PART_BYTES, 1]),
        (2 * PART_BYTES, [PART_BYTES] * 2),
        (2 * PART_BYTES + 9, [PART_BYTES, PART_BYTES, 9]),
    ],
)
async def test_small_blobs_go_in_one_piece_and_large_ones_in_equal_parts(
    s3_store: BlobStore, parts: list[tuple[int, int]], size: int, expected: list[int]
) -> None:
    batch = 1_500_000
    blob = await put(s3_store, *(CONTENT[start : min(start + batch, size)] for start in range(0, size, batch)))
    assert blob.size_bytes == size
    assert parts == list(enumerate(expected, start=1))


async def test_a_slow_server_slows_the_writer_and_few_parts_are_under_way(s3_store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, under_way, taken = asyncio.Event(), 0, 0
    original = S3Bucket.put_part

    async def held(*args: Any) -> Part:
        nonlocal under_way
        under_way += 1
        await gate.wait()
        return await original(*args)

    async def send() -> StoredBlob:
        nonlocal taken
        async with s3_store.open_write() as writer:
            for _ in range(8):
                await writer.write(CONTENT[:PART_BYTES])
                taken += 1
            return await writer.finish()

    monkeypatch.setattr(S3Bucket, "put_part", held)
    sending = asyncio.create_task(send())
    async with asyncio.timeout(60):
        while taken < PARTS_UNDER_WAY + 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    assert under_way == PARTS_UNDER_WAY
    assert taken == PARTS_UNDER_WAY + 2  # one fills the buffer, and one waits for it
    gate.set()
    assert (await sending).size_bytes == 8 * PART_BYTES
