"""Uploads over a real socket: every shape of body, and nothing left behind by those that fail."""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from uuid import uuid4

import pytest

from tests.streaming.conftest import MAX_UPLOAD, Place
from tests.support.wire import BOUNDARY, FILE, Answer, Wire, form, part, raw_part, send_form

CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def send(place: Place, body: bytes, *, actor: str | None = "user:alice") -> Answer:
    return send_form(place.server.url, place.documents, body, actor=actor)


@contextmanager
def nothing_stays(place: Place) -> Iterator[None]:
    """No row and no byte more than before, as soon as the server has noticed."""
    files = place.files()
    yield
    place.wait_until_idle()
    assert place.files() == files
    assert place.names() == []


def content_of(place: Place, document_id: str) -> bytes:
    with place.client() as client:
        return client.get(f"/documents/{document_id}/content").raise_for_status().content


@pytest.mark.parametrize("order", ["before", "after", "around"])
def test_fields_may_stand_before_and_after_the_file(place: Place, order: str) -> None:
    fields = [part("name", "named"), part("version_name", "first"), part("media_type", "text/csv"), part("metadata", '{"a": [1, null]}')]
    parts = {"before": [*fields, FILE], "after": [FILE, *fields], "around": [*fields[:2], FILE, *fields[2:]]}[order]
    answer = send(place, form(*parts))
    assert answer.status == 201, answer
    document = answer.json
    assert (document["name"], document["current_version_name"], document["media_type"]) == ("named", "first", "text/csv")
    assert document["metadata"] == {"a": [1, None]}
    assert answer.headers["location"] == f"/api/documents/{document['id']}"
    assert content_of(place, document["id"]) == b"hello"


def test_empty_fields_count_as_absent(place: Place) -> None:
    document = send(place, form(part("name", ""), part("version_name", ""), part("media_type", ""), part("metadata", ""), FILE)).json
    assert (document["name"], document["current_version_name"], document["media_type"]) == ("f.txt", "v1", "text/plain")
    assert document["metadata"] == {}


@pytest.mark.parametrize("size", [1, 63, 4096, 100_000])
def test_chunks_of_any_size_make_the_same_document(place: Place, size: int) -> None:
    # the bytes are full of beginnings of the boundary, so that the parser has to look back over chunk ends
    content = (b"\r\n--the-bound" + b"\r\n--the-boundarX" + b"\r\n-" + b"\r") * (30 if size < 100 else 30_000)
    body = form(part("name", "chunked"), part("file", content, file_name="f.bin"))
    with Wire(place.server.url) as wire:
        wire.send_head("POST", place.documents, content_type=CONTENT_TYPE, transfer_encoding="chunked")
        wire.send_chunks(body[start : start + size] for start in range(0, len(body), size))
        answer = wire.read_answer()
    assert answer.status == 201, answer
    assert answer.json["size_bytes"] == len(content)
    assert content_of(place, answer.json["id"]) == content


def test_nothing_of_one_upload_gets_into_another(place: Place) -> None:
    """Their memory is used again: of sizes around a batch's, the smaller after the larger."""
    batch = 1024 * 1024
    sizes = [3 * batch + 5, 2 * batch, batch + 1, batch, batch - 1, 10, 1]
    contents = [random.Random(size).randbytes(size) for size in sizes]
    documents = [send(place, form(part("file", content, file_name="f.bin"))).json for content in contents]
    assert [content_of(place, document["id"]) for document in documents] == contents
    assert [document["checksum"] for document in documents] == [sha256(content).hexdigest() for content in contents]


def test_a_body_without_the_last_line_end_is_whole(place: Place) -> None:
    assert send(place, form(FILE).removesuffix(b"\r\n")).status == 201


def test_what_follows_the_closing_boundary_is_ignored(place: Place) -> None:
    assert send(place, form(FILE) + form(part("name", "epilogue"))).json["name"] == "f.txt"


