"""Errors and bodiless answers over a real socket, where only a client of HTTP itself can see whether the connection stays usable."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest

from tests.support.answers import run_sql_at
from tests.support.server import Server, run_server

pytestmark = pytest.mark.anyio

ALICE = {"X-SaaSBase-Actor": "user:alice"}
JSON = {**ALICE, "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for the module: what a socket shows does not depend on the database, and a server takes its time to start."""
    return f"sqlite:///{tmp_path_factory.mktemp('sockets')}/test.db"


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_server(database, tmp_path_factory.mktemp("server")) as running:
        yield running


def connect(server: Server) -> Any:
    return closing(HTTPConnection(server.url.removeprefix("http://"), timeout=60))


def ask(
    connection: HTTPConnection, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[HTTPResponse, Any]:
    """Send one request; the answer and its JSON."""
    payload = json.dumps(body) if body is not None else None
    connection.request(method, path, payload, headers or (ALICE if payload is None else JSON))
    response = connection.getresponse()
    content = response.read()
    return response, json.loads(content) if content else None


def assert_problem(answer: tuple[HTTPResponse, Any], status: int, code: str) -> None:
    response, problem = answer
    assert (response.status, response.getheader("content-type")) == (status, "application/problem+json"), problem
    assert (problem["status"], problem["code"], problem["request_id"]) == (status, code, response.getheader("x-request-id"))


async def test_a_connection_stays_usable_after_every_kind_of_error(server: Server, database: str) -> None:
    with connect(server) as connection:
        response, organization = ask(connection, "POST", "/api/organizations", {"slug": "acme"})
        assert response.status == 201
        socket = connection.sock
        await run_sql_at(database, "UPDATE audit_events SET actor_type = 'BROKEN'")
        for _ in range(2):
            assert_problem(ask(connection, "GET", "/api/audit-events"), 500, "internal_error")
            assert_problem(ask(connection, "GET", "/nothing"), 404, "not_found")
            assert_problem(ask(connection, "PUT", "/api/organizations", {}), 405, "method_not_allowed")
            assert_problem(ask(connection, "POST", "/api/organizations", {"slug": "A"}), 422, "invalid")
            assert_problem(ask(connection, "POST", "/api/organizations", {"slug": "acme"}), 409, "slug_taken")
            assert_problem(ask(connection, "GET", "/api/organizations", headers={**ALICE, "X-Pad": "x" * 40_000}), 431, "headers_too_large")
            assert_problem(ask(connection, "GET", "/api/organizations", headers={"Authorization": "Bearer x"}), 401, "unauthenticated")
            assert ask(connection, "GET", f"/api/organizations/{organization['id']}")[1] == organization
        assert connection.sock is socket, "the connection was closed and opened again"
    assert "Traceback" in server.log


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    with connect(server) as connection:
        connection.putrequest("POST", "/api/organizations")
        for name, value in {**JSON, "Content-Length": str(1024**3)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        assert_problem((response, json.loads(response.read())), 413, "too_large")

    def endless() -> Iterator[bytes]:
        yield b'{"slug": "too-large", "name": "'
        for _ in range(24):
            yield b"x" * 64 * 1024

    with connect(server) as connection:
        connection.request("POST", "/api/organizations", endless(), JSON, encode_chunked=True)
        response = connection.getresponse()
        assert_problem((response, json.loads(response.read())), 413, "too_large")
    with connect(server) as connection:
        assert ask(connection, "GET", "/api/organizations?slug=too-large")[1]["total_items"] == 0


async def test_answers_without_a_body_send_none(server: Server) -> None:
    with connect(server) as connection:
        _, organization = ask(connection, "POST", "/api/organizations", {"slug": "bodiless"})
        path = f"/api/organizations/{organization['id']}"
        got, _ = ask(connection, "GET", path)
        socket = connection.sock
        connection.request("HEAD", path, headers=ALICE)
        head = connection.getresponse()
        assert (head.status, head.read()) == (200, b"")
        for name in ("etag", "content-type", "content-length"):
            assert head.getheader(name) == got.getheader(name)
        unchanged, content = ask(connection, "GET", path, headers={**ALICE, "If-None-Match": str(got.getheader("etag"))})
        assert (unchanged.status, content, unchanged.getheader("etag")) == (304, None, got.getheader("etag"))
        connection.request("HEAD", "/api/organizations/all", headers=ALICE)
        assert (listed := connection.getresponse()).status == 200
        assert listed.read() == b""
        connection.request("HEAD", path)
        assert (refused := connection.getresponse()).status == 401
        assert refused.read() == b""
        deleted, content = ask(connection, "DELETE", path)
        assert (deleted.status, content) == (204, None)
        assert connection.sock is socket


def wait_for_lines(server: Server, count: int) -> list[dict[str, Any]]:
    """The access lines of requests named line-N; each is written after its answer has left."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        whole = server.log.rpartition("\n")[0].splitlines()
        lines = [line for line in map(json.loads, (text for text in whole if text.startswith("{"))) if "request_id" in line]
        named = [line for line in lines if line["request_id"].startswith("line-")]
        if len(named) >= count:
            return named
        time.sleep(0.02)
    raise AssertionError(server.log)


async def test_the_log_has_one_line_a_request_and_no_secret(server: Server) -> None:
    with connect(server) as connection:
        secret = {**JSON, "Authorization": "Bearer sbk_hidden.hidden", "Cookie": "hidden=1", "X-Request-ID": "line-1"}
        ask(connection, "POST", "/api/organizations?token=hidden", {"slug": "hidden"}, secret)
        ask(connection, "GET", "/api/organizations/by-slug/hidden", headers={**ALICE, "X-Request-ID": "line-2"})
        ask(connection, "GET", "/livez", headers={"X-Request-ID": "line-3"})
    refused, absent, alive = wait_for_lines(server, 3)
    assert (refused["status"], refused["method"], refused["route"]) == (401, "POST", "/api/organizations")
    assert (absent["status"], absent["actor"], absent["route"]) == (404, "user:alice", "/api/organizations/by-slug/{slug}")
    assert (alive["status"], alive["request_id"]) == (200, "line-3")
    assert all(line["duration_ms"] > 0 for line in (refused, absent, alive))
    assert "hidden" not in server.log
