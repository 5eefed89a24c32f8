"""Sending spans from a running service: from every worker, to the last one, and never in the way of a request."""

import os
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from app.observability.exporting import Tracing
from tests.http.test_metrics import with_work
from tests.support.cli import Result, run_saasbase
from tests.support.collector import attributes_of, run_collector
from tests.support.postgres import free_port
from tests.support.server import ROOT, Server, run_server

ALICE = {"X-SaaSBase-Actor": "user:alice"}
LOST = "traces cannot be sent"
AGAIN = "traces are sent again"


def settings_of(url: str, **more: str) -> dict[str, str]:
    return {"SAASBASE_TELEMETRY__TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": url, **more}


def ask(server: Server, count: int = 1) -> None:
    for _ in range(count):
        assert httpx.get(f"{server.url}/api/me", headers=ALICE, timeout=120, verify=False).status_code == 200


def test_what_every_worker_has_seen_is_sent_before_it_ends(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with run_collector() as collector:
        settings = settings_of(
            collector.url, OTEL_BSP_MAX_QUEUE_SIZE="100000", OTEL_BSP_SCHEDULE_DELAY="600000", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="100000"
        )
        with run_server(database_url, tmp_path, workers=2, TMPDIR=str(folder), **settings) as server:
            count = 0
            while len(with_work(folder, "/api/me")) < 2:
                ask(server, 40)
                count += 40
            assert collector.bodies == [], "so nothing but the end can have sent it"
            assert server.stop() == 0
        assert [span.name for span in collector.requests] == ["GET /api/me"] * count
        assert len(collector.bodies) == 2, "both workers had work"
        assert all(collector.below(span) for span in collector.requests)
        assert attributes_of(collector.requests[0])["saasbase.actor"] == "user:alice"
        assert LOST not in server.log


def wait_for(server: Server, text: str) -> None:
    deadline = time.monotonic() + 90
    while text not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.1)


def test_a_collector_that_is_away_costs_one_line_and_no_request(tmp_path: Path) -> None:
    port = free_port()
    batches = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_BSP_MAX_QUEUE_SIZE": "20", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
    settings = settings_of(
        f"http://127.0.0.1:{port}", OTEL_EXPORTER_OTLP_TIMEOUT="1", OTEL_EXPORTER_OTLP_HEADERS="authorization=hidden", **batches
    )
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=1, **settings) as server:
        ask(server)
        wait_for(server, LOST)
        started = time.monotonic()
        ask(server, 100)
        assert time.monotonic() - started < 50, "not one of them waits for the collector"
        assert (server.log.count(LOST), server.log.lower().count("otel")) == (1, 0)
        assert re.search(f"{LOST}[^:]*: [A-Z]", server.log), "with a reason"
        with run_collector(port) as collector:
            deadline = time.monotonic() + 90
            while AGAIN not in server.log:
                assert time.monotonic() < deadline
                ask(server)
            assert collector.requests
            assert server.log.count(AGAIN) == 1
        assert server.stop() == 0
        assert "hidden" not in server.log
        assert "Traceback" not in server.log


def test_a_collector_that_never_answers_keeps_the_service_from_ending_for_seconds_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = settings_of(
            f"http://127.0.0.1:{silent.getsockname()[1]}", OTEL_EXPORTER_OTLP_TIMEOUT="60", OTEL_BSP_SCHEDULE_DELAY="100"
        )
        with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=1, **settings) as server:
            ask(server)
            assert select.select([silent], [], [], 60)[0], "it is being asked, and does not answer"
            started = time.monotonic()
            ask(server, 20)
            assert time.monotonic() - started < 50
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 50
            assert server.log.count("the last traces could not be sent in 5 seconds, and are lost") == 1


def serve(folder: Path, **settings: str) -> Result:
    return run_saasbase(folder, "serve", "--port", str(free_port()), "--workers", "2", SAASBASE_TELEMETRY__TRACES="true", **settings)


@pytest.mark.parametrize("absent", ["opentelemetry.sdk", "opentelemetry.exporter"])
def test_without_the_extra_the_start_fails_with_one_line(tmp_path: Path, absent: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules['{absent}'] = None\n")
    ended = serve(tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert ended.status == 1
    assert ended.err.startswith("saasbase: SAASBASE_TELEMETRY__TRACES: opentelemetry.")
    assert ended.err.endswith(" is missing: install saasbase-server[otel]\n")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is supported"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: only http/protobuf is supported"),
        ("OTEL_TRACES_EXPORTER", "console", "OTEL_TRACES_EXPORTER: only otlp is supported"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url", "OTEL_EXPORTER_OTLP_ENDPOINT: is not a URL like http://collector:4318"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a non-negative integer but got many"),
    ],
)
def test_what_cannot_be_done_stops_the_start_with_one_line(tmp_path: Path, name: str, value: str, said: str) -> None:
    ended = serve(tmp_path, **{name: value})
    assert (ended.status, ended.err) == (1, f"saasbase: SAASBASE_TELEMETRY__TRACES: {said}\n")


@pytest.mark.parametrize("value", ["collector:4318", "ftp://collector", "http://", "http://collector:x", "http://[x", "http://a b", "/v1"])
@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_where_to_send_is_a_url(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name}: is not a URL like http://collector:4318$"):
        Tracing("0")


@pytest.mark.parametrize("value", ["", "https://collector.example", "http://user:secret@[::1]:4318/otlp"])
@pytest.mark.anyio
async def test_what_is_a_url_or_nothing_is_taken(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", value)
    await Tracing("0").aclose()


def test_the_commands_that_look_at_settings_say_that_it_is_none(tmp_path: Path) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "not a url", "SAASBASE_TELEMETRY__TRACES": "true"}
    said = "SAASBASE_TELEMETRY__TRACES: OTEL_EXPORTER_OTLP_ENDPOINT: is not a URL like http://collector:4318\n"
    assert run_saasbase(tmp_path, "config", "check", **settings) == (1, "", f"saasbase: {said}")
    examined = run_saasbase(tmp_path, "doctor", **settings)
    assert (examined.status, [line for line in examined.out.splitlines(keepends=True) if line.startswith("BAD")]) == (
        1,
        [f"BAD  {'traces':<14} {said}"],
    )
    off = {**settings, "SAASBASE_TELEMETRY__TRACES": "false"}
    assert [run_saasbase(tmp_path, *command, **off).status for command in (("config", "check"), ("doctor",))] == [0, 0]


def test_nothing_is_sent_unless_it_is_switched_on(tmp_path: Path) -> None:
    with run_collector() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "FASTAPI_OTEL_AUTO_CONFIGURE": "true"}
        with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=1, **settings) as server:
            ask(server)
            assert server.stop() == 0
        assert collector.bodies == []


def test_switched_off_its_libraries_are_not_even_loaded(tmp_path: Path) -> None:
    program = "import sys; from app.main import create_app; create_app(); print(*[name for name in sys.modules if 'opentelemetry' in name])"
    environment = {**os.environ, "SAASBASE_DB_URL": f"sqlite:///{tmp_path}/test.db", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[2].partition(".")[0] for name in ended.stdout.split()}
    assert {"trace", "context"} <= loaded, "FastAPI itself brings the names"
    assert loaded.isdisjoint({"sdk", "exporter"})
