"""What is S3's alone: redirects to signed URLs, and a server that goes away and comes back."""

import asyncio
import hashlib
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.streaming.conftest import Place
from tests.support.s3 import PART_BYTES, SECRET_KEY, S3Server, run_s3
from tests.support.server import Server, run_server
from tests.support.wire import BOUNDARY, Wire, form, part, send_form

CONTENT = random.Random(9).randbytes(2 * PART_BYTES + 4321)
BODY = form(part("file", CONTENT, file_name="f.bin"))
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def start_place(place: Place) -> Place:
    with place.client() as client:
        organization = client.post("/organizations", json={"slug": "s3"}).raise_for_status().json()
        project = client.post("/projects", json={"organization_id": organization["id"], "name": "p"}).raise_for_status().json()
    return replace(place, project_id=project["id"])


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A database of its own: the bytes do not pass it, so one kind is enough."""
    shutil.copy(sqlite_template, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def mortal() -> Iterator[S3Server]:
    """A server that the test may stop."""
    with run_s3("rclone") as server:
        yield server


@pytest.fixture
def s3_place(mortal: S3Server, sqlite_url: str, tmp_path: Path) -> Iterator[Place]:
    bucket = mortal.new_bucket()
    with run_server(sqlite_url, tmp_path, workers=1, **bucket.environment) as server:
        server.wait_for_first_sweep()  # which would fail, and say so, when the test takes S3 away
        yield start_place(Place(server, sqlite_url, tmp_path, bucket, ""))


@pytest.fixture
def signing(rclone_server: S3Server, sqlite_url: str, tmp_path: Path) -> Iterator[Place]:
    """A service that redirects downloads."""
    bucket = rclone_server.new_bucket()
    settings = {**bucket.environment, "SAASBASE_STORAGE__S3__PRESIGN_DOWNLOADS": "true"}
    with run_server(sqlite_url, tmp_path, workers=1, **settings) as server:
        yield start_place(Place(server, sqlite_url, tmp_path, bucket, ""))


def put(place: Place) -> Any:
    answer = send_form(place.server.url, place.documents, BODY)
    assert answer.status == 201, answer
    return answer.json


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_download_is_redirected_to_a_signed_url(signing: Place) -> None:
    document = put(signing)
    path = f"/documents/{document['id']}/content"
    with signing.client() as client, httpx.Client(timeout=60) as stranger:
        answer = client.get(path, headers={"Range": "bytes=0-9"})
        assert (answer.status_code, answer.content) == (307, b"")
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["etag"] == ETAG
        whole = stranger.get(answer.headers["location"])
        assert whole.content == CONTENT
        assert whole.headers["content-disposition"] == "attachment; filename=\"f.bin\"; filename*=UTF-8''f.bin"
        assert whole.headers["content-type"] == document["media_type"]
        assert stranger.get(answer.headers["location"], headers={"Range": "bytes=5-9"}).content == CONTENT[5:10]
        version = client.get(f"/documents/{document['id']}/versions/v1/content")
        assert stranger.get(version.headers["location"]).content == CONTENT
    assert "X-Amz-Signature" not in signing.server.log
    assert SECRET_KEY not in signing.server.log


def test_what_needs_no_bytes_is_not_redirected(signing: Place) -> None:
    path = f"/documents/{put(signing)['id']}/content"
    with signing.client() as client:
        head = client.head(path)
        assert (head.status_code, head.headers["etag"], head.headers["content-length"]) == (200, ETAG, str(len(CONTENT)))
        assert client.get(path, headers={"If-None-Match": ETAG}).status_code == 304
    with signing.client("user:mallory") as client:
        refused = client.get(path)
        assert refused.status_code == 404
        assert "location" not in refused.headers


def test_without_s3_the_service_says_503_and_keeps_nothing_and_goes_on_when_it_is_back(mortal: S3Server, s3_place: Place) -> None:
    document = put(s3_place)
    path = f"/documents/{document['id']}"
    before = s3_place.files()
    mortal.kill()
    for body in (BODY, form(part("file", b"small", file_name="f.txt"))):
        answer = send_form(s3_place.server.url, s3_place.documents, body)
        assert (answer.status, answer.code) == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert mortal.endpoint not in answer.body.decode()
    with s3_place.client() as client:
        for method in ("GET", "HEAD"):
            refused = client.request(method, f"{path}/content")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.get(path).json() == document
        wait_until(lambda: httpx.get(f"{s3_place.server.url}/readyz", timeout=60).status_code == 503)
        assert httpx.get(f"{s3_place.server.url}/livez", timeout=60).status_code == 200
    assert s3_place.names() == ["f.bin"]
    mortal.start()
    assert s3_place.files() == before
    with s3_place.client() as client:
        assert client.get(f"{path}/content").content == CONTENT
    put(s3_place)
    wait_until(lambda: httpx.get(f"{s3_place.server.url}/readyz", timeout=60).status_code == 200)
    assert "Traceback" not in s3_place.server.log
    assert SECRET_KEY not in s3_place.server.log


def test_a_document_can_be_deleted_while_s3_is_away(mortal: S3Server, s3_place: Place) -> None:
    document = put(s3_place)
    mortal.kill()
    with s3_place.client() as client:
        assert client.delete(f"/documents/{document['id']}").status_code == 204
        assert client.get(f"/documents/{document['id']}").status_code == 404
    mortal.start()
    assert s3_place.files() == {document["storage_uri"]}  # the sweeper's


def test_s3_that_goes_away_during_an_upload_leaves_no_row(mortal: S3Server, s3_place: Place) -> None:
    with Wire(s3_place.server.url) as wire:
        wire.send_head("POST", s3_place.documents, content_type=CONTENT_TYPE, content_length=str(len(BODY)))
        wire.socket.sendall(BODY[: PART_BYTES + 2_000_000])
        wait_until(lambda: bool(s3_place.files()))
        mortal.kill()
        wire.socket.sendall(BODY[PART_BYTES + 2_000_000 :])
        answer = wire.read_answer()
        assert (answer.status, answer.code) == (503, "store_unavailable")
    assert s3_place.names() == []


@pytest.mark.parametrize("sent", [PART_BYTES + 2_000_000, 2 * PART_BYTES + 3_000])
def test_a_client_that_disconnects_between_parts_leaves_nothing(s3_place: Place, sent: int) -> None:
    with Wire(s3_place.server.url) as wire:
        wire.send_head("POST", s3_place.documents, content_type=CONTENT_TYPE, content_length=str(len(BODY)))
        wire.socket.sendall(BODY[:sent])
        wait_until(lambda: bool(s3_place.files()))
    wait_until(lambda: not s3_place.files())
    assert s3_place.names() == []
    assert "Traceback" not in s3_place.server.log


def test_kill_9_during_an_upload_leaves_nothing_behind_the_next_sweep(rclone_server: S3Server, sqlite_url: str, tmp_path: Path) -> None:
    bucket = rclone_server.new_bucket()
    with run_server(sqlite_url, tmp_path, workers=1, **bucket.environment) as server:
        place = start_place(Place(server, sqlite_url, tmp_path, bucket, ""))
        document = put(place)
        with Wire(server.url) as wire:
            wire.send_head("POST", place.documents, content_type=CONTENT_TYPE, content_length=str(len(BODY)))
            wire.socket.sendall(BODY[: PART_BYTES + 2_000_000])
            wait_until(lambda: len(place.files()) == 2)
            server.kill()
    assert len(asyncio.run(bucket.uploads())) == 1
    settings = {**bucket.environment, "SAASBASE_STORAGE__SWEEP_MIN_AGE_SECONDS": "0"}
    with run_server(sqlite_url, tmp_path, workers=1, **settings) as server:
        place = replace(place, server=server)
        wait_until(lambda: place.files() == {document["storage_uri"]})
        with place.client() as client:
            assert client.get(f"/documents/{document['id']}/content").content == CONTENT
        assert place.names() == ["f.bin"]


def connections_to(server: Server, port: int) -> int:
    """How many connections the service has to that port of this machine."""
    process = Path(f"/proc/{server.process.pid}")
    own = set()
    for link in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            own.add(str(link.readlink()))
    lines = [line.split() for line in (process / "net/tcp").read_text().splitlines()[1:]]
    return sum(1 for line in lines if line[2].endswith(f":{port:04X}") and line[3] == "01" and f"socket:[{line[9]}]" in own)


def test_a_client_that_goes_away_during_a_download_lets_go_of_s3(mortal: S3Server, s3_place: Place, tmp_path: Path) -> None:
    content = CONTENT * 5  # more than the sockets between hold
    document = send_form(s3_place.server.url, s3_place.documents, form(part("file", content, file_name="f.bin"))).json
    assert s3_place.bucket is not None
    # a second process, so that there is the one connection of its start and none of the upload
    with run_server(s3_place.database_url, tmp_path, workers=1, **s3_place.bucket.environment) as server:
        server.wait_for_first_sweep()
        wait_until(lambda: connections_to(server, mortal.port) <= 1)  # the sweep and /readyz may have asked at once: one is let go soon
        with Wire(server.url) as wire:
            wire.send_head("GET", f"/api/documents/{document['id']}/content")
            assert wire.socket.recv(1000)
            assert connections_to(server, mortal.port) == 1
        # had the content been read to its end, the connection would be kept for the next request
        wait_until(lambda: connections_to(server, mortal.port) == 0, 10)
        with replace(s3_place, server=server).client() as client:
            assert client.get(f"/documents/{document['id']}/content").content == content
        assert "Traceback" not in server.log
