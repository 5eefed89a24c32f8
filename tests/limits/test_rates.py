"""Rate limits through HTTP: who is counted with whom, what every answer tells, and that it costs next to nothing."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.core.errors import UnavailableError
from app.db.roles import DatabaseRoleError, require_roles
from app.limits.buckets import LocalLimiter
from app.limits.shared import SharedLimiter
from tests.conftest import Caller, Service, make_settings, open_service
from tests.support.answers import at_once, read_problem, run_sql
from tests.support.database import open_database
from tests.support.keys import key_of, shows
from tests.support.metrics import growth, read_samples
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio

HERE, ELSEWHERE = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
LIMITED = "saasbase_rate_limited_requests_total"


@pytest.fixture(params=[False, True], ids=["in-process", "shared"])
def shared(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def limited(database_url: str, tmp_path: Path, **limits: Any) -> AsyncIterator[Service]:
    async with open_service(make_settings(database_url, tmp_path, limits=limits)) as service:
        yield service


def standing(answer: httpx.Response) -> tuple[int, int, int]:
    """Quota, what is left, and the seconds until it is whole again."""
    policy = re.fullmatch(r'"default";q=(\d+);w=60', answer.headers["ratelimit-policy"])
    left = re.fullmatch(r'"default";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    assert policy
    assert left
    return int(policy[1]), int(left[1]), int(left[2])


async def statuses_of(count: int, caller: Caller, path: str = "/organizations", **options: Any) -> list[int]:
    return [(await caller.get(path, None, **options)).status_code for _ in range(count)]


async def test_an_actor_is_told_what_is_left_and_then_to_wait(database_url: str, tmp_path: Path, shared: bool) -> None:
    async with limited(database_url, tmp_path, actor_per_minute=5, shared=shared) as service:
        alice = service.as_("user:alice")
        before = read_samples(await service.client.get("/metrics"))
        answers = [await alice.get("/organizations") for _ in range(5)]
        assert [standing(answer)[:2] for answer in answers] == [(5, left) for left in (4, 3, 2, 1, 0)]
        assert standing(answers[0])[2] == 12
        with statements_of_requests(service.runtime.context.database) as sent:
            for _ in range(3):
                refused = await alice.get("/organizations", None)
                read_problem(refused, 429, "rate_limited")
        assert standing(refused)[:2] == (5, 0)
        assert 1 <= int(refused.headers["retry-after"]) <= 12
        assert sum("rate_buckets" in str(statement) for statement in sent) <= 1, "who was refused is refused without another look"
        assert await statuses_of(1, service.as_("user:bob")) == [200]
        grown = growth(before, read_samples(await service.client.get("/metrics")), LIMITED)
        assert grown == {LIMITED: 3}


async def test_a_body_that_cannot_be_read_is_counted_like_any_other(database_url: str, tmp_path: Path, shared: bool) -> None:
    async with limited(database_url, tmp_path, peer_per_minute=3, actor_per_minute=2, shared=shared) as service:
        for body in (b"{bad", b'{"slug": 1}'):
            broken: dict[str, Any] = {"content": body, "headers": {"content-type": "application/json", **HERE}}
            actor = f"user:{uuid4()}"
            answers = [await service.as_(actor).post("/organizations", None, None, **broken) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [422, 422, 429]
            read_problem(answers[-1], 429, "rate_limited")
        answers = [await service.as_(None).post("/organizations", None, None, **broken) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [422, 422, 422, 429]


async def test_nobody_waits_in_line_for_a_database_that_does_not_answer(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.limits.shared.ANSWER_SECONDS", 0.3)
    async with open_database(database_url) as database, AsyncExitStack() as lent:
        for _ in range(1 if database.is_sqlite else database.limits.size):
            await lent.enter_async_context(database.writer.connect())
        limiter, started = SharedLimiter(database), time.monotonic()
        outcomes = await asyncio.gather(*(limiter.take("actor:user:alice", 60) for _ in range(100)), return_exceptions=True)
        assert time.monotonic() - started < 15, "each for himself: that would be thirty"
        assert {type(outcome) for outcome in outcomes} == {TimeoutError, UnavailableError}
        await lent.aclose()
        monkeypatch.undo()
        await asyncio.sleep(1)
        assert (await limiter.take("actor:user:alice", 60)).remaining


async def test_a_token_comes_back_when_it_was_said_to(database_url: str, tmp_path: Path, shared: bool) -> None:
    async with limited(database_url, tmp_path, actor_per_minute=60, shared=shared) as service:
        alice, started = service.as_("user:alice"), time.monotonic()
        answers = await at_once(*(alice.get("/organizations", None) for _ in range(120)))
        refused = [answer for answer in answers if answer.status_code == 429]
        came_back = time.monotonic() - started  # one each second
        assert 55 - came_back <= len(refused) <= 60
        await asyncio.sleep(int(refused[-1].headers["retry-after"]))
        assert await statuses_of(1, alice) == [200]


async def test_keys_actors_and_peers_are_counted_apart(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.LocalLimiter", lambda: LocalLimiter(lambda: 0.0))  # nothing comes back meanwhile
    async with limited(database_url, tmp_path, key_per_minute=2, actor_per_minute=6, peer_per_minute=3) as service:
        alice = service.as_("user:alice")
        organization = (await alice.new_organization())["id"]
        keys = [(await key_of(service, alice, "ORGANIZATION", organization, "ORG_MEMBER"))[0] for _ in range(2)]
        assert [await statuses_of(3, key, headers=HERE) for key in keys] == [[200, 200, 429]] * 2
        assert await statuses_of(4, alice, headers=HERE) == [200, 200, 200, 429]
        nobody = service.as_(None)
        assert await statuses_of(4, nobody, headers=HERE) == [401, 401, 401, 429]
        assert await statuses_of(1, nobody, headers=ELSEWHERE) == [401]
        assert await statuses_of(1, keys[0], headers=ELSEWHERE) == [429], "a key has one bucket wherever it is used"


async def test_failed_authentication_counts_for_the_address(database_url: str, tmp_path: Path) -> None:
    async with limited(database_url, tmp_path, peer_per_minute=3) as service:
        wrong = shows(service, "sbk_wrong")
        answers = [await wrong.get("/organizations", None, headers=HERE) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
        assert standing(answers[0])[:2] == (3, 2)
        with statements_of_requests(service.runtime.context.database) as sent:
            read_problem(await service.as_(None).get("/organizations", None, headers=HERE), 429, "rate_limited")
        assert sent == []
        neighbours = {"X-Forwarded-For": "2001:db8:1:2::1"}, {"X-Forwarded-For": "2001:db8:1:2:ffff::9"}
        for number in range(4):
            last = await wrong.get("/organizations", None, headers=neighbours[number % 2])
        assert last.status_code == 429, "one IPv6 host has a whole /64"


async def test_the_access_line_says_who_sent_too_much(database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with limited(database_url, tmp_path, actor_per_minute=1) as service:
        caplog.set_level(logging.INFO, "app.access")
        acting: dict[str, Any] = {"headers": {"X-SaaSBase-On-Behalf-Of": "user:bob"}}
        assert await statuses_of(2, service.as_("agent:helper"), **acting) == [200, 429]
    lines = [vars(record) for record in caplog.records if record.name == "app.access"]
    told = [(line["status"], line["actor"], line["on_behalf_of"]) for line in lines]
    assert told == [(status, "agent:helper", "user:bob") for status in (200, 429)]


async def test_a_caller_who_may_not_act_for_others_is_counted_too(database_url: str, tmp_path: Path) -> None:
    async with limited(database_url, tmp_path, peer_per_minute=2) as service:
        refused = shows(service, "sbk_x", **{"X-SaaSBase-On-Behalf-Of": "nobody at all:"})
        assert await statuses_of(3, refused) == [401, 401, 429]


async def test_what_is_off_tells_nothing_and_what_runs_the_service_is_never_limited(database_url: str, tmp_path: Path) -> None:
    async with limited(database_url, tmp_path, peer_per_minute=1) as service:
        known = await service.as_("user:alice").get("/organizations")
        assert "ratelimit" not in known.headers
        assert "ratelimit-policy" not in known.headers
        for path in ("/livez", "/readyz", "/metrics", "/version"):
            for _ in range(3):
                answer = await service.client.get(path)
                assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)
    async with limited(database_url, tmp_path) as service:
        assert service.runtime.limits is None


async def test_two_processes_share_one_quota(database_url: str, tmp_path: Path) -> None:
    limits = {"actor_per_minute": 100, "shared": True}
    async with limited(database_url, tmp_path, **limits) as one, limited(database_url, tmp_path, **limits) as other:
        callers = [one.as_("user:alice"), other.as_("user:alice")]
        started = time.monotonic()
        answers = await at_once(*(callers[number % 2].get("/organizations", None) for number in range(160)))
        served = sum(answer.status_code == 200 for answer in answers)
        came_back = (time.monotonic() - started) * 100 / 60
        assert 90 <= served <= 100 + came_back + 10, "a hundred, less what one of them holds, and what came back meanwhile"
        await other.runtime.limits.limiter.forget()  # type: ignore[union-attr] # they are on
        assert len(await run_sql(one, "SELECT bucket FROM rate_buckets")) == 1
        await run_sql(one, "UPDATE rate_buckets SET filled_at = filled_at - 200")
        await other.runtime.limits.limiter.forget()  # type: ignore[union-attr]
        assert await run_sql(one, "SELECT bucket FROM rate_buckets") == []


async def test_a_busy_caller_asks_the_database_seldom_and_nothing_of_him_is_stored(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.limits.shared.BUSY_SECONDS", 60)  # to a slow machine he would not seem busy
    async with limited(database_url, tmp_path, actor_per_minute=10_000, shared=True) as service:
        alice = service.as_("user:alice")
        with statements_of_requests(service.runtime.context.database) as sent:
            await at_once(*(alice.get("/organizations") for _ in range(300)))
        assert sum("rate_buckets" in statement for statement in map(str, sent)) <= 12
        assert "alice" not in str(await run_sql(service, "SELECT * FROM rate_buckets"))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_buckets_lie_in_an_unlogged_table_whose_rights_are_asked_for(database_url: str, tmp_path: Path) -> None:
    async with limited(database_url, tmp_path, actor_per_minute=10, shared=True) as service:
        assert await run_sql(service, "SELECT relpersistence::text FROM pg_class WHERE relname = 'rate_buckets'") == [("u",)]
        await run_sql(service, "REVOKE INSERT ON rate_buckets FROM saasbase_app")
        with pytest.raises(DatabaseRoleError, match="rate_buckets"):
            await require_roles(service.runtime.context.database)
