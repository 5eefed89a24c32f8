"""How S3 fails, what is told of it, and in which pieces blobs go up and come down."""

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.blobs import s3, s3_bucket
from app.blobs.s3 import S3BlobStore
from app.blobs.s3_bucket import S3Bucket
from app.blobs.store import READ_BYTES, BlobMissingError, BlobStore, BlobStoreError
from app.core.clock import now
from app.main import make_store
from app.settings import Settings
from tests.contract.test_blob_store import FUTURE, older_than, opened, put, read, reading
from tests.support.faults import Fault
from tests.support.moments import LAPSES
from tests.support.postgres import free_port
from tests.support.proxy import SLOW_DOWN, Proxy, canned, run_proxy
from tests.support.s3 import ACCESS_KEY, PART_BYTES, SECRET_KEY, Bucket, S3Server, run_s3

pytestmark = pytest.mark.anyio

CONTENT = random.Random(3).randbytes(3 * PART_BYTES + 17)
EMPTY_MD5 = "1B2M2Y8AsgTpgAmY7PhCfg=="


@asynccontextmanager
async def opened_bucket(bucket: Bucket) -> AsyncIterator[S3Bucket]:
    calls = S3Bucket(bucket.options)
    await calls.open()
    try:
        yield calls
    finally:
        await calls.aclose()


async def test_the_server_refuses_bytes_that_are_not_those_that_were_sent(s3_server: S3Server) -> None:
    bucket, key = await s3_server.make_bucket(), uuid4().hex
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
    ("path_style", "address"),
    [(True, "http://s3.test:7070/documents/production/k?"), (False, "http://documents.s3.test:7070/production/k?")],
)
async def test_the_bucket_stands_in_the_path_or_in_the_host_as_the_setting_says(path_style: bool, address: str) -> None:
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    given = {"endpoint": "http://s3.test:7070", "bucket": "documents", "prefix": "production", "path_style": path_style, **keys}
    store = make_store(Settings.model_validate({"storage": {"s3": given}}))
    assert isinstance(store, S3BlobStore)
    await store._bucket.open()
    try:
        signed = await store._bucket.presign("k", "attachment", "text/plain", 60)
    finally:
        await store._bucket.aclose()
    assert signed.startswith(address), signed


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bucket": "there-is-none"}, "SAASBASE_STORAGE__S3__BUCKET"),
        ({"secret_key": "another-secret"}, "SignatureDoesNotMatch"),
        ({"access_key": "another-key"}, "SAASBASE_STORAGE__S3__ACCESS_KEY"),
    ],
)
async def test_a_store_that_cannot_be_used_does_not_open_and_says_what_to_do(
    s3_server: S3Server, changes: dict[str, Any], told: str
) -> None:
    bucket = await s3_server.make_bucket()
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
    assert time.monotonic() - started < 30


async def test_a_server_that_does_not_answer_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PING_INTERVAL_SECONDS", 0)
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
            assert time.monotonic() - started < 45
            server.resume()
            await store.check()
            assert await read(store, blob.uri) == b"content"


