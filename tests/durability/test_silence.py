"""PostgreSQL falls silent, and no connection breaks: nobody waits much longer than a statement may take, and work goes on by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text

from app.db.engine import Database, PoolLimits
from app.db.lookups import Lookup
from app.db.silence import GRACE_SECONDS
from app.models import Organization
from tests.conftest import Caller
from tests.durability.conftest import check, serving
from tests.support.cli import run_saasbase
from tests.support.database import APP, as_role, environment_of, open_database, wall_of
from tests.support.inventory import take_inventory
from tests.support.load import put_under_load
from tests.support.metrics import read_samples
from tests.support.proxy import Proxy, run_proxy
from tests.support.server import Server

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)]

STATEMENT_SECONDS = 0.5
PROMISED_SECONDS = STATEMENT_SECONDS + 15  # it is about four; who waits in vain waits for a minute, or for ever
TICK_SECONDS = 0.1
SETTINGS = {"SAASBASE_DATABASE__STATEMENT_TIMEOUT_SECONDS": str(STATEMENT_SECONDS)}
EVERY_SECOND = ("executions_past_their_deadline", "denied_attempts", "last_use_of_keys", "audit_chain", "lags")  # or a few of them
LOOKUP = Lookup(Organization.__table__.select().where(Organization.slug == "x"))


@asynccontextmanager
async def between(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the database, and the URL that leads through it."""
    async with run_proxy(urlsplit(url).port or 5432) as proxy:
        yield proxy, as_role(urlsplit(url)._replace(netloc=f"127.0.0.1:{proxy.port}").geturl(), APP)


@asynccontextmanager
async def in_time(seconds: float = PROMISED_SECONDS) -> AsyncIterator[None]:
    """The block takes less than that; how late this process comes when the machine is busy, or stands still, is not counted."""
    late = 0.0

    async def watch() -> None:
        nonlocal late
        while True:
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            late += time.monotonic() - due

    started = time.monotonic()
    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        passed = time.monotonic() - started
        for _ in range(3):  # what came late just now is counted, too
            await asyncio.sleep(0)
        watching.cancel()
    assert passed - late < seconds, (passed, late)


# What may be under way when nothing comes through any more: each takes the proxy, which it tells when.
async def a_statement(database: Database, proxy: Proxy) -> None:
    async with database.writer.connect() as connection:
        await connection.execute(text("SELECT 1"))
        proxy.fall_silent()
        await connection.execute(text("SELECT 2"))


async def many_rows(database: Database, proxy: Proxy) -> None:
    async with database.writer.connect() as connection:
        proxy.fall_silent()
        rows = [{"bucket": f"{number}", "tokens": 1, "granted": 1, "filled_at": 1} for number in range(20_000)]
        values = "(:bucket, :tokens, :granted, :filled_at)"
        await connection.execute(text(f"INSERT INTO rate_buckets (bucket, tokens, granted, filled_at) VALUES {values}"), rows)


async def a_beginning(database: Database, proxy: Proxy) -> None:
    proxy.silent_at = [b"BEGIN"]
    async with database.writer.begin() as connection:
        await connection.execute(text("SELECT 1"))


async def a_commit(database: Database, proxy: Proxy) -> None:
    proxy.silent_at = [b"COMMIT"]
    async with database.writer.begin() as connection:
        await connection.execute(text("SELECT 1"))


async def a_rollback(database: Database, proxy: Proxy) -> None:
    proxy.silent_at = [b"ROLLBACK"]
    async with database.writer.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def a_look_up(database: Database, proxy: Proxy) -> None:
    proxy.fall_silent()
    await database.look_up(LOOKUP, {})


async def a_new_connection(database: Database, proxy: Proxy) -> None:
    await database.aclose()
    proxy.fall_silent()
    await database.look_up(LOOKUP, {})


