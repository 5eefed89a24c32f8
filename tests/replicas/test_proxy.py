"""What nginx may and may not do between callers and the service: nobody names himself, bodies stream, a dead process is no answer."""

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.replicas.conftest import Site
from tests.support.cli import run_saasbase
from tests.support.database import environment_of
from tests.support.replicas import run_replicas
from tests.support.s3 import PART_BYTES
from tests.support.wire import BOUNDARY, Wire, form, part

CALLERS = 8
CONTENT = random.Random(5).randbytes(3 * PART_BYTES)
BODY = form(part("file", CONTENT, file_name="f.bin"))
NAMED = {"X-SaaSBase-Actor": "user:alice"}


def test_a_caller_names_neither_himself_nor_his_address(site: Site) -> None:
    through, past = site.replicas.url, site.replicas.servers[0].url
    assert httpx.get(f"{past}/api/me", headers=NAMED, timeout=60).json()["actor"] == {"type": "USER", "id": "alice"}
    for name in ("X-SaaSBase-Actor", "x-saasbase-actor", "X_SaaSBase_Actor"):
        assert httpx.get(f"{through}/api/me", headers={name: "user:alice"}, timeout=60).status_code == 401
    with site.client() as client:
        project = client.post(
            "/projects",
            json={"organization_id": client.get("/organizations").json()["items"][0]["id"], "name": "p"},
            headers={**NAMED, "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"},
        ).json()
        (event,) = client.get("/audit-events", params={"project_id": project["id"], "action": "PROJECT_CREATED"}).json()["items"]
        assert (event["ip"], event["actor"]["type"]) == ("127.0.0.1", "API_KEY")
    told = httpx.get(f"{through}/.well-known/authzen-configuration", headers={"X-Forwarded-Proto": "https"}, timeout=60).json()
    assert told["policy_decision_point"] == through
    assert httpx.get(f"{through}/metrics", timeout=60).status_code == 404


def test_behind_a_tls_proxy_callers_have_their_own_addresses(database_url: str, tmp_path: Path) -> None:
    made = run_saasbase(tmp_path, "bootstrap", "--organization", "acme", "--owner", "user:alice", **environment_of(database_url))
    assert made.status == 0, made.err
    told = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9", "X-Forwarded-Proto": "https", **NAMED}
    with run_replicas(database_url, tmp_path, front_proxy="127.0.0.1") as replicas:
        headers = {**told, "Authorization": f"Bearer {made.out.strip().rpartition(chr(10))[2]}"}
        with httpx.Client(base_url=replicas.url, headers=headers, timeout=30) as client:
            organization = client.get("/api/organizations").json()["items"][0]["id"]
            client.post("/api/projects", json={"organization_id": organization, "name": "p"}).raise_for_status()
            (event,) = client.get("/api/audit-events", params={"action": "PROJECT_CREATED"}).json()["items"]
            assert (event["ip"], event["actor"]["type"]) == ("203.0.113.9", "API_KEY"), "what the proxy itself has seen"
            configuration = client.get("/.well-known/authzen-configuration").json()
            assert configuration["policy_decision_point"].startswith("https://")


def test_uploads_and_downloads_stream_through(site: Site) -> None:
    path = f"/api/projects/{site.new_project()}/documents"
    with Wire(site.replicas.url) as wire:
        wire.send_head(
            "POST",
            path,
            actor=None,
            authorization=f"Bearer {site.token}",
            content_type=f"multipart/form-data; boundary={BOUNDARY}",
            content_length=str(len(BODY)),
        )
        wire.socket.sendall(BODY[: 2 * PART_BYTES])
        wait_until(lambda: bool(asyncio.run(site.bucket.uploads())))  # a part is in S3 while the rest was not sent
        assert site.replicas.buffered == []
        wire.socket.sendall(BODY[2 * PART_BYTES :])
        document = wire.read_answer()
        assert (document.status, document.json["checksum"]) == (201, hashlib.sha256(CONTENT).hexdigest())
    with site.client() as client, client.stream("GET", f"/documents/{document.json['id']}/content") as answer:
        chunks = answer.iter_raw(65536)
        received = [next(chunks)]
        assert site.replicas.buffered == []
        received += chunks
    assert b"".join(received) == CONTENT


def test_a_killed_process_costs_no_read_and_no_acknowledged_write(site: Site) -> None:
    project_id = site.new_project()
    reads: list[int] = []
    written: list[tuple[int, str]] = []
    stop = threading.Event()
    with ThreadPoolExecutor(2 * CALLERS) as pool:
        try:
            callers = [pool.submit(_read, site, project_id, reads, stop) for _ in range(CALLERS)]
            callers += [pool.submit(_write, site, project_id, written, stop) for _ in range(CALLERS)]
            wait_until(lambda: len(reads) >= 3 * CALLERS and len(written) >= 3 * CALLERS)
            site.replicas.servers[0].kill()
            before = len(reads), len(written)
            wait_until(lambda: len(reads) >= before[0] + 7 * CALLERS and len(written) >= before[1] + 3 * CALLERS)
        finally:
            stop.set()
        for caller in callers:
            caller.result()
    assert set(reads) == {200}
    assert {status for status, _ in written} <= {201, 503}
    acknowledged = {name for status, name in written if status == 201}
    with site.client() as client:
        found = [call["name"] for call in client.get(f"/projects/{project_id}/api-calls").json()]
    assert acknowledged <= set(found)
    assert len(found) == len(set(found)), "something was done twice"
    assert len(set(found) - acknowledged) <= CALLERS  # under way when the process was killed
    assert "Traceback" not in site.replicas.servers[1].log


def test_without_any_process_the_answer_is_a_problem_and_with_one_again_it_goes_on(site: Site) -> None:
    for server in site.replicas.servers:
        server.kill()
    with site.client() as client:
        for answer in (client.get("/me"), client.post("/projects", json={})):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.headers["content-type"] == "application/problem+json"
            assert (answer.json()["status"], answer.json()["code"]) == (503, "unavailable")


def _read(site: Site, project_id: str, reads: list[int], stop: threading.Event) -> None:
    with site.client() as client:
        while not stop.is_set():
            reads.append(client.get(f"/projects/{project_id}").status_code)


def _write(site: Site, project_id: str, written: list[tuple[int, str]], stop: threading.Event) -> None:
    chance = random.Random()
    with site.client() as client:
        while not stop.is_set():
            name = f"call {chance.getrandbits(64)}"
            answer = client.post(f"/projects/{project_id}/api-calls", json={"name": name, "operation_key": "k"})
            written.append((answer.status_code, name))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
