"""Spans of requests and their statements, sent by OTLP: what they say, and what they never do."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from tests.conftest import Service, make_settings, open_service
from tests.resources.executions.test_otlp import EXAMPLE
from tests.support.collector import Collector, Kind, attributes_of, run_collector
from tests.support.keys import make_key, shows
from tests.support.record import new_place
from tests.support.spans import path_of

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with run_collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


@asynccontextmanager
async def traced(database_url: str, folder: Path) -> AsyncIterator[Service]:
    """A service whose spans are sent at the latest when the block has ended."""
    async with open_service(make_settings(database_url, folder, telemetry={"traces": True})) as service:
        yield service


async def test_a_span_tells_route_status_and_who_asked_where(collector: Collector, database_url: str, tmp_path: Path) -> None:
    async with traced(database_url, tmp_path) as service:
        organization = (await service.as_("user:alice").new_organization())["id"]
        path = f"/organizations/{organization}"
        await service.as_("user:alice").get(path, headers={**TRACEPARENT, "X-Request-ID": "r1"})
        await service.as_("user:mallory").get(path, 404)
        await service.client.get(f"/{'x' * 9000}")
    _, read, refused, nowhere = collector.requests
    assert (read.name, refused.name, nowhere.name) == (*["GET /api/organizations/{organization_id}"] * 2, "GET")
    assert attributes_of(read) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/api/organizations/{organization_id}",
        "network.protocol.version": "1.1",
        "saasbase.actor": "user:alice",
        "saasbase.organization_id": organization,
        "saasbase.request_id": "r1",
        "server.address": "service",
        "server.port": 80,
        "url.path": f"/api{path}",
        "url.scheme": "http",
    }
    told = attributes_of(refused)
    assert (told["saasbase.actor"], told["http.response.status_code"]) == ("user:mallory", 404)
    assert "saasbase.organization_id" not in told
    assert {"http.route", "saasbase.actor"}.isdisjoint(attributes_of(nowhere))
    assert attributes_of(nowhere)["url.path"] == "/" + 4095 * "x"
    assert (read.trace_id.hex(), read.parent_span_id.hex()) == (TRACE, PARENT), "the caller's trace goes on"
    assert refused.trace_id != read.trace_id


async def test_the_statements_of_a_request_hang_below_it_without_their_values(
    collector: Collector, database_url: str, tmp_path: Path
) -> None:
    async with traced(database_url, tmp_path) as service:
        made = await service.as_("user:alice").new_organization()
    (request,) = collector.requests
    statements = collector.below(request)
    system = "sqlite" if database_url.startswith("sqlite") else "postgresql"
    for span in statements:
        told = attributes_of(span)
        assert span.kind == Kind.SPAN_KIND_CLIENT
        assert span.name == told["db.operation.name"] == told["db.query.text"].partition(" ")[0].upper()
        assert told["db.system.name"] == system
        assert request.start_time_unix_nano <= span.start_time_unix_nano < span.end_time_unix_nano <= request.end_time_unix_nano
        assert made["slug"] not in str(span)
    texts = [attributes_of(span)["db.query.text"] for span in statements]
    for table in ("organizations", "memberships", "audit_events"):
        assert any(text.startswith(f"INSERT INTO {table} ") for text in texts), texts
    assert len(collector.spans) == 1 + len(statements), "what nobody has asked for has no span"


async def test_a_statement_that_fails_is_told_by_the_kind_of_its_fault_only(
    collector: Collector, database_url: str, tmp_path: Path
) -> None:
    async with traced(database_url, tmp_path) as service:

        @service.app.get("/fails")
        async def fail() -> None:
            async with service.runtime.context.database.open_read() as connection:
                await connection.execute(text("SELECT nothing WHERE 'x' = :value"), {"value": "hidden"})

        assert (await service.client.get("/fails")).status_code >= 500
    (request,) = collector.requests
    (failed,) = collector.below(request)
    assert attributes_of(failed)["error.type"].endswith("Error")
    assert (failed.status.code, failed.status.message, len(failed.events)) == (2, "", 0)
    assert request.status.code == 2
    assert attributes_of(request)["http.route"] == "/fails"
    assert b"hidden" not in b"".join(collector.bodies)
    assert SQLAlchemyError.__name__ not in str(request)


async def test_no_token_header_body_or_query_is_told(collector: Collector, database_url: str, tmp_path: Path) -> None:
    async with traced(database_url, tmp_path) as service:
        alice = service.as_("user:alice")
        organization = await alice.new_organization()
        made = await make_key(alice, "ORGANIZATION", organization["id"], "ORG_MEMBER")
        headers = {"Cookie": "hidden", "X-Custom": "hidden", "User-Agent": "hidden", "baggage": "hidden=hidden", "tracestate": "hidden=1"}
        keyed = shows(service, made["token"], **headers)
        await keyed.get("/organizations", params={"name_contains": "hidden", "access_token": made["token"]})
        await keyed.post("/organizations", {"slug": "hidden", "name": "hidden", "metadata": {"hidden": "hidden"}}, None)
        project = (await alice.new_project(organization["id"]))["id"]
        await alice.upload(f"/projects/{project}/documents", b"hidden", metadata=json.dumps({"hidden": "hidden"}))
        await shows(service, "sbk_hidden.hidden").get("/me", 401)
    sent = b"".join(collector.bodies)
    token = made["token"].encode()
    for secret in (b"hidden", token, token.partition(b".")[2], token.partition(b".")[0].removeprefix(b"sbk_")):
        assert secret not in sent
    (listed,) = [span for span in collector.requests if span.name == "GET /api/organizations"]
    assert attributes_of(listed)["url.query"] == "REDACTED"
    assert attributes_of(listed)["saasbase.actor"] == f"api_key:{made['api_key']['id']}"


async def test_probes_and_traces_that_come_in_have_no_span(collector: Collector, database_url: str, tmp_path: Path) -> None:
    async with traced(database_url, tmp_path) as service:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await service.client.get(path)).status_code == 200
        _, project = await new_place(service.as_("user:alice"))
        await service.as_("user:alice").post(path_of(project), EXAMPLE, 200)
    assert {span.name for span in collector.requests} == {"POST /api/organizations", "POST /api/projects"}


async def test_the_standard_variables_are_heard(
    collector: Collector, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced(database_url, tmp_path) as service:
        await service.client.get("/version")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=7")
    async with traced(database_url, tmp_path) as service:
        await service.client.get("/version")
    named = [(told["service.name"], told["service.version"], told.get("deployment.environment.name")) for told in collector.resources]
    assert named == [("saasbase-server", service.app.version, None), ("ours", "7", "test")]
    for name, value in (("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SDK_DISABLED", "true")):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            async with traced(database_url, tmp_path) as service:
                await service.as_("user:alice").get("/me")
    assert len(collector.requests) == 2


async def test_an_access_line_leads_to_its_trace(
    collector: Collector, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.access")
    async with traced(database_url, tmp_path) as service:
        await service.client.get("/version")
        await service.client.get("/version", headers=TRACEPARENT)
        await service.client.get("/livez")
    lines = [vars(record)["trace_id"] for record in caplog.records if record.name == "app.access"]
    assert lines == [*(span.trace_id.hex() for span in collector.requests), None]
    assert lines[1] == TRACE


async def test_switched_off_the_trace_of_a_caller_is_named_all_the_same(
    collector: Collector, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.access")
    async with open_service(make_settings(database_url, tmp_path)) as service:
        await service.as_("user:alice").get("/me", headers=TRACEPARENT)
        await service.as_("user:alice").get(f"/organizations/{uuid4()}", 404)
    lines = [vars(record)["trace_id"] for record in caplog.records if record.name == "app.access"]
    assert lines == [TRACE, None]
    assert collector.bodies == []