async def the_end_of_a_forgotten_statement(database: Database, proxy: Proxy) -> None:
    name_bytes = len("__saasbase_") + 32 + len("__")
    proxy.silent_at = [b"C" + (4 + 1 + name_bytes + 1).to_bytes(4, "big") + b"S__saasbase_"]  # PostgreSQL's message Close
    async with database.writer.connect() as connection:
        for number in range(3):
            await connection.execute(text(f"SELECT {number}"))


Work = Callable[[Database, Proxy], Awaitable[Any]]
DIRECT: list[Work] = [a_statement, many_rows, a_beginning, a_commit, a_rollback, a_look_up, a_new_connection]
POOLED: list[Work] = [a_statement, a_look_up, the_end_of_a_forgotten_statement]


async def use_two(database: Database) -> None:
    """All connections there may be, at once."""
    async with database.writer.connect() as first, database.writer.connect() as second:
        await first.execute(text("SELECT 1"))
        await second.execute(text("SELECT 1"))


async def give_up(url: str, work: Work, *, pooler: bool) -> None:
    limits = PoolLimits(size=2, statement_seconds=STATEMENT_SECONDS, transaction_pooler=pooler)
    async with between(url) as (proxy, through):
        database = Database.from_url(through, limits, wall_of(through))
        try:
            await use_two(database)
            async with in_time():
                with pytest.raises(TimeoutError):
                    await work(database, proxy)
            assert database.count_connections()[0] == 0
            proxy.silent_at = []
            proxy.speak(forgetting=True)
            async with in_time():
                await use_two(database)
            proxy.fall_silent()
        finally:
            async with in_time():
                await database.aclose()


async def test_whatever_is_under_way_is_given_up_in_time(database_url: str) -> None:
    async with asyncio.TaskGroup() as together:
        for pooler, some in ((False, DIRECT), (True, POOLED)):
            for work in some:
                together.create_task(give_up(database_url, work, pooler=pooler), name=work.__name__)


async def test_a_slow_answer_is_no_silence(database_url: str) -> None:
    """Who has no limit for statements, as migrations have none, waits."""
    async with open_database(database_url) as database:
        unlimited = Database(database.url, PoolLimits(size=1, statement_seconds=0))
        try:
            async with unlimited.open_read() as connection:
                await connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": GRACE_SECONDS + 1})
        finally:
            await unlimited.aclose()


async def ask_everything(caller: Caller, project: str) -> list[httpx.Response]:
    file: Any = {"file": ("f.txt", b"hello")}
    asked = [
        caller.get("/me", None),
        caller.get("/projects", None),
        caller.get(f"/projects/{project}", None),
        caller.patch(f"/projects/{project}", {"name": "x"}, None),
        caller.request("POST", f"/projects/{project}/documents", files=file),
    ]
    return list(await asyncio.gather(*asked))


@asynccontextmanager
async def behind_a_proxy(database_url: str, tmp_path: Path, **settings: str) -> AsyncIterator[tuple[Proxy, Server, Caller, str]]:
    """A service whose database can be made to fall silent, a caller of it, and a project of theirs."""
    async with (
        between(database_url) as (proxy, url),
        serving(url, tmp_path, **SETTINGS, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        alice = Caller(client, {"X-SaaSBase-Actor": "user:alice"})
        yield proxy, server, alice, (await alice.new_project((await alice.new_organization())["id"]))["id"]


async def runs_of_jobs(server: Server, word: str = "job_runs_total") -> dict[str, float]:
    async with httpx.AsyncClient(timeout=60) as client:
        samples = read_samples(await client.get(f"{server.url}/metrics"))
    return {name: value for name, value in samples.items() if word in name and any(job in name for job in EVERY_SECOND)}


async def failed_jobs(server: Server) -> dict[str, float]:
    return await runs_of_jobs(server, "job_failures_total")


async def until_all_have_run(server: Server, times: int) -> None:
    """Until each of the jobs has come to its end that often, from now on."""
    wanted = {name: runs + times for name, runs in (await runs_of_jobs(server)).items()}
    assert len(wanted) == len(EVERY_SECOND)
    async with asyncio.timeout(90):
        while any(runs < wanted[name] for name, runs in (await runs_of_jobs(server)).items()):
            await asyncio.sleep(0.1)


async def test_every_request_is_answered_in_time_and_jobs_go_on(database_url: str, tmp_path: Path) -> None:
    async with behind_a_proxy(database_url, tmp_path) as (proxy, server, alice, project):
        proxy.fall_silent()
        for _ in range(2):
            async with in_time():
                answers = await ask_everything(alice, project)
            assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "database_unavailable")}
            assert {answer.headers["retry-after"] for answer in answers} == {"1"}
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            assert [(await client.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 503]
        assert (await failed_jobs(server))['saasbase_job_failures_total{name="audit_chain"}'] > 0
        proxy.speak(forgetting=True)
        async with in_time():
            answers = await ask_everything(alice, project)
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 201]
        await until_all_have_run(server, 1)
        before = await failed_jobs(server)
        await until_all_have_run(server, 2)
        assert await failed_jobs(server) == before, "every job has come to its end again"


