"""One bucket of an S3 server: every call that is made, its limits in time, and what its refusals mean."""

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import aioboto3
from aiobotocore.config import AioConfig
from aiohttp import ClientError as TransportError
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from app.blobs.store import BlobMissingError, BlobStoreError, StoreFullError

CONNECT_SECONDS: Final = 3
READ_SECONDS: Final = 20
ATTEMPTS: Final = 3
CONNECTIONS: Final = 0  # no limit: slow downloads must not make everybody else wait; whoever limits clients limits them
DEFAULT_REGION: Final = "us-east-1"  # what servers that know no regions sign with

_MISSING: Final = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}
_FULL: Final = {"XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "507"}
_REFUSED: Final = {
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "401",
    "403",
}


@dataclass(frozen=True, slots=True)
class S3Options:
    """Which bucket, and how to reach it. Without keys the default chain finds them: environment, profile, role of the machine."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    path_style: bool = True
    part_bytes: int = 8 * 1024 * 1024
    presign_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a multipart upload that the server has."""

    number: int
    etag: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A key, or an upload under a key, and when it was written or begun."""

    key: str
    moment: datetime
    upload_id: str | None = None


class S3Bucket:
    """The calls. Each is tried a few times, ends in bounded time, and raises ``BlobStoreError``; keys are given without the prefix."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        """Make the client; asks the server nothing."""
        given = self._options
        config = AioConfig(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            signature_version="s3v4",
            # Every body has a Content-MD5, which all servers check; hashing it once more to sign it would hold up the event loop.
            s3={"addressing_style": "path" if given.path_style else "virtual", "payload_signing_enabled": False},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            client = aioboto3.Session().client(
                "s3",
                endpoint_url=given.endpoint,
                region_name=given.region or (DEFAULT_REGION if given.endpoint else None),
                aws_access_key_id=given.access_key,
                aws_secret_access_key=given.secret_key,
                config=config,
            )
            self._client = await self._stack.enter_async_context(client)
        except (BotoCoreError, ValueError) as error:  # a profile, region or endpoint that is none; their texts hold no secret
            raise BlobStoreError("the store cannot be reached", advice=f"SAASBASE_STORAGE__S3__*: {error}") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._stack.aclose()

    async def put(self, key: str, body: io.BytesIO, md5: str) -> None:
        """Store an object in one go."""
        with _translated("PutObject"):
            await self._client.put_object(**self._at(key), Body=body, ContentMD5=md5)

    async def begin(self, key: str) -> str:
        """Begin a multipart upload; its id."""
        with _translated("CreateMultipartUpload"):
            return str((await self._client.create_multipart_upload(**self._at(key)))["UploadId"])

    async def put_part(self, key: str, upload_id: str, number: int, body: io.BytesIO, md5: str) -> Part:
        """Store a part; the first is number 1."""
        with _translated("UploadPart"):
            answer = await self._client.upload_part(**self._at(key), UploadId=upload_id, PartNumber=number, Body=body, ContentMD5=md5)
        return Part(number, str(answer["ETag"]))

    async def complete(self, key: str, upload_id: str, parts: list[Part]) -> None:
        """Make an object of the parts. ``BlobMissingError`` may mean that an attempt whose answer was lost has done so."""
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        with _translated("CompleteMultipartUpload"):
            await self._client.complete_multipart_upload(**self._at(key), UploadId=upload_id, MultipartUpload={"Parts": listed})

    async def abort(self, key: str, upload_id: str) -> None:
        """Drop a multipart upload with its parts; harmless when it is gone."""
        try:
            with _translated("AbortMultipartUpload"):
                await self._client.abort_multipart_upload(**self._at(key), UploadId=upload_id)
        except BlobMissingError:
            return

    async def head(self, key: str) -> tuple[int, datetime]:
        """An object's size, and when it was written."""
        with _translated("HeadObject"):
            answer = await self._client.head_object(**self._at(key))
        return int(answer["ContentLength"]), answer["LastModified"]

    async def get(self, key: str, start: int, end: int) -> "Body":
        """Bytes of an object as a stream; whoever asked closes it."""
        with _translated("GetObject"):
            answer = await self._client.get_object(**self._at(key), Range=f"bytes={start}-{end - 1}")
        body = Body(answer["Body"])
        if answer["ContentLength"] != end - start:  # the object is another one, or the server knows no ranges
            body.close()
            raise BlobStoreError("the content in the store is not whole")
        return body

    async def get_head(self, key: str, size: int) -> bytes:
        """The first bytes of an object, at most so many, in one request."""
        with _translated("GetObject"):
            body = Body((await self._client.get_object(**self._at(key)))["Body"])
        try:
            return await body.read(size)
        finally:
            body.close()

    async def delete(self, key: str) -> None:
        """Remove an object; harmless when it is gone."""
        with _translated("DeleteObject"):
            await self._client.delete_object(**self._at(key))

    async def list_objects(self) -> AsyncIterator[list[Listed]]:
        """Pages of everything below the prefix."""
        async for page in self._pages("list_objects_v2"):
            yield [Listed(self._strip(found["Key"]), found["LastModified"]) for found in page.get("Contents", ())]

    async def list_uploads(self) -> AsyncIterator[list[Listed]]:
        """Pages of the multipart uploads below the prefix that were begun and not ended."""
        try:
            async for page in self._pages("list_multipart_uploads"):
                yield [Listed(self._strip(found["Key"]), found["Initiated"], found["UploadId"]) for found in page.get("Uploads", ())]
        except BlobMissingError:
            return  # some servers' word for none

    async def last_part_at(self, upload: Listed) -> datetime:
        """When a multipart upload was last written to."""
        last = upload.moment
        with _translated("ListParts"):
            pages = self._client.get_paginator("list_parts").paginate(**self._at(upload.key), UploadId=upload.upload_id)
            async for page in pages:
                last = max([last, *(part["LastModified"] for part in page.get("Parts", ()))])
        return last

    async def presign(self, key: str, disposition: str, media_type: str, seconds: int) -> str:
        """A URL that lets whoever has it read one object for some time."""
        given = {**self._at(key), "ResponseContentDisposition": disposition, "ResponseContentType": media_type}
        with _translated("presign"):
            return str(await self._client.generate_presigned_url("get_object", Params=given, ExpiresIn=seconds))

    async def _pages(self, operation: str) -> AsyncIterator[Any]:
        pages = self._client.get_paginator(operation).paginate(Bucket=self._options.bucket, Prefix=self._options.prefix)
        with _translated(operation):
            async for page in pages:
                yield page

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._options.bucket, "Key": self._options.prefix + key}

    def _strip(self, key: str) -> str:
        return key.removeprefix(self._options.prefix)


