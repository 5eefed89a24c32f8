"""Clients that send or read slowly, over real sockets: who does nothing is let go, who goes on slowly is served."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server import Server, run_server
from tests.support.wire import BOUNDARY, Answer, Wire, form, part

LIMITS: Any = {
    "SAASBASE_WEB__HSTS_SECONDS": "60",
    "SAASBASE_WEB__HEADER_SECONDS": "1",
    "SAASBASE_WEB__BODY_IDLE_SECONDS": "3",
    "SAASBASE_WEB__READ_IDLE_SECONDS": "5",
}
LONG = 30  # much longer than any of these limits, and much shorter than those of the service: it is as soon as a busy machine can
CONTENT = os.urandom(24_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slow")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One for the module: what a socket shows does not depend on the database."""
    with run_server(f"sqlite:///{folder}/test.db", folder, **LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def project(server: Server) -> str:
    with httpx.Client(base_url=f"{server.url}/api", headers={"X-SaaSBase-Actor": "user:alice"}, timeout=60) as client:
        organization = client.post("/organizations", json={"slug": "acme"}).raise_for_status().json()
        made = client.post("/projects", json={"organization_id": organization["id"], "name": "p"}).raise_for_status().json()
    return str(made["id"])


def seconds_until_closed(wire: Wire, started: float | None = None) -> float:
    """How long the other side keeps the connection, reading whatever it says."""
    started = started or time.monotonic()
    try:
        while wire.socket.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - started


def begin_upload(wire: Wire, project: str, length: int) -> None:
    wire.send_head(
        "POST",
        f"/api/projects/{project}/documents",
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
        content_length=str(length),
    )


PROTECTIONS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "strict-transport-security": "max-age=60",
}


def refusal(wire: Wire, status: int, code: str) -> Answer:
    answer = wire.read_answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (status, code, "close")
    assert answer.json["detail"]
    assert answer.headers["x-request-id"] == answer.json["request_id"]
    assert {name: answer.headers[name] for name in PROTECTIONS} == PROTECTIONS
    return answer


def test_a_connection_that_says_nothing_is_closed(server: Server) -> None:
    started = time.monotonic()
    with Wire(server.url) as wire:
        assert 0.8 < seconds_until_closed(wire, started) < LONG


def test_a_head_that_comes_in_drops_is_answered_408(server: Server) -> None:
    with Wire(server.url) as wire:
        wire.socket.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        for number in range(3):
            time.sleep(0.1)
            wire.socket.sendall(b"X-%d: y\r\n" % number)
        refusal(wire, 408, "request_timeout")
        assert seconds_until_closed(wire) < LONG


def test_a_second_head_on_a_kept_connection_has_the_same_limit(server: Server) -> None:
    with Wire(server.url) as wire:
        started = time.monotonic()
        wire.send_head("GET", "/livez")
        assert wire.read_answer("GET").status == 200
        wire.socket.sendall(b"\r\n")  # not even the beginning of a request
        assert 0.8 < seconds_until_closed(wire, started) < LONG


def refused(server: Server) -> list[int]:
    """The statuses of what was refused before it was a request, as the log tells them."""
    server.metrics()  # before it answers it writes what it has to tell
    return [int(status) for status in re.findall(r'"message": ?"- - (\d+)"', server.log)]


def test_a_head_without_end_is_refused_while_it_comes(server: Server) -> None:
    before = refused(server)
    with Wire(server.url) as wire:
        wire.socket.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        assert seconds_until_refused(wire, b"x" * 8192, 0.002) < LONG
    server.wait_until(lambda: len(refused(server)) > len(before))
    assert refused(server) == [*before, 431], "it was ended for its time, not for its size"


def test_a_head_just_over_the_limit_is_answered_431(server: Server) -> None:
    with Wire(server.url) as wire:
        wire.socket.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * 70_000)
        refusal(wire, 431, "headers_too_large")


