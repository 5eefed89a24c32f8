"""How the service ends: it says so first, finishes what is under way within its limit, and leaves nothing half done."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from app.blobs.store import MARK
from tests.support.server import Server, run_server
from tests.support.wire import BOUNDARY, Answer, Wire, form, part

ALICE = {"X-SaaSBase-Actor": "user:alice"}
CONTENT = b"x" * 3_000_000


@pytest.fixture(params=[1, 2], ids=["1-worker", "2-workers"])
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def database(tmp_path: Path) -> str:
    """What signals do does not depend on the database."""
    return f"sqlite:///{tmp_path}/test.db"


def make_project(server: Server) -> str:
    with httpx.Client(base_url=f"{server.url}/api", headers=ALICE, timeout=60) as client:
        organization = client.post("/organizations", json={"slug": "acme"}).raise_for_status().json()
        project = client.post("/projects", json={"organization_id": organization["id"], "name": "p"}).raise_for_status().json()
    return str(project["id"])


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_closed(server: Server) -> bool:
    """Whether nobody listens; what came while the socket was being closed is reset."""
    try:
        httpx.get(f"{server.url}/livez", timeout=60)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


class SlowUpload:
    """An upload of which the last bytes are still to come."""

    def __init__(self, server: Server, project: str) -> None:
        self.wire = Wire(server.url)
        body = form(part("file", CONTENT, file_name="f.bin"))
        head = {"content_type": f"multipart/form-data; boundary={BOUNDARY}", "content_length": str(len(body))}
        self.wire.send_head("POST", f"/api/projects/{project}/documents", **head)
        self.wire.socket.sendall(body[:-1])
        self._rest = body[-1:]
        wait_until(lambda: bool(files_below(server.log_path.parent)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.wire.socket.close()

    def finish(self) -> Answer:
        self.wire.socket.sendall(self._rest)
        return self.wire.read_answer()


@contextmanager
def keep_asking(server: Server) -> Iterator[list[tuple[str, int]]]:
    """Ask both health routes over new connections until the block ends: which, and the status, 0 when there was no answer."""
    found: list[tuple[str, int]] = []
    is_over = False

    def ask() -> None:
        while not is_over:
            for path in ("/readyz", "/livez"):
                status = 0
                with suppress(httpx.TransportError):
                    status = httpx.get(server.url + path, timeout=60, verify=False).status_code
                found.append((path, status))
            time.sleep(0.02)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield found
        finally:
            is_over = True
            asking.result(60)


def documents_of(server: Server, project: str) -> Any:
    return httpx.get(f"{server.url}/api/projects/{project}/documents", headers=ALICE, timeout=60).raise_for_status().json()


def workers_started(server: Server) -> list[int]:
    """Their process ids, those of replaced ones too."""
    return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", server.log)]


def files_below(folder: Path) -> list[Path]:
    return [path for path in (folder / "documents").rglob("*") if path.is_file() and path.name != MARK]


def test_readiness_ends_before_anything_else_does(database: str, tmp_path: Path, workers: int) -> None:
    settings: Any = {"SAASBASE_WEB__DRAIN_SECONDS": "8", "SAASBASE_WEB__SHUTDOWN_SECONDS": "120"}
    with run_server(database, tmp_path, workers=workers, **settings) as server, Wire(server.url) as kept:
        server.wait_for_workers(workers)
        kept.send_head("GET", "/livez")
        assert "connection" not in kept.read_answer("GET").headers
        with keep_asking(server) as asked:
            server.process.terminate()
            wait_until(lambda: ("/readyz", 503) in asked)
            while True:  # of two workers, the one of this connection may not have been told yet
                kept.send_head("GET", "/livez")
                last = kept.read_answer("GET")
                assert last.status == 200
                if "connection" in last.headers:
                    break
            assert last.headers["connection"] == "close"
            answer = httpx.get(f"{server.url}/readyz", timeout=60)
            assert (answer.status_code, answer.json()["status"], answer.json()["database"]) == (503, "draining", "ok")
            assert server.process.wait(60) == 0, "it waits for nothing when all is served"
    served = list(takewhile(lambda one: one[1], asked))  # until the socket was closed
    readiness = [status for path, status in served if path == "/readyz"]
    assert set(readiness) <= {200, 503}
    assert readiness[-1] == 503
    assert {status for path, status in served if path == "/livez"} == {200}


def test_an_upload_under_way_is_finished_and_its_document_is_there_after_a_restart(database: str, tmp_path: Path, workers: int) -> None:
    with run_server(database, tmp_path, workers=workers) as server:
        project = make_project(server)
        with SlowUpload(server, project) as upload:
            server.process.terminate()
            wait_until(lambda: is_closed(server))
            made = upload.finish()
            assert (made.status, made.headers["connection"]) == (201, "close")
            assert server.process.wait(60) == 0
    with run_server(database, tmp_path) as server:
        content = httpx.get(f"{server.url}/api/documents/{made.json['id']}/content", headers=ALICE, timeout=60)
        assert content.content == CONTENT


def test_a_request_past_the_limit_is_broken_off_and_leaves_nothing(database: str, tmp_path: Path, workers: int) -> None:
    with run_server(database, tmp_path, workers=workers, SAASBASE_WEB__SHUTDOWN_SECONDS="1") as server:
        project = make_project(server)
        with SlowUpload(server, project) as upload:
            assert files_below(tmp_path)
            server.process.terminate()
            answer = upload.wire.read_answer()
            assert (answer.status, answer.code, answer.headers["connection"]) == (503, "shutting_down", "close")
            assert server.process.wait(60) == 0
    assert files_below(tmp_path) == []
    with run_server(database, tmp_path) as server:
        assert documents_of(server, project) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number: signal.Signals, database: str, tmp_path: Path, workers: int) -> None:
    drain: Any = {"SAASBASE_WEB__DRAIN_SECONDS": "300"}
    with run_server(database, tmp_path, workers=workers, **drain) as server, SlowUpload(server, make_project(server)):
        server.wait_for_workers(workers)
        server.process.terminate()
        wait_until(lambda: httpx.get(f"{server.url}/readyz", timeout=60).status_code == 503)
        assert server.process.poll() is None
        server.process.send_signal(number)
        assert server.process.wait(60) == 0


def test_an_interrupt_from_the_terminal_does_not_drain_but_lets_requests_end(database: str, tmp_path: Path, workers: int) -> None:
    drain: Any = {"SAASBASE_WEB__DRAIN_SECONDS": "300"}
    with run_server(database, tmp_path, workers=workers, **drain) as server, SlowUpload(server, make_project(server)) as upload:
        os.killpg(server.process.pid, signal.SIGINT)  # the terminal tells every process of the group
        wait_until(lambda: is_closed(server))
        assert upload.finish().status == 201
        assert server.process.wait(60) == 0


def test_workers_told_by_their_parent_and_by_who_runs_it_still_end_in_order(database: str, tmp_path: Path) -> None:
    with run_server(database, tmp_path, workers=2) as server, SlowUpload(server, make_project(server)) as upload:
        os.killpg(server.process.pid, signal.SIGTERM)
        wait_until(lambda: is_closed(server))
        assert upload.finish().status == 201
        assert server.process.wait(60) == 0


def test_sighup_changes_nothing(database: str, tmp_path: Path, workers: int) -> None:
    with run_server(database, tmp_path, workers=workers) as server:
        for _ in range(20):  # the second worker is still starting
            os.killpg(server.process.pid, signal.SIGHUP)
            time.sleep(0.1)
        wait_until(lambda: len(workers_started(server)) >= workers)
        assert "died" not in server.log
        assert httpx.get(f"{server.url}/readyz", timeout=60).status_code == 200
        assert "Traceback" not in server.log
        assert server.stop() == 0


def test_a_worker_killed_before_it_could_answer_its_parent_is_replaced_at_once(database: str, tmp_path: Path) -> None:
    with run_server(database, tmp_path, workers=2) as server:
        wait_until(lambda: len(workers_started(server)) == 2)
        pid = workers_started(server)[0]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5)  # now it has been asked whether it lives
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(workers_started(server)) == 3)
        assert server.stop() == 0