class Body:
    """The stream of a GET."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def read(self, size: int) -> bytes:
        """At most ``size`` of the next bytes; none at the end. A connection that breaks is a ``BlobStoreError``."""
        with _translated("GetObject"):
            return bytes(await self._stream.read(size))

    def close(self) -> None:
        """Let go of the connection; one whose bytes were not all read is not used again."""
        self._stream.close()


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Turn whatever the client raises into an error of the port. Texts of the client name addresses and keys: none is passed on."""
    try:
        yield
    except ClientError as error:
        raise _meaning(operation, str(error.response.get("Error", {}).get("Code", ""))) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        advice = "set SAASBASE_STORAGE__S3__ACCESS_KEY and SAASBASE_STORAGE__S3__SECRET_KEY, or give the machine a role"
        raise BlobStoreError("the store has no credentials", advice=advice) from error
    except (BotoCoreError, TransportError, TimeoutError, OSError) as error:
        advice = f"{type(error).__name__} at {operation}; is SAASBASE_STORAGE__S3__ENDPOINT right, and within reach?"
        raise BlobStoreError("the store does not answer", advice=advice) from error


def _meaning(operation: str, code: str) -> BlobStoreError:
    if code in _MISSING:
        return BlobMissingError("the content is missing from the store")
    if code in _FULL:
        return StoreFullError("the store is full", advice=f"{code} at {operation}")
    if code == "NoSuchBucket":
        return BlobStoreError("its bucket does not exist", advice="make the bucket, or correct SAASBASE_STORAGE__S3__BUCKET")
    if code in _REFUSED:
        advice = f"{code} at {operation}; check SAASBASE_STORAGE__S3__ACCESS_KEY and its secret, the clock, and the bucket's policy"
        return BlobStoreError("the store refuses access", advice=advice)
    return BlobStoreError("the store failed", advice=f"{code} at {operation}")
