"""Every error is a problem (RFC 9457) that tells what to mend and nothing about the server; no client can cause a 5xx."""

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.db.urls import parse_database_url
from app.http.routing import RouteIndex
from tests.conftest import Caller, Service, make_settings, open_service, run_sql_on
from tests.support.answers import pointers_of, read_problem, run_sql
from tests.support.jobs import stop_jobs

pytestmark = pytest.mark.anyio

MARKER = "MARKER-7f3a"
JSON = {"Content-Type": "application/json"}
BREAK_THE_TRAIL = "UPDATE audit_events SET actor_type = 'BROKEN'"  # a value no release has written: reading it is a fault of ours


def assert_tells_nothing(response: httpx.Response) -> None:
    """Neither the caller's value nor anything about the server's inside."""
    for inside in (
        MARKER,
        "Traceback",
        "site-packages",
        ".py",
        "sqlalchemy",
        "asyncpg",
        "sqlite",
        "SELECT",
        "pydantic",
        "0x",
        "/tmp",
        "/app",
    ):
        assert inside not in response.text, response.text[:500]
    assert len(response.content) < 4096


async def test_an_unknown_route_is_a_problem(service: Service, alice: Caller) -> None:
    for path in ("/", "/nothing", "/api", "/api/nothing", "/api/organizations/x/y/z", "/livez/x", "/static/absent.js"):
        read_problem(await service.client.get(path), 404, "not_found")
    read_problem(await alice.post("/organizations/all/x", {}, 404), 404, "not_found")


async def test_a_known_route_names_the_methods_it_takes(service: Service) -> None:
    (index,) = (route for route in service.app.router.routes if isinstance(route, RouteIndex))
    allowed: dict[str, set[str]] = {}
    for route in index.routes:
        methods = set(route.methods or ())
        allowed.setdefault(route.path, set()).update(methods, {"HEAD"} if "GET" in methods else ())
    assert len(allowed) > 15
    for template, methods in allowed.items():
        if any(path != template and path.count("/") == template.count("/") and "{" not in template for path in allowed):
            continue  # a literal beside a parameter: the parameter's methods reach it too
        path = "/".join(str(uuid4()) if part.startswith("{") else part for part in template.split("/"))
        refused = await service.client.request("PUT", path)
        read_problem(refused, 405, "method_not_allowed")
        assert set(refused.headers["allow"].split(", ")) == methods, template
    refused = await service.client.post("/livez")
    read_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET"


async def test_malformed_json_is_refused(alice: Caller) -> None:
    for body in (b"{", b"}", b'{"slug": ', b"nul", b"{'slug': 1}", b'{"slug": "a",}', b'{"slug": "a"} x', b"\x00", f'{{"{MARKER}'.encode()):
        refused = await alice.request("POST", "/organizations", content=body, headers=JSON)
        assert pointers_of(refused) == [""]
        assert_tells_nothing(refused)


async def test_a_body_that_is_no_object_is_refused(alice: Caller) -> None:
    for body in (b"", b"null", b"[]", b"5", b'"text"', b'[{"slug": "a"}]'):
        refused = await alice.request("POST", "/organizations", content=body, headers=JSON)
        assert pointers_of(refused) == [""], body


async def test_wrong_types_are_named_by_json_pointers(alice: Caller) -> None:
    organization = await alice.new_organization()
    refused = await alice.post("/projects", {"organization_id": 5, "name": {"x": MARKER}, "metadata": [MARKER], "a/b~c": 1}, 422)
    assert sorted(pointers_of(refused)) == ["/a~1b~0c", "/metadata", "/name", "/organization_id"]
    assert_tells_nothing(refused)
    for error in refused.json()["errors"]:
        assert set(error) == {"pointer", "code", "message"}
        assert error["code"]
        assert error["message"]
    for path in (f"/organizations/{MARKER}", f"/projects/{MARKER}", f"/documents/{MARKER}", f"/projects/by-organization/{MARKER}"):
        refused = await alice.get(path, 422)
        (error,) = read_problem(refused, 422, "invalid")["errors"]
        assert error["pointer"].startswith("path.")
        assert MARKER not in error["message"]
    assert pointers_of(await alice.patch("/organizations/x", {"name": 1}, 422))[0] == "path.organization_id"
    assert await alice.get(f"/organizations/{organization['id'].upper()}")
    for query in ("page=x", "size=1e3", "sort=password", "direction=up", f"cursor={MARKER}", "limit=-1"):
        refused = await alice.get(f"/organizations?{query}", 422)
        assert pointers_of(refused) == ["query." + query.partition("=")[0]]
        assert_tells_nothing(refused)


