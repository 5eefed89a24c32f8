"""What is for operators and developers can be closed, or moved to a port of its own."""

import os
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.conftest import make_settings, open_service
from tests.lifecycle.test_stopping import is_closed
from tests.support.answers import read_problem
from tests.support.cli import run_saasbase
from tests.support.metrics import read_samples
from tests.support.postgres import free_port
from tests.support.server import Server, run_server
from tests.support.wire import Wire

pytestmark = pytest.mark.anyio

DOCS = ("/docs", "/redoc", "/openapi.json", "/static/swagger-ui.css")
HEALTH = ("/livez", "/readyz", "/version")
COUNT = 'saasbase_http_request_duration_seconds_count{method="GET",route="/api/me",status="2xx"}'
ALICE = {"X-SaaSBase-Actor": "user:alice"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_documentation_can_be_closed(database_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(database_url, tmp_path, web={"docs": False})) as service:
        for path in DOCS:
            read_problem(await service.client.get(path), 404, "not_found")
        for path in (*HEALTH, "/metrics", "/api/me", "/.well-known/authzen-configuration"):
            assert (await service.client.get(path, headers=ALICE)).status_code == 200, path
        assert len(service.app.openapi()["paths"]) > 50, "it can still be exported"


def count(ops: str) -> float:
    return read_samples(httpx.get(f"{ops}/metrics", timeout=60)).get(COUNT, 0)


def address(server: Server, port: int) -> str:
    return server.url.rpartition(":")[0] + f":{port}"


def assert_apart(api: str, ops: str) -> None:
    """What is on which port."""
    with httpx.Client(headers=ALICE, timeout=60) as client:
        for path in (*DOCS, "/metrics"):
            read_problem(client.get(api + path), 404, "not_found")
            assert client.get(ops + path).status_code == 200, path
        for path in ("/api/me", "/api/organizations", "/.well-known/authzen-configuration"):
            assert client.get(api + path).status_code == 200, path
            read_problem(client.get(ops + path), 404, "not_found")
        for path in HEALTH:
            assert client.get(api + path).json() == client.get(ops + path).json()
        page = client.get(f"{ops}/docs")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "x-request-id" in page.headers
        assert "server" not in page.headers
        assert '"supportedSubmitMethods": []' in page.text, "the API is not there to be tried"
        assert all(client.get(f"{ops}{asset}").status_code == 200 for asset in re.findall(r'(?:src|href)="([^"]+)"', page.text))
        assert client.get(f"{ops}/openapi.json").json()["paths"]["/api/me"]


def test_they_can_have_a_port_of_their_own_with_several_workers(database_url: str, tmp_path: Path) -> None:
    port = free_port()
    with run_server(database_url, tmp_path, workers=2, SAASBASE_WEB__OPS_PORT=str(port)) as server:
        ops = address(server, port)
        assert_apart(server.url, ops)
        server.wait_until(lambda: count(ops) == 1)  # each is counted when its answer has left
        for _ in range(20):
            assert httpx.get(f"{server.url}/api/me", headers=ALICE, timeout=60).status_code == 200
        server.wait_until(lambda: count(ops) == 21)
        assert {count(ops) for _ in range(10)} == {21}
        assert f"http://127.0.0.1:{port}/docs" in server.log
        server.wait_for_workers(2)
        kill_a_worker(server)
        server.wait_for_workers(3)
        assert_apart(server.url, ops)
        assert server.stop() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{ops}/livez", timeout=60)
        assert "Traceback" not in server.log


def kill_a_worker(server: Server) -> None:
    pid = re.search(r"Started server process \[(\d+)\]", server.log)
    assert pid is not None
    os.kill(int(pid[1]), signal.SIGKILL)


def test_the_port_is_opened_where_it_is_asked_for_and_ends_with_the_service(tmp_path: Path) -> None:
    port = free_port()
    settings = {"SAASBASE_WEB__OPS_PORT": str(port), "SAASBASE_WEB__OPS_HOST": "127.0.0.2", "SAASBASE_WEB__METRICS": "false"}
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=1, **settings) as server:
        ops = f"http://127.0.0.2:{port}"
        assert httpx.get(f"{ops}/docs", timeout=60).status_code == 200
        assert httpx.get(f"{ops}/metrics", timeout=60).status_code == 404
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/livez", timeout=60)
        with httpx.Client(timeout=60) as scraper:
            assert scraper.get(f"{ops}/livez").status_code == 200
            assert server.stop() == 0, "a connection that is kept open keeps nothing waiting"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{ops}/livez", timeout=60)


def in_flight(ops: str) -> float:
    """The question is one of them."""
    return read_samples(httpx.get(f"{ops}/metrics", timeout=60))["saasbase_http_requests_in_flight"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_port_answers_while_the_last_requests_are_served(tmp_path: Path, workers: int) -> None:
    port = free_port()
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=workers, SAASBASE_WEB__OPS_PORT=str(port)) as server:
        ops, body = address(server, port), b'{"slug": "acme"}'
        with Wire(server.url) as wire:
            wire.send_head("POST", "/api/organizations", content_type="application/json", content_length=str(len(body)))
            server.wait_until(lambda: in_flight(ops) == 2)
            server.process.terminate()
            server.wait_until(lambda: is_closed(server))
            assert in_flight(ops) == 2
            wire.socket.sendall(body)
            assert wire.read_answer().status == 201
        assert server.stop() == 0


def test_a_port_that_cannot_be_had_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run_saasbase(tmp_path, "serve", "--port", str(free_port()), "--workers", "2", SAASBASE_WEB__OPS_PORT=port)
        assert (ended.status, ended.err) == (
            1,
            f"saasbase: SAASBASE_WEB__OPS_PORT: cannot listen on 127.0.0.1:{port}: Address already in use\n",
        )
    ended = run_saasbase(tmp_path, "serve", "--port", port, SAASBASE_WEB__OPS_PORT=port)
    assert (ended.status, ended.err) == (1, f"saasbase: SAASBASE_WEB__OPS_PORT: {port} is the port of the API\n")
    settings = {"SAASBASE_WEB__OPS_PORT": port, "SAASBASE_WEB__OPS_HOST": "no.such.host.invalid"}
    ended = run_saasbase(tmp_path, "serve", **settings)
    assert ended.status == 1
    assert ended.err.startswith(f"saasbase: SAASBASE_WEB__OPS_PORT: cannot listen on no.such.host.invalid:{port}: ")
    assert ended.err.count("\n") == 1
