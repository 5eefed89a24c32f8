"""While OpenFGA does not answer nothing is allowed and nothing denied, unless SQL may decide."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from app.authz.openfga_client import CircuitBreaker, OpenFGAClient
from app.authz.openfga_terms import OpenFGADownError, OpenFGAError
from app.authz.reconcile import reconcile
from tests.conftest import Caller, Service, open_service
from tests.openfga.conftest import openfga_settings
from tests.openfga.copy import assert_copy_is_true, client_of, outbox_of, send_all, unsent
from tests.resources.memberships.test_api import revoke
from tests.support.answers import read_problem
from tests.support.openfga import OpenFGAServer, run_openfga

pytestmark = pytest.mark.anyio

SAME = {"X-Request-ID": "same"}


async def ready(service: Service) -> httpx.Response:
    return await service.client.get("/readyz")


async def fallbacks(service: Service) -> float:
    """What /metrics says."""
    lines = (await service.client.get("/metrics")).text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith("saasbase_authorization_fallbacks_total"))


async def until_allowed(caller: Caller, path: str) -> None:
    """Ask until the breaker lets a request through again."""
    for _ in range(1200):
        if (await caller.get(path, None)).status_code == 200:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it does not recover")


@pytest.fixture
async def on_its_own(own_server: OpenFGAServer, database_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """A service whose OpenFGA may die."""
    async with open_service(openfga_settings(own_server, database_url, tmp_path)) as running:
        yield running


async def test_a_dead_server_is_503_and_readyz_red_until_it_lives_again(on_its_own: Service, own_server: OpenFGAServer) -> None:
    service, alice, mallory = on_its_own, on_its_own.as_("user:alice"), on_its_own.as_("user:mallory")
    org = (await alice.new_organization())["id"]
    await send_all(service)
    path = f"/organizations/{org}"
    assert (await ready(service)).json()["authorization"] == "ok"
    own_server.kill()
    for _ in range(8):  # before and after the breaker opens
        answer = await alice.get(path, 503)
        read_problem(answer, 503, "authorization_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    refusals = [await mallory.request(method, path, 503, headers=SAME) for method in ("GET", "DELETE")]
    absent = await mallory.get(f"/organizations/{uuid4()}", 503, headers=SAME)
    assert {**absent.json(), "instance": ""} == {**refusals[0].json(), "instance": ""}, "an outage tells what exists"
    assert (await alice.get("/organizations")).json()["total_items"] == 1, "lists are SQL's"
    red = await ready(service)
    assert red.status_code == 503
    assert "OpenFGA" in red.json()["authorization"]
    own_server.start()  # with an empty memory: nothing is allowed until the store is made again
    store = client_of(service)
    store.store_id = own_server.new_store()
    await asyncio.sleep(2.1)
    found = await reconcile(service.runtime.context.database, store, outbox_of(service), is_dry_run=False)
    assert (found.missing, found.excess, found.unsent) == (1, 0, 0)
    await until_allowed(alice, path)
    await mallory.get(path, 404)
    assert (await ready(service)).status_code == 200


async def test_a_silent_server_is_503_in_time_and_then_at_once(own_server: OpenFGAServer, database_url: str, tmp_path: Path) -> None:
    settings = openfga_settings(own_server, database_url, tmp_path, openfga={"timeout_seconds": 1})
    async with open_service(settings) as service:
        alice = service.as_("user:alice")
        org = (await alice.new_organization())["id"]
        await send_all(service)
        loop = asyncio.get_running_loop()
        own_server.pause()
        try:
            started = loop.time()
            answers = await asyncio.gather(*(alice.get(f"/organizations/{org}", 503) for _ in range(6)))
            assert loop.time() - started < 30
            assert {answer.json()["code"] for answer in answers} == {"authorization_unavailable"}
            async with asyncio.timeout(60):  # the breaker is open: nobody waits, but who comes when it is time to try again
                while True:
                    started = loop.time()
                    await alice.get(f"/organizations/{org}", 503)
                    if loop.time() - started < 0.9:
                        break
        finally:
            own_server.resume()
        await until_allowed(alice, f"/organizations/{org}")
        await assert_copy_is_true(service)


async def test_changes_made_while_it_was_away_hold_at_once_and_reach_it_later(on_its_own: Service, own_server: OpenFGAServer) -> None:
    """An organization with a change on its way is SQL's, so whoever began there can go on; the change is sent when the server is back."""
    service, alice, bob = on_its_own, on_its_own.as_("user:alice"), on_its_own.as_("user:bob")
    own_server.pause()
    org = (await alice.new_organization())["id"]  # nothing is asked: nobody owns anything yet
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER")
    await bob.get(f"/organizations/{org}")
    await revoke(alice, 204, "ORGANIZATION", org, "user:bob", "ORG_MEMBER")
    await bob.get(f"/organizations/{org}", 404)
    assert await unsent(service) == 3
    own_server.resume()
    await assert_copy_is_true(service)
    await alice.get(f"/organizations/{org}")
    await bob.get(f"/organizations/{org}", 404)


