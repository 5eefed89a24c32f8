"""Downloads over a real socket: byte-exact, by range, conditional; and whatever happens to the bytes, never wrong ones."""

import hashlib
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from email.parser import BytesParser
from typing import Any

import pytest

from tests.streaming.conftest import Place
from tests.support.wire import Answer, Wire, form, part, send_form

CONTENT = random.Random(5).randbytes(300_001)
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{CHECKSUM}"'


def put(place: Place, content: bytes = CONTENT) -> Any:
    answer = send_form(place.server.url, place.documents, form(part("file", content, file_name="f.bin")))
    assert answer.status == 201, answer
    return answer.json


def get(place: Place, document: Any, method: str = "GET", *, path: str = "content", **headers: str) -> Answer:
    with Wire(place.server.url) as wire:
        wire.send_head(method, f"/api/documents/{document['id']}/{path}", **headers)
        return wire.read_answer(method)


def test_a_download_is_exact_and_described(place: Place) -> None:
    document = put(place)
    assert document["checksum"] == CHECKSUM
    answer = get(place, document)
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["etag"] == ETAG
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=0-9"}, {"if_none_match": ETAG}, {"range": "bytes=0-1,5-6"}])
def test_head_answers_the_headers_of_get_and_no_body(place: Place, headers: dict[str, str]) -> None:
    document = put(place)
    full, head = get(place, document, **headers), get(place, document, "HEAD", **headers)
    varying = {"date", "x-request-id", "content-type"} if "," in str(headers) else {"date", "x-request-id"}
    assert head.status == full.status
    assert head.body == b""
    assert {k: v for k, v in head.headers.items() if k not in varying} == {k: v for k, v in full.headers.items() if k not in varying}


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=300000-", 300_000, 300_001),
        ("bytes=1000-", 1000, 300_001),
        ("bytes=-1", 300_000, 300_001),
        ("bytes=-1000", 299_001, 300_001),
        ("bytes=-999999", 0, 300_001),
        ("bytes=0-999999999999999999999", 0, 300_001),
        ("Bytes = 5-9", 5, 10),
    ],
)
def test_a_range_answers_its_part(place: Place, asked: str, start: int, end: int) -> None:
    answer = get(place, put(place), range=asked)
    assert (answer.status, answer.body) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["etag"] == ETAG


def test_several_ranges_come_as_parts(place: Place) -> None:
    answer = get(place, put(place), range="bytes=0-4, 100-199,-3")
    assert answer.status == 206
    assert answer.headers["content-length"] == str(len(answer.body))
    message = BytesParser().parsebytes(f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode() + answer.body)
    assert message.get_content_type() == "multipart/byteranges"
    parts = [(one["Content-Range"], one.get_payload(decode=True)) for one in message.walk() if not one.is_multipart()]
    size = len(CONTENT)
    assert parts == [
        (f"bytes 0-4/{size}", CONTENT[0:5]),
        (f"bytes 100-199/{size}", CONTENT[100:200]),
        (f"bytes {size - 3}-{size - 1}/{size}", CONTENT[-3:]),
    ]


