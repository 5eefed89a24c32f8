"""Documents that the reference kept in S3 come over as those from its folder do."""

from pathlib import Path

import pytest

from app.cli.root import CommandError
from app.reference.contents import S3Server as Server
from app.settings import Settings
from tests.conftest import open_service
from tests.reference.conftest import Import, numbers
from tests.reference.test_import import everything
from tests.support.cli import run_saasbase
from tests.support.database import environment_of
from tests.support.reference_world import HELLO, HELLO_AGAIN, World
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, Bucket, S3Server

PREFIX = "old/documents"


@pytest.fixture
async def bucket(world: World, rclone_server: S3Server) -> Bucket:
    """The reference's bucket: its keys are those of the folder, below a prefix."""
    made = await rclone_server.make_bucket()
    for path in world.documents.rglob("*"):
        if path.is_file():
            await made.replace(f"{PREFIX}/{path.relative_to(world.documents)}", path.read_bytes())
    return made


def server_of(bucket: Bucket) -> Server:
    return Server(bucket.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY)


async def test_everything_comes_over(world: World, bucket: Bucket, run_import: Import, settings: Settings) -> None:
    for is_dry_run in (True, False):
        ended = await run_import(world, storage=f"s3://{bucket.name}/{PREFIX}/", server=server_of(bucket), is_dry_run=is_dry_run)
        assert numbers(ended) == {table: (count, count, 0, 0) for table, count in everything(world).items()}
    async with open_service(settings) as service:
        letter = f"/documents/{world.ids['letter']}"
        assert (await service.as_("user:alice").get(f"{letter}/content")).content == HELLO_AGAIN
        assert (await service.as_("user:alice").get(f"{letter}/versions/v1/content")).content == HELLO


async def test_what_is_missing_or_another_is_left_out(world: World, bucket: Bucket, run_import: Import) -> None:
    first, second, third = sorted(await bucket.keys())
    await bucket.replace(first, None)
    await bucket.replace(second, b"something else")
    ended = await run_import(world, storage=f"s3://{bucket.name}/{PREFIX}", server=server_of(bucket))
    assert numbers(ended)["document_versions"] == (3, 1, 0, 2)
    told = sorted(line.partition(": its bytes ")[2] for line in ended if line.startswith("left out: document_versions"))
    assert told == ["are missing", "are not those that were uploaded: their size or their checksum is another"]
    assert third in await bucket.keys(), "nothing is taken away there"


async def test_a_bucket_that_cannot_be_read_ends_it_before_anything_is_written(
    world: World, bucket: Bucket, run_import: Import, settings: Settings
) -> None:
    known = server_of(bucket)
    for place, server in (
        ("s3://none-of-that-name", known),
        (f"s3://{bucket.name}", Server(bucket.endpoint, access_key=ACCESS_KEY, secret_key="another")),
        (f"s3://{bucket.name}", Server("http://127.0.0.1:9", access_key=ACCESS_KEY, secret_key=SECRET_KEY)),
        ("s3://", known),
    ):
        with pytest.raises(CommandError, match=r"the documents in S3 cannot be read|s3:// names no bucket"):
            await run_import(world, storage=place, server=server)
    async with open_service(settings) as service:
        await service.as_("user:alice").get(f"/organizations/{world.ids['acme']}", 404)


def test_without_keys_the_command_says_where_they_are_taken_from(world: World, tmp_path: Path) -> None:
    arguments = ["--storage", "s3://somewhere", "--s3-endpoint", "http://127.0.0.1:9", "--dry-run"]
    elsewhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none"}
    ended = run_saasbase(tmp_path, "import", "reference", *arguments, REFERENCE_DB_URL=world.database_url, **elsewhere)
    assert ended.status == 1
    assert "(REFERENCE_S3_ACCESS_KEY and REFERENCE_S3_SECRET_KEY are not both set)" in ended.err


async def test_the_command_takes_its_server_from_options_and_its_keys_from_the_environment(
    world: World, bucket: Bucket, database_url: str, tmp_path: Path
) -> None:
    arguments = ["--storage", f"s3://{bucket.name}/{PREFIX}", "--s3-endpoint", bucket.endpoint, "--s3-region", "us-east-1", "--dry-run"]
    given = {"REFERENCE_DB_URL": world.database_url, **environment_of(database_url)}
    ended = run_saasbase(
        tmp_path, "import", "reference", *arguments, **given, REFERENCE_S3_ACCESS_KEY=ACCESS_KEY, REFERENCE_S3_SECRET_KEY=SECRET_KEY
    )
    assert (ended.status, ended.err) == (0, "")
    assert numbers(ended.out.splitlines())["document_versions"] == (3, 3, 0, 0)
