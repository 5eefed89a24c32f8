"""Suites of the policy engine run over each implementation, OpenFGA's over a real server; and the S3 servers of the blob store's."""

from collections.abc import AsyncIterator

import pytest

from app.blobs.s3 import S3BlobStore
from app.blobs.store import BlobStore
from tests.support.engines import BUILTIN, Candidate, open_openfga_engine
from tests.support.openfga import ENGINES
from tests.support.s3 import S3_KINDS, Bucket, S3Server


@pytest.fixture(params=ENGINES)
async def candidate(request: pytest.FixtureRequest) -> AsyncIterator[Candidate]:
    """Each policy engine in turn."""
    if request.param == "builtin":
        yield BUILTIN
        return
    async with open_openfga_engine(request.getfixturevalue("openfga_server")) as opened:
        yield opened


@pytest.fixture(params=S3_KINDS)
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Each S3 server in turn."""
    running: S3Server = request.getfixturevalue(f"{request.param}_server")
    return running


@pytest.fixture
async def bucket(rclone_server: S3Server) -> Bucket:
    """A bucket on the quick one, for what is not the server's doing."""
    return await rclone_server.make_bucket()


@pytest.fixture
async def s3_store(bucket: Bucket) -> AsyncIterator[BlobStore]:
    """A store in it."""
    store = S3BlobStore(bucket.options)
    await store.open()
    yield store
    await store.aclose()
