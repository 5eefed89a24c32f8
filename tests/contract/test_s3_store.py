"""How S3 fails, what is told of it, and in which pieces blobs go up and come down."""

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.blobs import s3, s3_bucket
from app.blobs.s3 import S3BlobStore
from app.blobs.s3_bucket import Part, S3Bucket
from app.blobs.s3_writer import PARTS_UNDER_WAY
from app.blobs.store import READ_BYTES, BlobMissingError, BlobStore, BlobStoreError, StoredBlob, StoreFullError
from tests.contract.test_blob_store import FUTURE, older_than, opened, put, read, reading
from tests.support.faults import Fault
from tests.support.postgres import free_port
from tests.support.proxy import Proxy, run_proxy
from tests.support.s3 import ACCESS_KEY, PART_BYTES, S3_KINDS, SECRET_KEY, Bucket, S3Server, run_s3

pytestmark = pytest.mark.anyio

CONTENT = random.Random(3).randbytes(3 * PART_BYTES + 17)
EMPTY_MD5 = "1B2M2Y8AsgTpgAmY7PhCfg=="


@pytest.fixture(params=S3_KINDS)
def server(request: pytest.FixtureRequest) -> S3Server:
    running: S3Server = request.getfixturevalue(f"{request.param}_server")
    return running


@pytest.fixture
async def bucket(rclone_server: S3Server) -> Bucket:
    return await rclone_server.make_bucket()


@pytest.fixture
async def store(bucket: Bucket) -> AsyncIterator[BlobStore]:
    async with opened(S3BlobStore(bucket.options)) as store:
        yield store


@asynccontextmanager
async def opened_bucket(bucket: Bucket) -> AsyncIterator[S3Bucket]:
    calls = S3Bucket(bucket.options)
    await calls.open()
    try:
        yield calls
    finally:
        await calls.aclose()


async def test_the_server_refuses_bytes_that_are_not_those_that_were_sent(server: S3Server) -> None:
    bucket, key = await server.make_bucket(), uuid4().hex
    async with opened_bucket(bucket) as calls:
        with pytest.raises(BlobStoreError):
            await calls.put(key, io.BytesIO(b"changed"), EMPTY_MD5)
        upload_id = await calls.begin(key)
        with pytest.raises(BlobStoreError):
            await calls.put_part(key, upload_id, 1, io.BytesIO(b"changed"), EMPTY_MD5)
        await calls.abort(key, upload_id)
        await calls.abort(key, upload_id)
    assert await bucket.count() == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bucket": "there-is-none"}, "SAASBASE_STORAGE__S3__BUCKET"),
        ({"secret_key": "another-secret"}, "SignatureDoesNotMatch"),
        ({"access_key": "another-key"}, "SAASBASE_STORAGE__S3__ACCESS_KEY"),
    ],
)
async def test_a_store_that_cannot_be_used_does_not_open_and_says_what_to_do(server: S3Server, changes: dict[str, Any], told: str) -> None:
    bucket = await server.make_bucket()
    store = S3BlobStore(replace(bucket.options, **changes))
    try:
        with pytest.raises(BlobStoreError) as raised:
            await store.open()
    finally:
        await store.aclose()
    assert told in raised.value.advice
    for secret in (ACCESS_KEY, SECRET_KEY, *changes.values()):
        assert secret not in f"{raised.value} {raised.value.advice} {bucket.options!r}"
    assert not isinstance(raised.value, BlobMissingError)


@pytest.mark.parametrize("endpoint", ["http://", "http://127.0.0.1:99999", "http://[::1"])
async def test_an_endpoint_that_is_none_does_not_open(bucket: Bucket, endpoint: str) -> None:
    store = S3BlobStore(replace(bucket.options, endpoint=endpoint))
    try:
        with pytest.raises(BlobStoreError):
            await store.open()
    finally:
        await store.aclose()


