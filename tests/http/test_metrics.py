"""/metrics: every number is what happened, whichever worker is asked, and no number says to whom."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Caller, Service, make_settings, open_service
from tests.support.answers import read_problem
from tests.support.keys import make_key, shows
from tests.support.metrics import Samples, growth, read_samples
from tests.support.server import run_server
from tests.support.wire import BOUNDARY, Wire

pytestmark = pytest.mark.anyio

COUNT = "saasbase_http_request_duration_seconds_count"
IN_FLIGHT = "saasbase_http_requests_in_flight"
LIMIT = "saasbase_database_connections_limit"
DECISIONS = "saasbase_authorization_decisions_total"


async def metrics_of(service: Service) -> Samples:
    return read_samples(await service.client.get("/metrics"))


def requests(method: str, route: str, status: str) -> str:
    return f'{COUNT}{{method="{method}",route="{route}",status="{status}"}}'


async def test_requests_are_counted_by_method_route_and_status_and_by_nothing_a_caller_chooses(service: Service, alice: Caller) -> None:
    organization = (await alice.new_organization())["id"]
    before = await metrics_of(service)
    for _ in range(2):
        await alice.get(f"/organizations/{organization}")
    await alice.get(f"/organizations/{uuid4()}", 404)
    await alice.request("HEAD", f"/organizations/{organization}", 200)
    await alice.patch(f"/organizations/{organization}", {"x": 1}, 422)
    for method, path in (("BREW", "/api/organizations"), ("GET", "/nothing/here"), ("GET", "/static/favicon.png")):
        await service.client.request(method, path)
    route = "/api/organizations/{organization_id}"
    assert growth(before, await metrics_of(service), COUNT) == {
        requests("GET", route, "2xx"): 2,
        requests("GET", route, "4xx"): 1,
        requests("HEAD", route, "2xx"): 1,
        requests("PATCH", route, "4xx"): 1,
        requests("other", "none", "4xx"): 1,
        requests("GET", "none", "4xx"): 1,
        requests("GET", "none", "2xx"): 1,
        requests("GET", "/metrics", "2xx"): 1,
    }


async def test_a_duration_falls_into_its_buckets(service: Service, alice: Caller) -> None:
    before = await metrics_of(service)
    started = time.perf_counter()
    await alice.get("/organizations")
    passed = time.perf_counter() - started
    found = growth(before, await metrics_of(service), 'seconds_sum{method="GET",route="/api/organizations",')
    assert 0 < sum(found.values()) <= passed
    buckets = growth(before, await metrics_of(service), 'bucket{le="60.0",method="GET",route="/api/organizations",')
    assert list(buckets.values()) == [1]


async def test_a_request_is_in_flight_until_it_is_answered(service: Service, alice: Caller) -> None:
    project = await alice.new_project((await alice.new_organization())["id"])
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield b"nothing of a form"

    assert (await metrics_of(service))[IN_FLIGHT] == 1  # the question itself
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    sending = asyncio.create_task(alice.request("POST", f"/projects/{project['id']}/documents", 400, content=body(), headers=kind))
    await begun.wait()
    assert (await metrics_of(service))[IN_FLIGHT] == 2
    go_on.set()
    await sending
    assert (await metrics_of(service))[IN_FLIGHT] == 1


async def test_uploaded_bytes_are_those_of_files_that_came_in_whole(service: Service, alice: Caller) -> None:
    project = await alice.new_project((await alice.new_organization())["id"])
    before = await metrics_of(service)
    document = await alice.new_document(project["id"], b"x" * 70_000)
    await alice.upload(f"/documents/{document['id']}/versions", b"y" * 3, version_name="second")
    await alice.upload(f"/projects/{project['id']}/documents", b"", expect=400)
    assert growth(before, await metrics_of(service), "upload_bytes") == {"saasbase_upload_bytes_total": 70_003}


async def until_in_use(service: Service, count: int) -> Samples:
    """What is told once that many connections are; they are counted every second, on a busy machine a little later."""
    async with asyncio.timeout(60):
        while (told := await metrics_of(service))["saasbase_database_connections_in_use"] != count:
            await asyncio.sleep(0.1)
    return told


async def test_connections_in_use_are_told_within_a_second(service: Service) -> None:
    limit = service.runtime.context.database.count_connections()[1]
    name = "saasbase_database_connections"
    async with AsyncExitStack() as held:
        for _ in range(3):  # more than jobs have, and for longer
            await held.enter_async_context(service.runtime.context.database.open_read())
        told = await until_in_use(service, 3)
    assert told[f"{name}_limit"] == (await until_in_use(service, 0))[f"{name}_limit"] == limit >= 5


async def test_decisions_are_counted_and_the_invisible_like_the_absent(service: Service, alice: Caller, bob: Caller) -> None:
    organization = (await alice.new_organization())["id"]
    await alice.grant("ORGANIZATION", organization, "user:bob", "ORG_MEMBER")
    before = await metrics_of(service)
    await bob.get(f"/organizations/{organization}")
    await bob.get("/projects")
    assert growth(before, await metrics_of(service), DECISIONS) == {f'{DECISIONS}{{outcome="allowed"}}': 2}
    before = await metrics_of(service)
    await bob.patch(f"/organizations/{organization}", {"name": "x"}, 403)
    assert growth(before, await metrics_of(service), DECISIONS) == {f'{DECISIONS}{{outcome="forbidden"}}': 1}
    for caller, status in ((service.as_("user:mallory"), 404), (service.as_(None), 401)):
        grown = []
        for path in (f"/organizations/{organization}", f"/organizations/{uuid4()}"):
            before = await metrics_of(service)
            await caller.get(path, status)
            grown.append(growth(before, await metrics_of(service), DECISIONS))
        assert grown[0] == grown[1] == {f'{DECISIONS}{{outcome="not_found"}}': 1}


async def test_answers_to_who_asks_about_rights_are_counted_by_surface(service: Service, alice: Caller, bob: Caller) -> None:
    organization = (await alice.new_organization())["id"]

    def asked(place: str, who: str) -> dict[str, str]:
        return {
            "actor_type": "USER",
            "actor_id": who,
            "action": "ORGANIZATION_READ",
            "resource_type": "ORGANIZATION",
            "resource_id": place,
        }

    def evaluation(who: str) -> dict[str, Any]:
        subject, resource = {"type": "user", "id": who}, {"type": "organization", "id": organization}
        return {"subject": subject, "action": {"name": "read"}, "resource": resource}

    async def grown(caller: Caller, path: str, body: dict[str, Any], status: int = 200) -> dict[tuple[str, ...], float]:
        before = await metrics_of(service)
        await caller.post(path, body, status)
        found = growth(before, await metrics_of(service), "authorization_answers_total")
        return {tuple(re.findall(r'"(\w+)"', name)): count for name, count in found.items()}

    allowed, denied = ("allowed", "authz"), ("denied", "authz")
    assert await grown(alice, "/authz/check", asked(organization, "alice")) == {allowed: 1}
    assert await grown(alice, "/authz/check", asked(organization, "bob")) == {denied: 1}
    for place in (organization, str(uuid4())):
        assert await grown(bob, "/authz/check", asked(place, "alice"), 404) == {denied: 1}, "the invisible and the absent alike"
    checks = [asked(organization, who) for who in ("alice", "bob", "carol")]
    assert await grown(alice, "/authz/batch-check", {"checks": checks}) == {allowed: 1, denied: 2}
    assert await grown(alice, "/access/v1/evaluation", evaluation("alice")) == {("allowed", "authzen"): 1}
    evaluations = {"evaluations": [evaluation("bob"), evaluation("alice")], "options": {"evaluations_semantic": "deny_on_first_deny"}}
    assert await grown(alice, "/access/v1/evaluations", evaluations) == {("denied", "authzen"): 1}, "what was answered, and no more"


async def test_no_name_id_or_secret_is_told(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    made = await make_key(alice, "ORGANIZATION", organization["id"], "ORG_MEMBER")
    await shows(service, made["token"]).get(f"/organizations/{organization['id']}")
    await shows(service, made["token"][:-1] + "x").get(f"/organizations/{organization['id']}", 401)
    text = (await service.client.get("/metrics")).text
    key = made["api_key"]
    for told in ("alice", "sbk_", key["prefix"], key["id"], made["token"].partition(".")[2], organization["id"], organization["slug"]):
        assert told not in text


async def test_every_metric_is_in_the_readme_and_no_other(service: Service) -> None:
    told = re.findall(r"^# TYPE (\w+)", (await service.client.get("/metrics")).text, re.MULTILINE)
    section = (Path(__file__).parents[2] / "README.md").read_text().partition("\n## Observe\n")[2].partition("\n## ")[0]
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in section.splitlines() if line.startswith("| `")]
    shown = {name if name.startswith("saasbase_") else names[0].rpartition("_in_use")[0] + name for names in rows for name in names}
    assert shown == set(told)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_metrics_can_be_closed(database_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(database_url, tmp_path, web={"metrics": False})) as service:
        read_problem(await service.client.get("/metrics"), 404, "not_found")
        assert (await service.client.get("/livez")).status_code == 200


def worker_files(folder: Path, kind: str) -> dict[int, Path]:
    return {int(path.stem.rpartition("_")[2]): path for path in folder.glob(f"saasbase-metrics-*/{kind}_*.db")}


def with_work(folder: Path, route: str) -> list[int]:
    """The workers that have answered requests of a route. Which of them takes a connection is up to the kernel."""
    return [pid for pid, path in worker_files(folder, "histogram").items() if f'{route}"'.encode() in path.read_bytes()]


def test_several_workers_tell_their_sum_and_forget_what_went_on_in_a_dead_one(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    actor = {"X-SaaSBase-Actor": "user:alice"}
    with run_server(database_url, tmp_path, workers=2, TMPDIR=str(folder)) as server:

        def ask(_number: int = 0) -> Samples:
            return read_samples(httpx.get(f"{server.url}/metrics", timeout=60, verify=False))

        def list_once(_number: int) -> int:
            return httpx.get(f"{server.url}/api/organizations", headers=actor, timeout=60, verify=False).status_code

        with ThreadPoolExecutor(8) as threads:
            name, count = requests("GET", "/api/organizations", "2xx"), 0
            while len(with_work(folder, "/api/organizations")) < 2:
                assert set(threads.map(list_once, range(200))) == {200}
                count += 200
            wait_until(lambda: ask()[name] == count)  # each is counted when its answer has left
            assert {samples[name] for samples in threads.map(ask, range(20))} == {count}
        workers = worker_files(folder, "gauge_livesum").keys()
        assert len(workers) == 2
        limit = 2 * (5 if database_url.startswith("sqlite") else 8)
        wait_until(lambda: ask()[LIMIT] == limit)
        with Wire(server.url) as wire:
            wire.send_head("POST", "/api/organizations", content_type="application/json", content_length="10")
            wait_until(lambda: ask()[IN_FLIGHT] == 2)
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ask()[LIMIT] == limit and worker_files(folder, "gauge_livesum").keys().isdisjoint(workers))
        wait_until(lambda: ask()[IN_FLIGHT] == 1)
        assert ask()[name] == count, "what was counted stays"
        assert server.stop() == 0
    assert list(folder.iterdir()) == []


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):  # while there is no worker
            if is_so():
                return
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


def test_one_worker_needs_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, TMPDIR=str(folder)) as server:
        assert read_samples(httpx.get(f"{server.url}/metrics", timeout=60))[requests("GET", "/readyz", "2xx")] == 1
        assert list(folder.iterdir()) == []