def test_what_is_no_http_is_a_problem_too(server: Server) -> None:
    with Wire(server.url) as wire:
        wire.socket.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        refusal(wire, 400, "bad_request")


@pytest.mark.parametrize("body", [b'{"slug": "slow-', b""])
def test_a_body_that_stops_coming_is_answered_408(body: bytes, server: Server) -> None:
    with Wire(server.url) as wire:
        started = time.monotonic()
        wire.send_head("POST", "/api/organizations", content_type="application/json", content_length="40")
        wire.socket.sendall(body)
        refusal(wire, 408, "request_timeout")
        assert 2.4 < time.monotonic() - started < LONG


def test_a_body_in_drops_is_no_better_than_one_that_stops(server: Server) -> None:
    with Wire(server.url) as wire:
        wire.send_head("POST", "/api/organizations", content_type="application/json", content_length="4000")
        wire.socket.settimeout(0.3)
        started = time.monotonic()
        while time.monotonic() - started < 2 * LONG:
            wire.socket.sendall(b" ")
            try:
                assert wire.socket.recv(65536).startswith(b"HTTP/1.1 408 ")
                break
            except TimeoutError:
                continue
        assert time.monotonic() - started < LONG


def test_an_upload_that_stops_leaves_nothing(server: Server, project: str, folder: Path) -> None:
    before = list((folder / "documents").rglob("*"))
    with Wire(server.url) as wire:
        begin_upload(wire, project, 5_000_000)
        wire.socket.sendall(form(part("file", CONTENT[:3_000_000], file_name="f.bin"))[:2_000_000])
        refusal(wire, 408, "request_timeout")
    assert [path for path in (folder / "documents").rglob("*") if path.is_file() and path not in before] == []


def test_an_upload_that_flows_slowly_is_taken(server: Server, project: str) -> None:
    body = form(part("file", CONTENT[:6000], file_name="f.bin"))
    with Wire(server.url) as wire:
        begin_upload(wire, project, len(body))
        for place in range(0, len(body), 300):  # for longer than the limit, with pauses much shorter than it
            wire.socket.sendall(body[place : place + 300])
            time.sleep(0.2)
        assert wire.read_answer().status == 201


def test_the_rest_of_a_refused_body_is_not_read_for_ever(server: Server) -> None:
    with Wire(server.url) as wire:
        wire.send_head("POST", "/api/organizations", content_type="text/plain", content_length="1000000")
        assert wire.read_answer().status == 415
        assert seconds_until_refused(wire, b"x", 0.1) < LONG


def read_to_end(wire: Wire) -> int:
    total = 0
    with suppress(ConnectionResetError):
        while piece := wire.socket.recv(1_000_000):
            total += len(piece)
    return total


def seconds_until_refused(wire: Wire, piece: bytes, pause: float) -> float:
    """How long the other side takes what is sent to it, piece after piece."""
    started = time.monotonic()
    with suppress(ConnectionError):
        while time.monotonic() - started < 2 * LONG:
            wire.socket.sendall(piece)
            time.sleep(pause)
    return time.monotonic() - started


def upload(server: Server, project: str) -> str:
    body = form(part("file", CONTENT, file_name="f.bin"))
    with Wire(server.url) as wire:
        begin_upload(wire, project, len(body))
        wire.socket.sendall(body)
        return str(wire.read_answer().json["id"])


def test_a_client_that_does_not_read_is_cut_and_one_that_reads_slowly_is_not(server: Server, project: str) -> None:
    path = f"/api/documents/{upload(server, project)}/content"
    with Wire(server.url) as idle, Wire(server.url) as slow:
        for wire in (idle, slow):
            wire.send_head("GET", path)
        read = 0
        started = time.monotonic()
        while time.monotonic() - started < 9:
            read += len(slow.socket.recv(50_000))
            time.sleep(0.05)
        assert read_to_end(slow) + read > len(CONTENT)
        assert read_to_end(idle) < len(CONTENT), "the operating systems held some of it, and no more came"


