"""Guessing through HTTP: a guesser is slowed and shows in the metrics, an owner is not locked out, and no answer tells what was wrong."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.authn.guesses import GuessLimiter
from app.core.keys import KeyToken, new_token
from app.settings import Settings
from tests.conftest import Caller, Service, make_settings, open_service
from tests.support.answers import read_problem
from tests.support.keys import change_key, make_key, shows
from tests.support.metrics import Samples, growth, read_samples
from tests.support.server import run_server
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio

FAILURES = "saasbase_authentication_failures_total"
GUESSER, OWNER, NEIGHBOUR = "192.0.2.66", "198.51.100.1", "203.0.113.5"

Ask = Callable[..., Coroutine[None, None, httpx.Response]]


def guess(prefix: str | None = None) -> str:
    """A well-formed token that nobody was given."""
    token = new_token()
    return KeyToken(prefix or token.prefix, token.secret).written


def failures(**counts: int) -> Samples:
    return {f'{FAILURES}{{reason="{reason}"}}': count for reason, count in counts.items()}


@dataclass
class Clock:
    """What time it is to who counts attempts: a busy machine is not to give any of them back."""

    seconds: float = 0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def service(settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setattr("app.main.GuessLimiter", lambda verifier: GuessLimiter(verifier, lambda: clock.seconds))
    async with open_service(settings) as running:
        yield running


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


@pytest.fixture
def ask(service: Service, org: str) -> Ask:
    async def ask(token: str, address: str = GUESSER) -> httpx.Response:
        headers = {"X-Forwarded-For": address, "X-Request-ID": "same"}
        return await shows(service, token).get(f"/organizations/{org}", None, headers=headers)

    return ask


async def failures_of(service: Service) -> Samples:
    return growth({}, read_samples(await service.client.get("/metrics")), FAILURES)


async def test_the_sixth_guess_at_a_key_is_not_looked_at_while_its_owner_works(service: Service, alice: Caller, org: str, ask: Ask) -> None:
    made = await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER")
    prefix, before = made["api_key"]["prefix"], await failures_of(service)
    for _ in range(5):
        read_problem(await ask(guess(prefix)), 401, "unauthenticated")
    with statements_of_requests(service.runtime.context.database) as sent:
        for token in (guess(prefix), made["token"]):  # from there, not even the right one
            slowed = await ask(token)
            read_problem(slowed, 429, "too_many_attempts")
            assert 1 <= int(slowed.headers["retry-after"]) <= 10
    assert sent == []
    assert (await ask(made["token"], OWNER)).status_code == 200
    assert growth(before, await failures_of(service), FAILURES) == failures(invalid=5, slowed=2)


async def test_a_key_that_worked_goes_on_working_beside_a_guesser(alice: Caller, org: str, ask: Ask, clock: Clock) -> None:
    worked, fresh = [(await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["token"] for _ in range(2)]
    assert (await ask(worked)).status_code == 200
    assert {(await ask(guess())).status_code for _ in range(30)} == {401}
    for token in (guess(), "malformed", fresh):
        read_problem(await ask(token), 429, "too_many_attempts")
    assert (await ask(worked)).status_code == 200
    slowed = await ask(guess())
    clock.seconds += int(slowed.headers["retry-after"])
    assert (await ask(fresh)).status_code == 200


async def test_revoking_holds_from_the_next_request_however_often_a_key_has_worked(alice: Caller, org: str, ask: Ask) -> None:
    made = await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER")
    assert (await ask(made["token"])).status_code == 200
    await alice.post(f"/api-keys/{made['api_key']['id']}/revoke", expect=200)
    assert [(await ask(made["token"])).status_code for _ in range(8)] == [401] * 6 + [429] * 2


async def test_every_failed_attempt_is_counted_once(service: Service, alice: Caller, ask: Ask) -> None:
    before = await failures_of(service)
    for token in (guess(), "x", "sbk_x.y"):
        read_problem(await ask(token), 401)
    for shown in ("Basic YTpi", "Bearer", ""):
        await alice.get("/organizations", 401, headers={"Authorization": shown})
    await service.as_(None).get("/organizations", 401)  # shows nothing, so nothing has failed
    answers = await asyncio.gather(*(ask(guess("aaaabbbbcccc"), NEIGHBOUR) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 45
    assert growth(before, await failures_of(service), FAILURES) == failures(malformed=5, invalid=6, slowed=45)


async def test_unknown_wrong_expired_and_revoked_take_the_same_steps_to_the_same_bytes(
    service: Service, alice: Caller, org: str, ask: Ask
) -> None:
    expired, revoked, good = [await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER") for _ in range(3)]
    await change_key(service, expired["api_key"]["id"], expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await alice.post(f"/api-keys/{revoked['api_key']['id']}/revoke", expect=200)
    shown = [guess(), guess(good["api_key"]["prefix"]), expired["token"], revoked["token"], "malformed"]
    answers, sent = [], []
    for token in shown:
        with statements_of_requests(service.runtime.context.database) as statements:
            answers.append(await ask(token))
        sent.append(list(statements))
    assert {(answer.status_code, answer.content, str(answer.headers)) for answer in answers} == {
        (401, answers[0].content, str(answers[0].headers))
    }
    assert len(sent[0]) == 1
    assert sent[1:4] == [sent[0]] * 3
    assert sent[4] == [], "what has no form of a key names no row: its form is no secret"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_limit_can_be_switched_off_and_failures_are_counted_all_the_same(database_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(database_url, tmp_path, api_keys={"guess_limit": False})) as service:
        before = await failures_of(service)
        for _ in range(40):
            await shows(service, guess("aaaabbbbcccc")).get("/organizations", 401)
        assert growth(before, await failures_of(service), FAILURES) == failures(invalid=40)


def test_two_workers_count_together(database_url: str, tmp_path: Path) -> None:
    with run_server(database_url, tmp_path, workers=2) as server, ThreadPoolExecutor(8) as threads:

        def ask(number: int) -> int:
            headers = {"Authorization": f"Bearer {guess()}", "X-Forwarded-For": f"10.0.{number}.1"}
            return httpx.get(f"{server.url}/api/organizations", headers=headers, timeout=60).status_code

        def failed(_number: int) -> Samples:
            return growth({}, read_samples(httpx.get(f"{server.url}/metrics", timeout=60)), FAILURES)

        assert set(threads.map(ask, range(100))) == {401}
        assert list(threads.map(failed, range(10))) == [failures(invalid=100)] * 10

        def ask_again(_number: int) -> int:
            return ask(200)

        statuses = list(threads.map(ask_again, range(100)))
        slowed = statuses.count(429)
        assert 0 < slowed <= 70  # each worker has its own buckets, and they fill again meanwhile
        assert failed(0) == failures(invalid=200 - slowed, slowed=slowed)
        assert "sbk_" not in server.log
        assert server.log.count("is slowed") <= 2