@pytest.mark.parametrize("pooler", [False, True])
async def test_a_commit_that_is_not_answered_may_have_been_made_and_keeps_its_bytes(
    database_url: str, tmp_path: Path, *, pooler: bool
) -> None:
    async with behind_a_proxy(database_url, tmp_path, SAASBASE_DATABASE__TRANSACTION_POOLER=str(pooler)) as (proxy, _, alice, project):
        # The name is among the values of the one statement that writes, and commits unless a pooler is between.
        proxy.silent_at, proxy.heard = [b"unanswered.txt", *([b"COMMIT"] if pooler else [])], True
        async with in_time():
            refused = await alice.upload(f"/projects/{project}/documents", b"unknown", expect=503, file_name="unanswered.txt")
        assert refused.json()["detail"] == "The database does not answer. See whether your change was made, and try again."
        assert (await alice.get("/me", None)).status_code == 503
        proxy.silent_at = []
        proxy.speak()
        (document,) = (await alice.get(f"/documents?project_id={project}")).json()["items"]
        assert (await alice.get(f"/documents/{document['id']}/content")).content == b"unknown"
        (await take_inventory(database_url, tmp_path)).check()


async def test_under_load_what_was_acknowledged_is_there(database_url: str, tmp_path: Path) -> None:
    async with (
        between(database_url) as (proxy, url),
        serving(url, tmp_path, **SETTINGS) as server,
        put_under_load(server, 4711) as load,
    ):
        for forgetting in (False, True):
            await load.wait_for(30)
            proxy.fall_silent()
            await load.wait_for_refusals(8)
            proxy.speak(forgetting=forgetting)
        await load.wait_for(60)
        await check(load, database_url, tmp_path)


async def test_the_service_ends_in_time(database_url: str, tmp_path: Path) -> None:
    async with (
        between(database_url) as (proxy, url),
        serving(url, tmp_path) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        alice, bob = (Caller(client, {"X-SaaSBase-Actor": f"user:{name}"}) for name in ("alice", "bob"))
        organization = (await alice.new_organization())["id"]
        await alice.grant("ORGANIZATION", organization, "user:bob", "ORG_MEMBER")
        proxy.silent_at = [b"ACCESS_DENIED"]  # which a job writes down
        await bob.delete(f"/organizations/{organization}", 403)
        await asyncio.wait_for(proxy.silence.wait(), 60)
        async with in_time(20):  # though a statement may take thirty seconds
            assert await asyncio.to_thread(server.stop) == 0
        assert "denied attempts may not have been written" in server.log


async def test_the_start_ends_with_one_line(database_url: str, tmp_path: Path) -> None:
    async with between(database_url) as (proxy, url):
        proxy.fall_silent()
        ended = await asyncio.to_thread(run_saasbase, tmp_path, "serve", **environment_of(url), **SETTINGS)
        assert (ended.status, ended.err) == (1, "saasbase: the database cannot be used: TimeoutError\n")