async def test_sql_decides_when_it_may_and_says_so_once(
    own_server: OpenFGAServer, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = openfga_settings(own_server, database_url, tmp_path, fallback="sql")
    async with open_service(settings) as service:
        alice, mallory = service.as_("user:alice"), service.as_("user:mallory")
        org = (await alice.new_organization())["id"]
        await send_all(service)
        before = await fallbacks(service)
        own_server.kill()
        with caplog.at_level(logging.WARNING, "app.authz.openfga"):
            for _ in range(4):
                await alice.get(f"/organizations/{org}")
                await mallory.get(f"/organizations/{org}", 404)
        assert await fallbacks(service) - before == 8
        assert [record.getMessage().count("SQL decides") for record in caplog.records if record.name == "app.authz.openfga"] == [1]
        assert (await ready(service)).status_code == 503


@pytest.mark.parametrize("store", ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense"])
async def test_a_store_that_is_not_there_is_503_and_said(
    store: str, openfga_server: OpenFGAServer, database_url: str, tmp_path: Path
) -> None:
    settings = openfga_settings(openfga_server, database_url, tmp_path, openfga={"store_id": store})
    async with open_service(settings) as service:
        read_problem(await service.as_("user:alice").get(f"/organizations/{uuid4()}", 503), 503, "authorization_unavailable")
        assert (await ready(service)).status_code == 503


async def test_a_key_that_the_server_wants_is_sent_and_never_shown(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with run_openfga("--authn-method", "preshared", "--authn-preshared-keys", "geheim") as server:
        for token, status in (("geheim", 200), ("geheim-nicht", 503)):
            settings = openfga_settings(server, database_url, tmp_path, openfga={"token": token})
            async with open_service(settings) as service:
                assert (await ready(service)).status_code == status
                assert token not in (await ready(service)).text
    assert "geheim" not in caplog.text


async def test_a_refused_question_is_told_apart_from_no_answer(openfga_server: OpenFGAServer) -> None:
    client = OpenFGAClient(openfga_server.url, openfga_server.new_store(), timeout_seconds=30)
    for _ in range(6):
        with pytest.raises(OpenFGAError, match="refuses: 400") as caught:
            await client.add_model({"schema_version": "1.1"})
        assert not isinstance(caught.value, OpenFGADownError), "a fault of ours is no outage, and opens no breaker"
    await client.check()
    await client.aclose()


def fail(breaker: CircuitBreaker) -> None:
    with pytest.raises(OpenFGADownError, match="away"), breaker.guard():
        raise OpenFGADownError("away")


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    breaker = CircuitBreaker(failures=3, pause_seconds=2)
    for _ in range(2):
        fail(breaker)
    with breaker.guard():
        pass  # in a row: this one starts the count again
    for _ in range(3):
        fail(breaker)
    with pytest.raises(OpenFGADownError, match="for a while"), breaker.guard():
        pass
    clock[0] += 2
    with breaker.guard(), pytest.raises(OpenFGADownError, match="for a while"), breaker.guard():  # the first is the probe
        pass
    with breaker.guard(), breaker.guard():
        pass
    for _ in range(3):
        fail(breaker)
    clock[0] += 2
    fail(breaker)
    with pytest.raises(OpenFGADownError, match="for a while"), breaker.guard():
        pass
    clock[0] += 2
    with pytest.raises(asyncio.CancelledError), breaker.guard():
        raise asyncio.CancelledError  # whoever asked went away: the next one probes
    with breaker.guard():
        pass