BROKEN: dict[str, tuple[bytes, int, str]] = {
    "no_file": (form(part("name", "n")), 422, "invalid"),
    "no_part": (f"--{BOUNDARY}--\r\n".encode(), 422, "invalid"),
    "nothing": (b"", 400, "broken_multipart"),
    "two_files": (form(FILE, FILE), 422, "invalid"),
    "empty_file": (form(part("file", b"", file_name="f.txt")), 400, "empty_file"),
    "file_without_name": (form(part("file", b"hello")), 422, "invalid"),
    "file_with_empty_name": (form(part("file", b"hello", file_name="")), 422, "invalid"),
    "file_named_like_a_folder": (form(part("file", b"hello", file_name="folder/")), 422, "invalid"),
    "unknown_field": (form(FILE, part("nmae", "typo")), 422, "invalid"),
    "unknown_file": (form(FILE, part("other", b"x", file_name="o.txt")), 422, "invalid"),
    "field_as_file": (form(FILE, part("name", b"x", file_name="o.txt")), 422, "invalid"),
    "field_twice": (form(part("name", "a"), part("name", "b"), FILE), 422, "invalid"),
    "field_too_long": (form(FILE, part("name", "n" * 70_000)), 422, "invalid"),
    "name_too_long": (form(FILE, part("name", "n" * 256)), 422, "invalid"),
    "name_with_line_end": (form(FILE, part("name", "a\r\nb")), 422, "invalid"),
    "name_not_utf8": (form(FILE, part("name", b"\xff\xfe")), 400, "broken_multipart"),
    "name_with_nul": (form(FILE, part("name", "a\x00b")), 422, "invalid"),
    "version_with_slash": (form(FILE, part("version_name", "a/b")), 422, "invalid"),
    "metadata_no_json": (form(FILE, part("metadata", "{")), 422, "invalid"),
    "metadata_no_object": (form(FILE, part("metadata", "[1]")), 422, "invalid"),
    "metadata_not_finite": (form(FILE, part("metadata", '{"a": NaN}')), 422, "invalid"),
    "metadata_surrogate": (form(FILE, part("metadata", '{"a": "\\ud800"}')), 422, "invalid"),
    "metadata_deep": (form(FILE, part("metadata", '{"a":' * 40 + "1" + "}" * 40)), 422, "invalid"),
    "metadata_very_deep": (form(FILE, part("metadata", '{"a":' + "[" * 20_000 + "]" * 20_000 + "}")), 422, "invalid"),
    "metadata_huge_number": (form(FILE, part("metadata", '{"a": 1' + "0" * 5000 + "}")), 422, "invalid"),
    "wrong_boundary": (form(FILE, boundary="another"), 400, "broken_multipart"),
    "no_multipart": (b'{"file": "hello"}', 400, "broken_multipart"),
    "cut_in_the_file": (form(FILE)[:-20], 400, "broken_multipart"),
    "cut_in_the_headers": (form(FILE)[:40], 400, "broken_multipart"),
    "no_closing_boundary": (form(FILE).removesuffix(b"--\r\n") + b"\r\n", 400, "broken_multipart"),
    "many_parts": (form(*(part(f"f{number}", "x") for number in range(30)), FILE), 400, "too_many_parts"),
    "part_without_name": (form(raw_part("form-data", "x"), FILE), 400, "broken_multipart"),
    "part_of_another_kind": (form(raw_part('attachment; name="file"; filename="f"', "x")), 400, "broken_multipart"),
    "part_without_headers": (form(b"\r\nx", FILE), 400, "broken_multipart"),
    "headers_too_large": (form(raw_part("form-data; name=" + "n" * 9000, "x"), FILE), 400, "broken_multipart"),
    "many_headers": (form(b"".join(b"X-%d: y\r\n" % n for n in range(3000)) + FILE), 400, "broken_multipart"),
    "charset_unknown_to_text": (form(raw_part("form-data; name=file; filename*=idna''a%ff", "x")), 400, "broken_multipart"),
    "charset_undefined": (form(raw_part("form-data; name=file; filename*=undefined''a", "x")), 400, "broken_multipart"),
    "charset_with_nul": (form(raw_part("form-data; name=file; filename*=\x00''a", "x")), 400, "broken_multipart"),
    "charset_not_of_text": (form(raw_part("form-data; name=file; filename*=hex''a%ff\x01", "x")), 422, "invalid"),
    "file_name_too_long": (form(part("file", b"hello", file_name="n" * 300)), 422, "invalid"),
    "file_name_with_escape": (form(part("file", b"hello", file_name="a\x1bb")), 422, "invalid"),
    "file_name_with_line_end": (form(part("file", b"hello", file_name="a%0D%0ASet-Cookie: x")), 422, "invalid"),
    "file_name_not_utf8": (form(b'Content-Disposition: form-data; name="file"; filename="\xff"\r\n\r\nx'), 400, "broken_multipart"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_body_that_cannot_be_accepted_leaves_nothing(place: Place, case: str) -> None:
    body, status, code = BROKEN[case]
    with nothing_stays(place):
        answer = send(place, body)
        assert (answer.status, answer.code) == (status, code), answer
        if status == 422:
            assert answer.json["errors"], answer
        assert b"Traceback" not in answer.body


@pytest.mark.parametrize("case", ["two_files", "empty_file", "cut_in_the_file", "unknown_field", "name_with_line_end"])
def test_a_version_that_cannot_be_accepted_leaves_the_document_as_it_was(place: Place, case: str) -> None:
    document = send(place, form(FILE)).json
    path, files = f"/documents/{document['id']}", place.files()
    body, status, _ = BROKEN[case]
    with place.client() as client:
        assert send_form(place.server.url, f"/api{path}/versions", form(part("version_name", "v2")) + body).status in {400, 422}
        answer = send_form(place.server.url, f"/api{path}/versions", body)
        assert answer.status == status, answer
        assert client.get(path).json() == document
        assert len(client.get(f"{path}/versions").json()) == 1
    assert place.files() == files


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        ("application/json", 415, "unsupported_media_type"),
        ("multipart/mixed; boundary=x", 415, "unsupported_media_type"),
        ("", 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", 422, "invalid"),
        ("multipart/form-data", 400, "broken_multipart"),
        ("multipart/form-data; boundary=", 400, "broken_multipart"),
        ("multipart/form-data; boundary=" + "b" * 71, 400, "broken_multipart"),
    ],
)
def test_a_body_of_another_kind_is_refused(place: Place, content_type: str, status: int, code: str) -> None:
    body = form(FILE)
    with nothing_stays(place), Wire(place.server.url) as wire:
        wire.send_head("POST", place.documents, content_type=content_type, content_length=str(len(body)))
        wire.socket.sendall(body)
        answer = wire.read_answer()
        assert (answer.status, answer.code) == (status, code), answer


def test_the_largest_file_is_taken_and_one_byte_more_is_not(place: Place) -> None:
    with nothing_stays(place):
        answer = send(place, form(part("file", bytes(MAX_UPLOAD + 1), file_name="f")))
        assert (answer.status, answer.code) == (413, "file_too_large")
    assert send(place, form(part("file", bytes(MAX_UPLOAD), file_name="f"))).json["size_bytes"] == MAX_UPLOAD


def test_a_declared_length_over_the_limit_is_refused_before_the_body_is_sent(place: Place) -> None:
    with nothing_stays(place), Wire(place.server.url) as wire:
        wire.send_head("POST", place.documents, content_type=CONTENT_TYPE, content_length=str(10 * MAX_UPLOAD))
        answer = wire.read_answer()
        assert (answer.status, answer.code) == (413, "file_too_large")


def test_a_chunked_body_over_the_limit_is_refused_while_it_streams(place: Place) -> None:
    with nothing_stays(place), Wire(place.server.url) as wire:
        wire.send_head("POST", place.documents, content_type=CONTENT_TYPE, transfer_encoding="chunked")
        start = form(part("file", b"", file_name="f")).partition(f"\r\n--{BOUNDARY}--".encode())[0]
        wire.send_chunks([start, *(bytes(65536) for _ in range(MAX_UPLOAD // 65536 + 1))], close=False)
        answer = wire.read_answer()
        assert (answer.status, answer.code) == (413, "file_too_large")


@pytest.mark.parametrize("sent", [0, 100, 1_200_000, 3_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_client_that_disconnects_leaves_nothing(place: Place, sent: int, framing: str) -> None:
    body = form(part("file", random.Random(1).randbytes(3_500_000), file_name="f"))
    with nothing_stays(place), Wire(place.server.url) as wire:
        if framing == "length":
            wire.send_head("POST", place.documents, content_type=CONTENT_TYPE, content_length=str(len(body)))
            wire.socket.sendall(body[:sent])
        else:
            wire.send_head("POST", place.documents, content_type=CONTENT_TYPE, transfer_encoding="chunked")
            wire.send_chunks([body[:sent]] if sent else [], close=False)
        _wait_until(lambda: sent < 1_200_000 or place.is_receiving())


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("actor", "status"), [("user:mallory", 404), (None, 401), ("user:viewer", 403), ("robot:x", 400)])
@pytest.mark.parametrize("target", ["document", "version"])
def test_who_may_not_is_told_before_the_body_is_read(place: Place, actor: str | None, status: int, target: str) -> None:
    document = send(place, form(FILE)).json
    path = place.documents if target == "document" else f"/api/documents/{document['id']}/versions"
    with place.client() as client:
        grant = {"resource_type": "PROJECT", "resource_id": place.project_id, "actor_type": "USER", "actor_id": "viewer"}
        client.post("/memberships", json={**grant, "role": "PROJECT_VIEWER"}).raise_for_status()
    files = place.files()
    with Wire(place.server.url) as wire:
        wire.send_head("POST", path, actor=actor, content_type=CONTENT_TYPE, content_length="4000000")
        wire.socket.sendall(form(part("file", bytes(100_000), file_name="f"))[:100_000])
        answer = wire.read_answer()
        assert answer.status == status, answer
        assert answer.code
    assert place.files() == files
    assert place.names() == ["f.txt"]


def test_a_project_that_does_not_exist_is_told_before_the_body_is_read(place: Place) -> None:
    with nothing_stays(place), Wire(place.server.url) as wire:
        wire.send_head("POST", f"/api/projects/{uuid4()}/documents", content_type=CONTENT_TYPE, content_length="4000000")
        assert wire.read_answer().status == 404


def test_the_connection_serves_the_next_request_after_a_refused_upload(place: Place) -> None:
    body = form(part("file", bytes(200_000), file_name="f"))
    with Wire(place.server.url) as wire:
        for _ in range(3):
            wire.send_head("POST", place.documents, actor="user:mallory", content_type=CONTENT_TYPE, content_length=str(len(body)))
            wire.socket.sendall(body)
            assert wire.read_answer().status == 404
        wire.send_head("POST", place.documents, content_type=CONTENT_TYPE, content_length=str(len(body)))
        wire.socket.sendall(body)
        assert wire.read_answer().status == 201


def test_a_client_that_waits_for_100_continue_gets_it(place: Place) -> None:
    body = form(FILE)
    with Wire(place.server.url) as wire:
        wire.send_head("POST", place.documents, content_type=CONTENT_TYPE, content_length=str(len(body)), expect="100-continue")
        assert wire.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.socket.sendall(body)
        assert wire.read_answer().status == 201


def test_the_problem_names_the_field_at_fault(place: Place) -> None:
    for body, pointer in [
        (form(part("name", "n")), "/file"),
        (form(FILE, part("nmae", "typo")), "/nmae"),
        (form(FILE, part("metadata", "[1]")), "/metadata"),
        (form(FILE, part("media_type", "no type")), "/media_type"),
        (form(part("file", "x", file_name="f", media_type="no type")), "/file"),
    ]:
        answer = send(place, body)
        assert [error["pointer"] for error in answer.json["errors"]] == [pointer], json.dumps(answer.json)