def test_a_client_that_asks_much_and_reads_nothing_is_cut(server: Server) -> None:
    with Wire(server.url) as wire:
        assert seconds_until_refused(wire, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50, 0) < LONG


def test_trailers_are_no_headers(server: Server) -> None:
    """A proxy that takes a header out of requests does not look behind their bodies."""
    with Wire(server.url) as wire:
        wire.send_head("POST", "/api/organizations", actor=None, content_type="application/json", transfer_encoding="chunked")
        trailers = b"X-SaaSBase-Actor: user:alice\r\n"
        body = b'{"slug": "by-trailer"}'
        wire.socket.sendall(b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers))
        assert wire.read_answer().status == 401


def test_trailers_without_end_are_refused(server: Server) -> None:
    with Wire(server.url) as wire:
        wire.send_head("POST", "/api/organizations", content_type="application/json", transfer_encoding="chunked")
        wire.socket.sendall(b"2\r\n{}\r\n0\r\nX: ")
        assert seconds_until_refused(wire, b"x" * 8192, 0.002) < LONG


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "foo"])
@pytest.mark.parametrize("is_split", [True, False], ids=["in two pieces", "in one"])
def test_a_body_behind_a_wish_for_another_protocol_is_a_body(server: Server, protocol: str, is_split: bool) -> None:
    inner = b'{"slug": "%s"}\r\nGET /api/me HTTP/1.1\r\nHost: x\r\nX-SaaSBase-Actor: user:victim\r\n\r\n' % os.urandom(6).hex().encode()
    for length, status in ((inner.index(b"\r\n"), 201), (len(inner), 422)):
        with Wire(server.url) as wire:
            head = [
                b"POST /api/organizations HTTP/1.1\r\nHost: x\r\nX-SaaSBase-Actor: user:alice\r\nContent-Type: application/json",
                b"Content-Length: %d" % length,
                b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nUpgrade: %s" % protocol.encode(),
                b"\r\n",
            ]
            pieces = [b"\r\n".join(head), inner[:length]]
            for piece in pieces if is_split else [b"".join(pieces)]:
                wire.socket.sendall(piece)
                time.sleep(0.1)
            assert wire.read_answer().status == status
            wire.socket.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n")
            rest = b"".join(iter(lambda: wire.socket.recv(65536), b""))
            assert rest.count(b"HTTP/1.1 200") == 1
            assert b"victim" not in rest
    assert "upgrade" not in server.log.lower()


def test_this_is_no_proxy(server: Server) -> None:
    with Wire(server.url) as wire:
        wire.socket.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        refusal(wire, 400, "bad_request")


def test_what_is_refused_before_it_is_a_request_leaves_a_line_and_is_counted(server: Server) -> None:
    def counted() -> float:
        return server.metrics().get('saasbase_http_request_duration_seconds_count{method="other",route="none",status="4xx"}', 0)

    before, ids = counted(), {}
    for status, sent in ((400, b"hidden hidden\r\n\r\n"), (431, b"GET /hidden HTTP/1.1\r\nX-Pad: " + b"x" * 70_000), (408, b"GET /hidden")):
        with Wire(server.url) as wire:
            wire.socket.sendall(sent)
            ids[wire.read_answer().json["request_id"]] = status
    with Wire(server.url) as wire:
        assert wire.socket.recv(1) == b"", "who says nothing is let go, and is no request"
    server.wait_until(lambda: counted() >= before + 3)
    assert counted() == before + 3
    lines = [
        line
        for line in map(json.loads, (text for text in server.log.splitlines() if text.startswith("{")))
        if line.get("request_id") in ids
    ]
    assert {line["request_id"]: line["status"] for line in lines} == ids
    for line in lines:
        told = (line["logger"], line["level"], line["message"], line["route"], line["actor"])
        assert told == ("app.access", "INFO", f"- - {line['status']}", None, None)
    assert lines[2]["duration_ms"] >= 900, "since its first byte"
    assert "hidden" not in server.log