@pytest.mark.parametrize("asked", ["bytes=300001-", "bytes=300001-300005", "bytes=-0", "bytes=9999999-"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_range_outside_the_content_is_a_problem_that_names_the_size(place: Place, asked: str, method: str) -> None:
    answer = get(place, put(place), method, range=asked)
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert method == "HEAD" or answer.code == "range_not_satisfiable"


@pytest.mark.parametrize("asked", ["bytes=9-5", "bytes=", "bytes=a-b", "bytes", "bytes=-", "bytes=" + "9" * 5000 + "-", "bytes=5"])
def test_a_range_that_cannot_be_understood_is_a_problem(place: Place, asked: str) -> None:
    answer = get(place, put(place), range=asked)
    assert (answer.status, answer.code) == (400, "bad_request")


def test_a_range_of_another_unit_is_ignored(place: Place) -> None:
    answer = get(place, put(place), range="lines=1-2")
    assert (answer.status, answer.body) == (200, CONTENT)


def test_a_thousand_ranges_cost_no_more_than_the_file(place: Place) -> None:
    answer = get(place, put(place), range="bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2000, 2)))
    assert (answer.status, answer.body) == (200, CONTENT)


@pytest.mark.parametrize("known", [ETAG, f"W/{ETAG}", f'"other", {ETAG}', "*"])
def test_content_the_client_has_is_not_sent_again(place: Place, known: str) -> None:
    answer = get(place, put(place), if_none_match=known)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == ETAG


def test_content_the_client_does_not_have_is_sent(place: Place) -> None:
    assert get(place, put(place), if_none_match='"other"').body == CONTENT


@pytest.mark.parametrize(("condition", "status"), [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200)])
def test_a_download_is_continued_only_if_the_content_is_the_same(place: Place, condition: str, status: int) -> None:
    answer = get(place, put(place), range="bytes=1000-", if_range=condition)
    assert (answer.status, answer.body) == (status, CONTENT[1000:] if status == 206 else CONTENT)


def test_every_version_keeps_its_content(place: Place) -> None:
    document = put(place, b"first")
    path = f"/api/documents/{document['id']}/versions"
    assert send_form(place.server.url, path, form(part("version_name", "v2"), part("file", CONTENT, file_name="g"))).status == 201
    assert get(place, document).body == CONTENT
    old = get(place, document, path="versions/v1/content")
    assert old.body == b"first"
    assert old.headers["etag"] == f'"{hashlib.sha256(b"first").hexdigest()}"'
    assert get(place, document, path="versions/v1/content", range="bytes=1-2").body == b"ir"
    assert get(place, document, path="versions/v2/content").body == CONTENT
    assert get(place, document, path="versions/v3/content").code == "not_found"


@pytest.mark.parametrize("path", ["content", "versions/v1/content"])
@pytest.mark.parametrize("harm", ["gone", "cut", "longer"])
def test_bytes_the_store_has_lost_are_a_problem_and_not_a_cut_connection(place: Place, path: str, harm: str) -> None:
    document = put(place)
    place.harm(document["storage_uri"], {"gone": None, "cut": CONTENT[:1000], "longer": CONTENT + b"!"}[harm])
    with Wire(place.server.url) as wire:
        for _ in range(2):  # the connection lives on
            wire.send_head("GET", f"/api/documents/{document['id']}/{path}")
            answer = wire.read_answer("GET")
            assert (answer.status, answer.code) == (503, "store_unavailable")
            assert document["storage_uri"].partition(":")[2] not in answer.body.decode()
            assert str(place.folder) not in answer.body.decode()
    with place.client() as client:
        client.delete(f"/documents/{document['id']}").raise_for_status()


def test_a_download_under_way_is_finished_although_the_document_is_deleted(place: Place) -> None:
    content = random.Random(6).randbytes(3_900_000)
    document = put(place, content)
    with Wire(place.server.url) as wire, place.client() as client:
        wire.send_head("GET", f"/api/documents/{document['id']}/content")
        start = wire.socket.recv(1000)
        client.delete(f"/documents/{document['id']}").raise_for_status()
        assert document["storage_uri"] not in place.files()
        received = bytearray(start)
        head_end = received.index(b"\r\n\r\n") + 4
        while len(received) - head_end < len(content) and (more := wire.socket.recv(1 << 20)):
            received += more
    assert bytes(received[head_end:]) == content


def test_deletions_racing_downloads_never_give_wrong_bytes_or_a_cut_connection(place: Place) -> None:
    seen: Counter[int] = Counter()

    def download(path: str, under_way: threading.Barrier) -> None:
        with Wire(place.server.url) as wire:
            for number in range(10_000):
                wire.send_head("GET", path)
                answer = wire.read_answer("GET")
                seen[answer.status] += 1
                if answer.status != 200:
                    assert (answer.status, answer.code) == (404, "not_found")
                    return
                assert answer.body == CONTENT
                if number == 0:
                    under_way.wait(60)

    with ThreadPoolExecutor(4) as pool, place.client() as client:
        for number in range(8):
            document, under_way = put(place), threading.Barrier(5)
            path = f"/api/documents/{document['id']}/content"
            downloads = [pool.submit(download, path, under_way) for _ in range(4)]
            under_way.wait(60)
            time.sleep(0.003 * number)
            client.delete(f"/documents/{document['id']}").raise_for_status()
            for task in downloads:
                task.result()
    assert seen[404] == 32
    assert seen[200] >= 32