async def test_whoever_asks_again_at_once_gets_the_last_answer(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(S3BlobStore(bucket.options)) as store:
        await store.ping()
        Fault(monkeypatch, S3Bucket, "get_head", nth=1, error=BlobStoreError("down"))
        await store.ping()
        monkeypatch.setattr(s3, "PING_INTERVAL_SECONDS", 0)
        with pytest.raises(BlobStoreError, match="down"):
            await store.ping()
        monkeypatch.setattr(s3, "PING_INTERVAL_SECONDS", 60)
        with pytest.raises(BlobStoreError, match="down"):
            await store.ping()


async def test_asking_whether_it_works_writes_nothing_and_tells_what_is_wrong(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that keeps versions would keep each object that was written to see whether it can be."""
    monkeypatch.setattr(s3, "PING_INTERVAL_SECONDS", 0)
    bucket = await s3_server.make_bucket()
    async with opened(S3BlobStore(bucket.options)) as store:
        with monkeypatch.context() as patch:
            for call in ("put", "delete", "begin"):
                patch.delattr(S3Bucket, call)
            await store.ping()
        async with bucket.client() as client:
            await client.delete_bucket(Bucket=bucket.name)
        with pytest.raises(BlobStoreError, match="bucket does not exist"):
            await store.ping()
    for refused in (replace(bucket.options, secret_key="another-secret"), replace(bucket.options, access_key="another-key")):
        store = S3BlobStore(refused)
        await store._bucket.open()
        with pytest.raises(BlobStoreError, match="refuses access"):
            await store.ping()
        await store.aclose()


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
    proxy.answers = [SLOW_DOWN] * 2
    blob = await put(behind_proxy, b"content")
    assert proxy.answers == []
    assert await read(behind_proxy, blob.uri) == b"content"


async def test_a_server_that_goes_on_wanting_less_is_an_error(behind_proxy: S3BlobStore, proxy: Proxy) -> None:
    proxy.answers = [SLOW_DOWN] * 100
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


async def test_a_server_that_knows_no_ranges_gives_no_wrong_bytes(behind_proxy: S3BlobStore, proxy: Proxy) -> None:
    blob = await put(behind_proxy, CONTENT[:1000])
    async with reading(await behind_proxy.open_read(blob.uri)) as file:
        await file.seek(1)
        proxy.cuts, proxy.cut_after = 1, 0
        with suppress(BlobStoreError):  # ends the connection, so that the next is a new one
            await behind_proxy.delete("s3:" + "0" * 32)
        proxy.answers = [canned("200 OK", CONTENT[:1000])] * 2
        with pytest.raises(BlobStoreError, match="not whole"):
            await file.read(10)


async def test_another_object_in_its_place_is_not_sent(s3_store: BlobStore, bucket: Bucket) -> None:
    blob = await put(s3_store, CONTENT[:1000])
    async with reading(await s3_store.open_read(blob.uri)) as file:
        await bucket.replace(blob.uri, CONTENT[:900])
        with pytest.raises(BlobStoreError):
            await file.read(READ_BYTES)


async def all_before(store: BlobStore, moment: datetime) -> set[str]:
    return {uri async for batch in store.list_older_than(moment) for uri in batch}


async def test_an_upload_that_was_begun_long_ago_and_still_grows_is_not_old(s3_server: S3Server) -> None:
    bucket = await s3_server.make_bucket()
    async with opened(S3BlobStore(bucket.options)) as store, store.open_write() as writer:
        await writer.write(CONTENT[: PART_BYTES + 1])
        await writer.write(b"")
        async with asyncio.timeout(60):  # a part is sent while the next is taken
            while not await all_before(store, meanwhile := now() - timedelta(seconds=2)):
                await asyncio.sleep(0.5)
        await writer.write(CONTENT[: PART_BYTES + 1])
        await writer.write(b"")
        async with asyncio.timeout(60):
            while await all_before(store, meanwhile):
                await asyncio.sleep(0.1)
        assert (await writer.finish()).size_bytes == 2 * PART_BYTES + 2


async def test_what_others_keep_in_the_bucket_is_left_alone(bucket: Bucket) -> None:
    for key in ("notes.txt", f"other/{uuid4().hex}", f"ours/notes-{uuid4().hex}", f"ours/deep/{uuid4().hex}", uuid4().hex):
        await bucket.replace(f"s3:{key}", b"not yours")
    async with opened(S3BlobStore(replace(bucket.options, prefix="ours/"))) as store:
        blob = await put(store, b"mine")
        assert await older_than(store, -FUTURE) == {blob.uri}
        await store.delete(blob.uri)
    assert await bucket.count() == 5


async def test_a_signed_address_gives_one_blob_for_a_short_time(s3_server: S3Server) -> None:
    bucket = await s3_server.make_bucket()
    disposition = "attachment; filename=\"a.txt\"; filename*=UTF-8''%C3%A4.txt"
    async with httpx.AsyncClient(timeout=60) as client:
        for seconds in LAPSES:
            async with opened(S3BlobStore(replace(bucket.options, presign_seconds=seconds))) as store:
                blob = await store.open_read((await put(store, b"content")).uri)
                assert not hasattr(blob, "file")
                began = time.monotonic()
                address = str(await blob.address_for(disposition, "text/x-ours; charset=utf-8"))
            assert SECRET_KEY not in address
            answer = await client.get(address)
            forged = await client.get(address.replace("text%2Fx-ours", "text%2Fhtml"))
            if time.monotonic() - began < seconds - 1:  # it is signed in whole seconds
                break
        assert answer.content == b"content"
        assert answer.headers["content-disposition"] == disposition
        assert answer.headers["content-type"] == "text/x-ours; charset=utf-8"
        assert forged.status_code == 403
        await asyncio.sleep(began + seconds + 1 - time.monotonic())
        assert (await client.get(address)).status_code in {400, 403}


async def test_without_the_setting_there_is_no_signed_address(s3_store: BlobStore) -> None:
    blob = await s3_store.open_read((await put(s3_store, b"content")).uri)
    assert not hasattr(blob, "file")
    assert await blob.address_for("attachment", "text/plain") is None