async def test_a_field_name_of_any_size_is_not_echoed_whole(alice: Caller) -> None:
    refused = await alice.post("/organizations", {"slug": "a", "k" * 100_000: 1}, 422)
    (pointer,) = pointers_of(refused)
    assert pointer.startswith("/kkk")
    assert len(refused.content) < 1024


async def test_another_content_type_is_415(alice: Caller) -> None:
    organization = await alice.new_organization()
    body = b'{"slug": "a", "name": "x"}'
    types = (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "text/json",
        "json",
        "",
    )
    for given in types:
        for method, path in (("POST", "/organizations"), ("PATCH", f"/organizations/{organization['id']}"), ("POST", "/memberships")):
            refused = await alice.request(method, path, content=body, headers={"Content-Type": given})
            read_problem(refused, 415, "unsupported_media_type")
    for place, given in enumerate(("application/json", "Application/JSON; charset=utf-8", "application/vnd.acme+json")):
        created = await alice.request("POST", "/organizations", content=b'{"slug": "a%d"}' % place, headers={"Content-Type": given})
        assert created.status_code == 201


HOSTILE: list[tuple[str, bytes]] = [
    ("NUL in a value", b'"a\\u0000b"'),
    ("raw NUL", b'"a\x00b"'),
    ("lone high surrogate", b'"\\ud800"'),
    ("lone low surrogate", b'"\\udc00x"'),
    ("reversed pair", b'"\\udc00\\ud800"'),
    ("not UTF-8", b'"\xff\xfe"'),
    ("encoded surrogate", b'"\xed\xa0\x80"'),
    ("NaN", b"NaN"),
    ("Infinity", b"-Infinity"),
    ("1e400", b"1e400"),
    ("5000 digits", b"9" * 5000),
    ("4000 digits", b"-" + b"9" * 4000),
    ("400-fold nesting", b"[" * 400 + b"]" * 400),
    ("400-fold objects", b'{"a":' * 400 + b"1" + b"}" * 400),
    ("100000-fold nesting", b"[" * 100_000 + b"]" * 100_000),
    ("64 KiB", b'"' + b"x" * 65_536 + b'"'),
    ("65536 members", b"[" + b"1," * 65_535 + b"1]"),
]


