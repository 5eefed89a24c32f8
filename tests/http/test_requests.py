"""What every request has: its ids, its line in the access log, its headers; and where the API is mounted."""

import logging
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.http.requests import request_info
from tests.conftest import Caller, Service, make_settings, open_service
from tests.support.answers import events_of, read_problem

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNUSABLE: tuple[str | bytes, ...] = ("a/b", "", "x" * 257, "a\x01b", b"\xff\xfe")


async def test_a_request_id_is_echoed_or_made(service: Service, alice: Caller) -> None:
    for given in ("a", "req-1", "550e8400-e29b-41d4-a716-446655440000", "A.b_c:d/e+f=g@h", "x" * 128):
        assert (await alice.get("/organizations", headers={"X-Request-ID": given})).headers["x-request-id"] == given
    made = set()
    for bad in ("", " ", "x" * 129, "a b", "a\tb", "é", "a\x01", '"quoted"', "<x>", "a,b"):
        answer = await alice.get("/organizations", headers={b"X-Request-ID": bad.encode()})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"]), bad
        made.add(answer.headers["x-request-id"])
    assert len(made) == 10
    for path in ("/nothing", "/livez", "/api/organizations/"):
        assert (await service.client.get(path, headers={"X-Request-ID": "everywhere"})).headers.get_list("x-request-id") == ["everywhere"]


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{TRACE}-{PARENT}-00", TRACE),
        (f"cc-{TRACE}-{PARENT}-01", TRACE),  # a version to come begins like this one,
        (f"cc-{TRACE}-{PARENT}-01-what-comes", TRACE),  # and may go on
        (f"00-{TRACE}-{'0' * 15}1-01", TRACE),
        (f"00-{'0' * 31}1-{PARENT}-01", "0" * 31 + "1"),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"00-{TRACE}-{PARENT}-01-", None),
        (f"cc-{TRACE}-{PARENT}-01x", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        ("", None),
    ],
)
def test_a_traceparent_counts_as_the_recommendation_of_the_w3c_says(traceparent: str, trace_id: str | None) -> None:
    headers = [(b"traceparent", traceparent.encode()), (b"x-correlation-id", b"a/b")]
    info = request_info({"type": "http", "headers": headers})
    assert (info.trace_id, info.correlation_id) == (trace_id, trace_id)


async def test_ids_land_in_the_audit_events(alice: Caller) -> None:
    traceparent = f"00-{TRACE}-{PARENT}-01"
    expected: list[tuple[dict[str, Any], str | None]] = [
        ({}, None),
        ({"X-Correlation-ID": "order-7"}, "order-7"),
        ({"X-Correlation-ID": "  Größe ✓ ".encode()}, "Größe ✓"),
        ({"traceparent": traceparent}, TRACE),
        ({"traceparent": traceparent, "X-Correlation-ID": "wins"}, "wins"),
        ({"X-Correlation-ID": "x" * 256}, "x" * 256),
        *(({"X-Correlation-ID": unusable}, None) for unusable in UNUSABLE),  # with a slash it could not be fetched by path
        ({"traceparent": traceparent.upper()}, None),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7"}, None),
        ({"traceparent": "garbage"}, None),
        *(({"traceparent": traceparent, "X-Correlation-ID": unusable}, TRACE) for unusable in UNUSABLE),
        ({"traceparent": "garbage", "X-Correlation-ID": "a/b"}, None),
    ]
    for number, (headers, _) in enumerate(expected):
        await alice.post("/organizations", {"slug": f"o{number}"}, headers={**headers, "X-Request-ID": f"r{number}"})
    events = await events_of(alice, action="ORGANIZATION_CREATED")
    assert [event["request_id"] for event in events] == [f"r{number}" for number in range(len(expected))]
    assert [event["correlation_id"] for event in events] == [correlation for _, correlation in expected]


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == "app.access"]