async def test_without_keys_the_environment_is_asked(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    async with opened(S3BlobStore(replace(bucket.options, access_key=None, secret_key=None))) as store:
        assert await read(store, (await put(store, b"content")).uri) == b"content"


async def test_without_any_keys_the_advice_is_to_give_some(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    store = S3BlobStore(replace(bucket.options, access_key=None, secret_key=None))
    try:
        with pytest.raises(BlobStoreError) as raised:
            await store.open()
    finally:
        await store.aclose()
    assert "SAASBASE_STORAGE__S3__ACCESS_KEY" in raised.value.advice


async def test_a_server_that_is_not_there_is_told_soon(bucket: Bucket) -> None:
    started = time.monotonic()
    async with opened_bucket(replace(bucket, endpoint=f"http://127.0.0.1:{free_port()}")) as calls:
        with pytest.raises(BlobStoreError, match="does not answer"):
            await calls.head(uuid4().hex)
    assert time.monotonic() - started < 10


async def test_a_server_that_does_not_answer_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "CHECK_INTERVAL_SECONDS", 0)
    monkeypatch.setattr(s3_bucket, "READ_SECONDS", 1)
    with run_s3("rclone") as server:
        async with opened(S3BlobStore((await server.make_bucket()).options)) as store:
            blob = await put(store, b"content")
            server.pause()
            started = time.monotonic()
            with pytest.raises(BlobStoreError, match="does not answer"):
                await store.check()
            with pytest.raises(BlobStoreError, match="does not answer"):
                await store.open_read(blob.uri)
            assert time.monotonic() - started < 20
            server.resume()
            await store.check()
            assert await read(store, blob.uri) == b"content"


async def test_whoever_asks_for_a_check_again_at_once_gets_the_last_answer(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(S3BlobStore(bucket.options)) as store:
        Fault(monkeypatch, S3Bucket, "put", nth=1, error=BlobStoreError("down"))
        await store.check()
        monkeypatch.setattr(s3, "CHECK_INTERVAL_SECONDS", 0)
        with pytest.raises(BlobStoreError, match="down"):
            await store.check()
        monkeypatch.setattr(s3, "CHECK_INTERVAL_SECONDS", 60)
        with pytest.raises(BlobStoreError, match="down"):
            await store.check()


@pytest.fixture
async def proxy(rclone_server: S3Server) -> AsyncIterator[Proxy]:
    async with run_proxy(rclone_server.port) as proxy:
        yield proxy


@pytest.fixture
async def behind_proxy(bucket: Bucket, proxy: Proxy) -> AsyncIterator[S3BlobStore]:
    store = S3BlobStore(replace(bucket.options, endpoint=proxy.endpoint))
    await store._bucket.open()
    try:
        yield store
    finally:
        await store.aclose()


async def test_a_server_that_wants_less_is_asked_again_and_not_for_ever(behind_proxy: S3BlobStore, proxy: Proxy) -> None:
    proxy.refusals = 2
    blob = await put(behind_proxy, b"content")
    assert proxy.refusals == 0
    assert await read(behind_proxy, blob.uri) == b"content"


async def test_a_server_that_goes_on_wanting_less_is_an_error(behind_proxy: S3BlobStore, proxy: Proxy) -> None:
    proxy.refusals = 100
    with pytest.raises(BlobStoreError):
        await put(behind_proxy, b"content")
    assert proxy.connections <= 2 * s3_bucket.ATTEMPTS  # the object, and its removal


async def test_a_download_whose_connection_breaks_goes_on_where_it_broke(behind_proxy: S3BlobStore, proxy: Proxy) -> None:
    blob = await put(behind_proxy, CONTENT)
    proxy.cuts = 3
    assert await read(behind_proxy, blob.uri) == CONTENT
    assert proxy.cuts == 0


async def test_a_download_whose_connection_breaks_again_and_again_ends(behind_proxy: S3BlobStore, proxy: Proxy) -> None:
    blob = await put(behind_proxy, CONTENT)
    proxy.cuts = 100
    with pytest.raises(BlobStoreError):
        await read(behind_proxy, blob.uri)


async def test_a_blob_that_goes_while_its_download_is_broken_is_missing(behind_proxy: S3BlobStore, proxy: Proxy) -> None:
    blob = await put(behind_proxy, CONTENT)
    async with reading(await behind_proxy.open_read(blob.uri)) as file:
        assert await file.read(10) == CONTENT[:10]
        await behind_proxy.delete(blob.uri)
        await file.seek(100)
        with pytest.raises(BlobMissingError):
            await file.read(10)


async def test_another_object_in_its_place_is_not_sent(store: BlobStore, bucket: Bucket) -> None:
    blob = await put(store, CONTENT[:1000])
    async with reading(await store.open_read(blob.uri)) as file:
        await bucket.replace(blob.uri, CONTENT[:900])
        with pytest.raises(BlobStoreError):
            await file.read(READ_BYTES)


CALLS = ["begin", "put_part", "complete", "head"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
async def test_whatever_call_fails_nothing_stays(
    store: BlobStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, call: str, when: Any
) -> None:
    struck = 0
    for nth in range(1, 10):
        with monkeypatch.context() as patch:
            fault = Fault(patch, S3Bucket, call, nth=nth, error=StoreFullError("injected"), when=when)
            try:
                blob = await put(store, CONTENT)
            except StoreFullError:
                struck += 1
                # whoever does not learn an upload's id cannot abort it: the sweeper finds it
                if (call, when) == ("begin", "after"):
                    for uri in await older_than(store, -FUTURE):
                        await store.delete(uri)
                assert await bucket.count() == 0
                continue
        assert not fault.has_struck
        assert await read(store, blob.uri) == CONTENT
        break
    assert struck == (4 if call == "put_part" else 1)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_small_blob_whose_put_fails_leaves_nothing(
    store: BlobStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, when: Any
) -> None:
    Fault(monkeypatch, S3Bucket, "put", nth=1, error=BlobStoreError("injected"), when=when)
    with pytest.raises(BlobStoreError, match="injected"):
        await put(store, b"small")
    assert await bucket.count() == 0


async def test_a_completion_whose_answer_was_lost_is_one(store: BlobStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    Fault(monkeypatch, S3Bucket, "complete", nth=1, error=BlobMissingError("no such upload"), when="after")
    blob = await put(store, CONTENT)
    assert await read(store, blob.uri) == CONTENT
    monkeypatch.undo()
    Fault(monkeypatch, S3Bucket, "complete", nth=1, error=BlobMissingError("no such upload"), when="before")
    with pytest.raises(BlobMissingError):
        await put(store, CONTENT)
    assert await bucket.keys() == [blob.uri.removeprefix("s3:")]
    assert await bucket.uploads() == []


async def test_a_clean_up_that_fails_is_left_for_the_sweeper(store: BlobStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, suppress(ZeroDivisionError):
        Fault(patch, S3Bucket, "abort", nth=1, error=BlobStoreError("down"))
        async with store.open_write() as writer:
            await writer.write(CONTENT)
            raise ZeroDivisionError
    (left,) = await older_than(store, -FUTURE)
    assert await bucket.count() == 1
    await store.delete(left)
    assert await bucket.count() == 0


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
    store: BlobStore, parts: list[tuple[int, int]], size: int, expected: list[int]
) -> None:
    batch = 1_500_000
    blob = await put(store, *(CONTENT[start : min(start + batch, size)] for start in range(0, size, batch)))
    assert blob.size_bytes == size
    assert parts == list(enumerate(expected, start=1))


async def test_a_slow_server_slows_the_writer_and_few_parts_are_under_way(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, under_way, taken = asyncio.Event(), 0, 0
    original = S3Bucket.put_part

    async def held(*args: Any) -> Part:
        nonlocal under_way
        under_way += 1
        await gate.wait()
        return await original(*args)

    async def send() -> StoredBlob:
        nonlocal taken
        async with store.open_write() as writer:
            for _ in range(8):
                await writer.write(CONTENT[:PART_BYTES])
                taken += 1
            return await writer.finish()

    monkeypatch.setattr(S3Bucket, "put_part", held)
    sending = asyncio.create_task(send())
    await asyncio.sleep(1)
    assert under_way == PARTS_UNDER_WAY
    assert taken == PARTS_UNDER_WAY + 2  # one fills the buffer, and one waits for it
    gate.set()
    assert (await sending).size_bytes == 8 * PART_BYTES


async def test_an_upload_that_was_begun_long_ago_and_still_grows_is_not_old(server: S3Server) -> None:
    bucket = await server.make_bucket()
    async with opened(S3BlobStore(bucket.options)) as store, store.open_write() as writer:
        await writer.write(CONTENT[: PART_BYTES + 1])
        await writer.write(b"")
        await asyncio.sleep(4)
        assert len(await older_than(store, timedelta(seconds=2))) == 1
        await writer.write(CONTENT[: PART_BYTES + 1])
        await writer.write(b"")
        await asyncio.sleep(0.5)
        assert await older_than(store, timedelta(seconds=2)) == set()
        assert (await writer.finish()).size_bytes == 2 * PART_BYTES + 2


async def test_what_others_keep_in_the_bucket_is_left_alone(bucket: Bucket) -> None:
    for key in ("notes.txt", f"other/{uuid4().hex}", f"ours/notes-{uuid4().hex}", f"ours/deep/{uuid4().hex}", uuid4().hex):
        await bucket.replace(f"s3:{key}", b"not yours")
    async with opened(S3BlobStore(replace(bucket.options, prefix="ours/"))) as store:
        blob = await put(store, b"mine")
        assert await older_than(store, -FUTURE) == {blob.uri}
        await store.delete(blob.uri)
    assert await bucket.count() == 5


async def test_a_signed_address_gives_one_blob_for_a_short_time(server: S3Server) -> None:
    bucket = await server.make_bucket()
    async with opened(S3BlobStore(replace(bucket.options, presign_seconds=2))) as store, httpx.AsyncClient() as client:
        blob = await store.open_read((await put(store, b"content")).uri)
        assert not hasattr(blob, "file")
        address = await blob.address_for("attachment; filename=\"a.txt\"; filename*=UTF-8''%C3%A4.txt", "text/x-ours; charset=utf-8")
        assert address is not None
        assert SECRET_KEY not in address
        answer = await client.get(address)
        assert answer.content == b"content"
        assert answer.headers["content-disposition"] == "attachment; filename=\"a.txt\"; filename*=UTF-8''%C3%A4.txt"
        assert answer.headers["content-type"] == "text/x-ours; charset=utf-8"
        assert (await client.get(address.replace("text%2Fx-ours", "text%2Fhtml"))).status_code == 403
        await asyncio.sleep(3)
        assert (await client.get(address)).status_code in {400, 403}


async def test_without_the_setting_there_is_no_signed_address(store: BlobStore) -> None:
    blob = await store.open_read((await put(store, b"content")).uri)
    assert not hasattr(blob, "file")
    assert await blob.address_for("attachment", "text/plain") is None
