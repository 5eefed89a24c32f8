"""What browsers and caches are told with every answer, and which pages may call the API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Service, make_settings, open_service
from tests.support.answers import read_problem
from tests.support.keys import make_key
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio

APP, OTHER = "https://app.example.com", "https://other.example.com"
PREFLIGHT = {
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "authorization,content-type,if-match,x-saasbase-actor,x-correlation-id",
}


@asynccontextmanager
async def serving(tmp_path: Path, **sections: Any) -> AsyncIterator[Service]:
    """What is told does not depend on the database."""
    async with open_service(make_settings(f"sqlite:///{tmp_path}/test.db", tmp_path, **sections)) as service:
        yield service


async def answers_of_every_kind(service: Service) -> list[httpx.Response]:
    alice = service.as_("user:alice")
    organization = (await alice.new_organization())["id"]
    project = (await alice.new_project(organization))["id"]
    document = (await alice.upload(f"/projects/{project}/documents")).json()["id"]
    return [
        await alice.get(f"/organizations/{organization}"),
        await alice.post("/organizations", {"slug": "acme"}),
        await alice.post("/organizations", {"slug": "acme"}, 409),
        await alice.post("/organizations", content=b"x" * 2_000_000, expect=413, headers={"Content-Type": "application/json"}),
        await alice.get("/nothing", 404),
        await alice.get("/organizations", 431, headers={"X-Pad": "x" * 40_000}),
        await service.as_(None).get("/organizations", 401),
        await alice.get(f"/documents/{document}/content"),
        await alice.delete(f"/documents/{document}"),
        *[await service.client.get(path) for path in ("/docs", "/livez", "/openapi.json", "/static/favicon.png")],
    ]


async def test_every_answer_says_what_not_to_do_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path, web={"hsts_seconds": 600}) as service:
        for answer in await answers_of_every_kind(service):
            for name in ("x-content-type-options", "referrer-policy", "cache-control", "content-security-policy"):
                assert len(answer.headers.get_list(name)) == 1, (name, answer.request.url)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["strict-transport-security"] == "max-age=600"
            expected = "private, no-cache" if answer.request.method == "GET" else "no-store"
            assert answer.headers["cache-control"] == expected
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "sandbox" in policy or "frame-ancestors 'none'" in policy


async def test_a_new_secret_is_kept_by_no_cache(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        alice = service.as_("user:alice")
        organization = (await alice.new_organization())["id"]
        key = (await make_key(alice, "ORGANIZATION", organization, "ORG_MEMBER"))["api_key"]["id"]
        rotated = await alice.post(f"/api-keys/{key}/rotate", {}, None)
        assert rotated.json()["token"]
        assert rotated.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in rotated.headers


async def test_without_origins_no_page_may_call(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        answer = await service.as_("user:alice").get("/organizations", headers={"Origin": APP})
        assert [name for name in answer.headers if name.startswith("access-control")] == []
        assert (await service.client.options("/api/organizations", headers={"Origin": APP, **PREFLIGHT})).status_code == 405


async def test_pages_of_the_named_origins_may_call_and_read_every_answer(tmp_path: Path) -> None:
    web = {"cors_origins": f"{APP},http://localhost:3000"}
    async with serving(tmp_path, web=web, limits={"peer_per_minute": 1}) as service:
        service.client.headers["Origin"] = APP
        answers = await answers_of_every_kind(service)
        limited = await service.as_(None).get("/organizations", 429)
        for answer in [*answers, limited]:
            assert answer.headers["access-control-allow-origin"] == APP, answer.request.url
            assert "Origin" in answer.headers["vary"]
            assert "access-control-allow-credentials" not in answer.headers
            exposed = {name.lower() for name in answer.headers["access-control-expose-headers"].split(", ")}
            assert {"etag", "location", "link", "retry-after", "ratelimit", "ratelimit-policy", "x-request-id"} <= exposed
            assert "x-request-id" in answer.headers
        read_problem(limited, 429, "rate_limited")
        service.client.headers["Origin"] = OTHER
        other = await service.as_("user:alice").get("/organizations")
        assert "access-control-allow-origin" not in other.headers


async def test_a_fault_of_ours_can_be_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, web={"cors_origins": "*"}) as service:
        monkeypatch.setattr(service.runtime.resolver, "resolve", None)
        failed = await service.as_("user:alice").get("/organizations", None, headers={"Origin": OTHER})
        read_problem(failed, 500, "internal_error")
        assert failed.headers["access-control-allow-origin"] == "*"


async def test_a_preflight_needs_no_identity_and_no_database(tmp_path: Path) -> None:
    async with serving(tmp_path, web={"cors_origins": APP}, actor={"anonymous": ""}, limits={"peer_per_minute": 1}) as service:
        with statements_of_requests(service.runtime.context.database) as sent:
            for _ in range(3):
                answer = await service.client.options("/api/organizations/x", headers={"Origin": APP, **PREFLIGHT})
                assert answer.status_code == 200
                assert answer.headers["access-control-allow-origin"] == APP
                assert "PATCH" in answer.headers["access-control-allow-methods"]
                assert answer.headers["x-request-id"]
            refused = await service.client.options("/api/organizations/x", headers={"Origin": OTHER, **PREFLIGHT})
            assert "origin" in read_problem(refused, 400, "cors_refused")["detail"]
            assert "access-control-allow-origin" not in refused.headers
            assert refused.headers["vary"].startswith("Origin")
        assert sent == []
