"""What the service needs goes away under load: clear refusals meanwhile, work goes on by itself afterwards, and nothing is half-written."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from tests.conftest import run_sql_on
from tests.durability.conftest import check, serving
from tests.support.database import APP, OWNER, as_role, make_owner, migrate_with_roles
from tests.support.load import put_under_load
from tests.support.postgres import PostgresServer
from tests.support.proxy import run_proxy
from tests.support.s3 import S3Server, run_s3

pytestmark = pytest.mark.anyio

SEED = random.randrange(1 << 30)  # shown by the assertion that fails
DATABASE = "outages"
AWAY_SECONDS = 10


@pytest.fixture
async def postgres() -> AsyncIterator[PostgresServer]:
    """A server that the test may end, with a database."""
    server = PostgresServer()
    try:
        server.start()
        await make_owner(server.url)
        await run_sql_on(server.url, f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        await migrate_with_roles(f"{server.url}/{DATABASE}")
        yield server
    finally:
        server.remove()


@pytest.fixture
def s3() -> Iterator[S3Server]:
    """A server that the test may end."""
    with run_s3("rclone") as server:
        yield server


async def test_the_database_is_restarted(postgres: PostgresServer, tmp_path: Path) -> None:
    url = as_role(f"{postgres.url}/{DATABASE}", APP)
    async with (
        serving(url, tmp_path) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as probe,
        put_under_load(server, SEED) as load,
    ):
        for _ in range(3):
            await load.wait_for(30)
            await asyncio.to_thread(postgres.crash)
            await load.wait_for_refusals(5)
            assert [(await probe.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 503]
            await asyncio.to_thread(postgres.start)
        await load.wait_for(60)
        assert (await probe.get("/readyz")).status_code == 200
        await check(load, url, tmp_path)


async def test_the_database_ends_connections_in_mid_transaction(postgres: PostgresServer, tmp_path: Path) -> None:
    url = as_role(f"{postgres.url}/{DATABASE}", APP)
    in_transaction = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1 AND xact_start IS NOT NULL"
    async with serving(url, tmp_path) as server:
        superuser = await asyncpg.connect(f"{postgres.url}/postgres")
        ended = 0
        async with put_under_load(server, SEED) as load:
            async with asyncio.timeout(180):
                rounds = 0
                while rounds < 60 or ended <= 10 or not load.refused:
                    ended += await superuser.fetchval(in_transaction, APP)
                    rounds += 1
                    await asyncio.sleep(0.05)
            await load.wait_for(60)
            await superuser.close()
            await check(load, url, tmp_path)


async def test_connections_to_the_database_are_cut_anywhere(postgres: PostgresServer, tmp_path: Path) -> None:
    real = as_role(f"{postgres.url}/{DATABASE}", APP)
    async with run_proxy(postgres.port) as proxy:
        url = urlsplit(real)._replace(netloc=f"{APP}:{APP}@127.0.0.1:{proxy.port}").geturl()
        async with serving(url, tmp_path) as server, put_under_load(server, SEED) as load:
            rounds = cuts = 0
            async with asyncio.timeout(180):
                while rounds < 30 or cuts <= 30 or not load.refused:
                    cuts += proxy.cut()
                    rounds += 1
                    await asyncio.sleep(0.1)
            await load.wait_for(60)
            await check(load, real, tmp_path)


@pytest.mark.parametrize(("how", "seconds"), [("killed", AWAY_SECONDS), ("hung", AWAY_SECONDS / 2)])
async def test_s3_is_away(sqlite_url: str, s3: S3Server, tmp_path: Path, how: str, seconds: float) -> None:
    bucket = await s3.make_bucket()
    async with serving(sqlite_url, tmp_path, **bucket.environment) as server, put_under_load(server, SEED) as load:
        await load.wait_for(20)
        s3.kill() if how == "killed" else s3.pause()
        for _ in range(int(seconds)):
            await asyncio.sleep(1)
            assert (await load.client.get(f"/projects/{load.project_id}", timeout=15)).status_code == 200  # uploads wait for S3 for longer
        await asyncio.to_thread(s3.start) if how == "killed" else s3.resume()
        await load.wait_for(40)
        assert load.refused or how == "hung"
        await check(load, sqlite_url, tmp_path, bucket, refusals=frozenset({"store_unavailable"}))