async def test_hostile_values_are_refused_everywhere_and_nothing_is_stored(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization(slug="kept")
    own = organization["id"].encode()
    whole = b'"resource_type":"ORGANIZATION","resource_id":"%s","actor_type":"USER"' % own
    places: list[tuple[str, str, bytes]] = [
        ("POST", "/organizations", b'{"slug": %s}'),
        ("POST", "/organizations", b'{"slug": "a", "name": %s, "x": 1}'),
        ("POST", "/organizations", b'{"slug": "a", "metadata": {"a": %s}}'),
        ("PATCH", f"/organizations/{organization['id']}", b'{"metadata": {"a": {"b": [%s]}}}'),
        ("POST", "/projects", b'{"name": "x", "organization_id": %s}'),
        ("POST", "/projects", b'{"name": "x", "organization_id": "' + own + b'", "metadata": {"a": [%s]}}'),
        ("POST", "/memberships", b"{" + whole + b',"role":"ORG_MEMBER","actor_id": %s, "x": 1}'),
        ("POST", "/memberships", b"{" + whole + b',"role": %s,"actor_id":"bob"}'),
        ("POST", "/memberships", b"{" + whole + b',"role":"ORG_MEMBER","actor_id":"bob","expires_at": %s}'),
    ]
    for label, value in HOSTILE:
        for method, path, body in places:
            refused = await alice.request(method, path, content=body.replace(b"%s", value), headers=JSON)
            read_problem(refused, refused.status_code)
            assert refused.status_code in {400, 422}, f"{label} in {method} {path}: {refused.text[:300]}"
            assert_tells_nothing(refused)
    assert [row[0] for row in await run_sql(service, "SELECT slug FROM organizations")] == ["kept"]
    assert (await alice.get("/organizations/all")).json() == [organization]
    assert (await alice.get("/projects")).json()["total_items"] == 0


async def test_hostile_names_of_fields_are_refused(alice: Caller) -> None:
    for label, value in HOSTILE:
        if value.startswith(b'"'):
            refused = await alice.request("POST", "/organizations", content=b'{"slug":"a",%s:1}' % value, headers=JSON)
            assert refused.status_code in {400, 422}, label
            inside = await alice.request("POST", "/organizations", content=b'{"slug":"a","metadata":{%s:1}}' % value, headers=JSON)
            assert inside.status_code in {400, 422}, label
    assert (await alice.get("/organizations/all")).json() == []


async def test_other_encodings_of_json_never_break_the_service(alice: Caller) -> None:
    for place, encoding in enumerate(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1")):
        body = json.dumps({"slug": f"a{place}", "name": "Größe"}, ensure_ascii=False).encode(encoding)
        for sent in (body, body[:-1]):
            answer = await alice.request("POST", "/organizations", content=sent, headers=JSON)
            assert answer.status_code in {201, 400, 409, 422}, encoding
    for organization in (await alice.get("/organizations/all")).json():
        assert organization["name"] == "Größe"


async def test_hostile_queries_and_paths_never_break_the_service(alice: Caller) -> None:
    values = (
        "%00",
        "%ED%A0%80",
        "%FF",
        "%",
        "%%",
        "%0A",
        "9" * 5000,
        "x" * 5000,
        "1e400",
        "NaN",
        "-1",
        "+",
        "%20",
        "'",
        '"',
        "{}",
        "[]",
        "a%2Fb",
    )
    names = (
        "page",
        "size",
        "sort",
        "direction",
        "cursor",
        "limit",
        "slug",
        "name_contains",
        "organization_id",
        "occurred_from",
        "actor_id",
    )
    for value in values:
        for path in ("/organizations", "/projects", "/audit-events", "/documents", "/document-versions"):
            answer = await alice.get(f"{path}?" + "&".join(f"{name}={value}" for name in names), None)
            assert answer.status_code in {200, 422}, f"{path} {value[:20]}: {answer.text[:300]}"
        for name in names:
            answer = await alice.get(f"/audit-events?{name}={value}", None)
            assert answer.status_code in {200, 422}, f"{name}={value[:20]}: {answer.text[:300]}"
        for path in (
            "/organizations/",
            "/organizations/by-slug/",
            "/projects/",
            "/audit-events/by-correlation/",
            "/projects/by-organization/",
        ):
            answer = await alice.get(path + value, None)
            assert answer.status_code in {200, 404, 422, 307}, f"{path}{value[:20]}: {answer.text[:300]}"


async def test_a_huge_page_number_is_an_empty_page(alice: Caller) -> None:
    await alice.new_organization()
    page = (await alice.get("/organizations?page=1000000000000000000&size=500")).json()
    assert (page["items"], page["total_items"], page["has_next"], page["has_previous"]) == ([], 1, False, True)
    for number in ("9" * 19, "9" * 400, "9" * 4299, "9" * 5000):
        refused = await alice.get(f"/organizations?page={number}", 422)
        assert pointers_of(refused) == ["query.page"]
        assert len(refused.content) < 1024


async def test_large_bodies_and_headers_are_refused(database_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(database_url, tmp_path, web={"max_body_bytes": 2048})) as service:
        alice = service.as_("user:alice")

        async def chunks(size: int) -> Any:
            yield b'{"slug": "chunked", "name": "'
            for _ in range(size // 256):
                yield b"x" * 256
            yield b'"}'

        whole = await alice.request("POST", "/organizations", content=b'{"slug": "a", "name": "' + b"x" * 2048 + b'"}', headers=JSON)
        read_problem(whole, 413, "too_large")
        read_problem(await alice.request("POST", "/organizations", content=chunks(4096), headers=JSON), 413, "too_large")
        body = b'{"slug": "exact"}'.ljust(2048)
        assert (await alice.request("POST", "/organizations", content=body, headers=JSON)).status_code == 201
        read_problem(await alice.request("POST", "/organizations", content=body + b" ", headers=JSON), 413, "too_large")
        assert len((await alice.get("/organizations/all")).json()) == 1
        await alice.get("/organizations", headers={"X-Pad": "x" * 32_000})
        for headers in ({"X-Pad": "x" * 33_000}, {f"X-Pad-{number}": "x" * 100 for number in range(400)}):
            read_problem(await alice.get("/organizations", 431, headers=headers), 431, "headers_too_large")


async def test_a_fault_of_ours_is_logged_and_tells_nothing(service: Service, alice: Caller, caplog: pytest.LogCaptureFixture) -> None:
    await alice.new_organization()
    await run_sql(service, BREAK_THE_TRAIL)
    failed = await alice.get("/audit-events", 500, headers={"X-Request-ID": "find-me"})
    problem = read_problem(failed, 500, "internal_error")
    assert problem["request_id"] == "find-me"
    assert_tells_nothing(failed)
    assert failed.headers["x-content-type-options"] == "nosniff"
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert vars(record)["request_id"] == "find-me"
    assert record.exc_info is not None
    await alice.new_organization()


async def test_a_pool_without_a_free_connection_is_503(database_url: str, tmp_path: Path) -> None:
    settings = make_settings(database_url, tmp_path, database={"pool_size": 1, "pool_timeout_seconds": 0.2})
    async with open_service(settings) as service:
        await stop_jobs()  # they need the one connection, too
        alice = service.as_("user:alice")
        async with service.runtime.context.database.writer.connect():
            refused = await alice.post("/organizations", {"slug": "acme"}, 503)
            read_problem(refused, 503, "database_busy")
            assert int(refused.headers["retry-after"]) > 0
            assert_tells_nothing(refused)
        await alice.post("/organizations", {"slug": "acme"}, 201)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_file_that_another_process_writes_to_is_503(database_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(database_url, tmp_path, database={"lock_timeout_seconds": 0.2})) as service:
        alice = service.as_("user:alice")
        other = sqlite3.connect(str(parse_database_url(database_url).database), isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            refused = await alice.post("/organizations", {"slug": "acme"}, 503)
            read_problem(refused, 503, "database_busy")
            assert_tells_nothing(refused)
            await alice.get("/organizations")
            other.execute("ROLLBACK")
        finally:
            other.close()
        await alice.post("/organizations", {"slug": "acme"}, 201)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_database_that_is_away_is_503_until_it_is_back(
    service: Service, alice: Caller, database_url: str, postgres_url: str
) -> None:
    name = database_url.rpartition("/")[2]
    end_all = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    await alice.new_organization()
    await run_sql_on(postgres_url, end_all)
    broken = await alice.get("/organizations", None)
    if broken.status_code != 200:
        read_problem(broken, 503, "database_unavailable")
    await alice.get("/organizations")
    for away, back in (
        (f"{name} WITH ALLOW_CONNECTIONS false", f"{name} WITH ALLOW_CONNECTIONS true"),
        (f"{name} RENAME TO {name}_away", f"{name}_away RENAME TO {name}"),
    ):
        # Refused first, ended after: a job of the service may connect in between, and a name in use cannot change.
        await run_sql_on(postgres_url, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        await run_sql_on(postgres_url, end_all)
        await run_sql_on(postgres_url, f"ALTER DATABASE {away}")
        for _ in range(3):
            for refused in (await alice.get("/organizations", None), await alice.post("/organizations", {"slug": "acme"}, None)):
                read_problem(refused, 503, "database_unavailable")
                assert int(refused.headers["retry-after"]) > 0
                assert_tells_nothing(refused)
        assert (await service.client.get("/livez")).status_code == 200
        assert (await service.client.get("/readyz")).status_code == 503
        await run_sql_on(postgres_url, f"ALTER DATABASE {back}")
        await run_sql_on(postgres_url, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
        await alice.new_organization()