async def test_every_request_has_one_line_in_the_access_log(alice: Caller, service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.access")
    organization = await alice.new_organization()
    requests = [
        ("GET", f"/api/organizations/{organization['id']}", "/api/organizations/{organization_id}", 200, "user:alice"),
        ("PATCH", f"/api/organizations/{organization['id']}", "/api/organizations/{organization_id}", 422, "user:alice"),
        ("GET", f"/api/organizations/{uuid4()}", "/api/organizations/{organization_id}", 404, "user:alice"),
        ("HEAD", "/api/organizations", "/api/organizations", 200, "user:alice"),
        ("PUT", "/api/organizations", None, 405, None),
        ("GET", "/api/nothing", None, 404, None),
    ]
    caplog.clear()
    for number, (method, path, _, status, _) in enumerate(requests):
        headers = {**alice.headers, "X-Request-ID": f"r{number}", "X-Correlation-ID": f"c{number}"}
        answer = await service.client.request(method, path, headers=headers, json={"x": 1} if method == "PATCH" else None)
        assert answer.status_code == status
    lines = access_lines(caplog)
    assert [(line["method"], line["route"], line["status"], line["actor"]) for line in lines] == [
        (method, route, status, actor) for method, _, route, status, actor in requests
    ]
    assert [line["organization_id"] for line in lines] == [organization["id"], organization["id"], None, None, None, None]
    for number, line in enumerate(lines):
        assert (line["request_id"], line["correlation_id"]) == (f"r{number}", f"c{number}")
        assert 0 < line["duration_ms"] < 10_000
        assert f"/{organization['id']}" not in str(line), "a line names the route, not what was asked for"


async def test_a_line_names_the_organization_to_who_may_know_it(
    service: Service, alice: Caller, bob: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a caller was admitted, or is forbidden what he sees; not where he is told that there is nothing."""
    caplog.set_level(logging.INFO, "app.access")
    organization = (await alice.new_organization())["id"]
    project = (await alice.new_project(organization))["id"]
    await alice.grant("ORGANIZATION", organization, "user:bob", "ORG_MEMBER")
    await bob.get(f"/projects/{project}")
    await bob.delete(f"/projects/{project}", 403)
    await service.as_("user:mallory").get(f"/projects/{project}", 404)
    await service.as_(None).get(f"/projects/{project}", 401)
    await alice.get("/projects")
    found = [(line["actor"], line["status"], line["organization_id"]) for line in access_lines(caplog)]
    assert found == [
        *[("user:alice", 201, organization)] * 3,
        ("user:bob", 200, organization),
        ("user:bob", 403, organization),
        ("user:mallory", 404, None),
        ("service:anonymous", 401, None),
        ("user:alice", 200, None),
    ]


async def test_no_secret_reaches_the_log(service: Service, alice: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = {"Authorization": "Bearer sbk_hidden", "Cookie": "session=hidden", "X-SaaSBase-Proxy-Secret": "hidden"}
    for method, path in (("GET", "/organizations?name_contains=hidden"), ("POST", "/organizations?x=hidden")):
        await alice.request(method, path, 401, headers=secrets, **({"json": {"slug": "hidden"}} if method == "POST" else {}))
    await alice.post("/organizations", {"slug": "a", "metadata": {"password": "hidden"}})
    assert len(access_lines(caplog)) == 3
    assert all("hidden" not in str(vars(record)) for record in caplog.records if record.name.startswith("app"))


async def test_no_value_stands_in_the_text_of_a_database_error(service: Service) -> None:
    database = service.runtime.context.database
    for engine in (database.reader, database.writer, database.for_jobs.writer):
        async with engine.connect() as connection:
            with pytest.raises(SQLAlchemyError) as raised:
                await connection.execute(text("SELECT nothing WHERE 'x' = :value"), {"value": "hidden"})
        assert "SELECT nothing" in str(raised.value)
        assert "hidden" not in str(raised.value).replace("hidden due to hide_parameters", "")


async def test_every_answer_forbids_guessing_its_type(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    for path in ("/livez", "/nothing", "/docs", "/openapi.json", "/api/organizations", f"/api/organizations/{organization['id']}"):
        answer = await service.client.get(path, headers=alice.headers)
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], path
        assert "server" not in answer.headers
        assert "x-powered-by" not in answer.headers


async def test_a_trailing_slash_is_redirected_with_method_and_body(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    for method, path in (("GET", "/organizations"), ("POST", "/organizations"), ("GET", f"/organizations/{organization['id']}")):
        redirected = await alice.request(method, f"{path}/?page=1", 307, **({"json": {"slug": "x"}} if method == "POST" else {}))
        assert redirected.headers["location"] == f"/api{path}?page=1", "behind TLS only the proxy knows the scheme"
    followed = await service.client.post("/api/organizations/", json={"slug": "x"}, headers=alice.headers, follow_redirects=True)
    assert followed.status_code == 201
    odd = await service.client.get("/api/organizations/a%3Fb%20%C3%A9%25//?q=%2F", headers=alice.headers)
    assert (odd.status_code, odd.headers["location"]) == (307, "/api/organizations/a%3Fb%20%C3%A9%25?q=%2F")
    assert (await service.client.get("/livez/")).headers["location"] == "/livez"
    read_problem(await service.client.get("/api/nothing/"), 404, "not_found")
    read_problem(await service.client.get("//livez/"), 404, "not_found")
    read_problem(await service.client.get("/"), 404, "not_found")
    read_problem(await service.client.get("//api/organizations"), 404, "not_found")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_api_can_be_mounted_elsewhere(database_url: str, tmp_path: Path) -> None:
    alice = {"X-SaaSBase-Actor": "user:alice"}
    for given, base in (("", ""), ("/", ""), ("/v1", "/v1"), ("deep/er/", "/deep/er")):
        async with open_service(make_settings(database_url, tmp_path, web={"base_path": given})) as service:
            created = await service.client.post(f"{base}/organizations", json={"slug": f"o{uuid4().hex}"}, headers=alice)
            assert created.status_code == 201
            assert created.headers["location"] == f"{base}/organizations/{created.json()['id']}"
            assert (await service.client.get(created.headers["location"], headers=alice)).json() == created.json()
            query = {"resource_type": "ORGANIZATION", "resource_id": created.json()["id"], "limit": 1}
            grant = {**query, "actor_type": "USER", "actor_id": "bob", "role": "ORG_MEMBER"}
            del grant["limit"]
            assert (await service.client.post(f"{base}/memberships", json=grant, headers=alice)).status_code == 201
            first = await service.client.get(f"{base}/memberships", params=query, headers=alice)
            assert first.headers["link"].startswith(f"<{base}/memberships?")
            for root in ("/livez", "/docs", "/openapi.json", "/version"):
                assert (await service.client.get(root)).status_code == 200, root
            read_problem(await service.client.get("/api/organizations", headers=alice), 404, "not_found")
            document = (await service.client.get("/openapi.json")).json()
            assert f"{base}/organizations" in document["paths"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_api_can_be_switched_off(database_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(database_url, tmp_path, web={"enabled": False})) as service:
        for path in ("/organizations", "/organizations/all", "/projects", "/memberships", "/audit-events"):
            read_problem(await service.as_("user:alice").get(path, 404), 404, "not_found")
        read_problem(await service.as_("user:alice").post("/organizations", {"slug": "a"}, 404), 404, "not_found")
        assert (await service.client.get("/livez")).status_code == 200
        assert (await service.client.get("/readyz")).status_code == 200
