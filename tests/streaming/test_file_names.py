"""Names and media types of files: in by every spelling, out so that a client reads back exactly the same."""

import re
from urllib.parse import quote, unquote

import pytest

from tests.streaming.conftest import Place
from tests.support.wire import FILE, Answer, Wire, form, part, raw_part, send_form

ADDRESS = r"(disk:[0-9a-f]{2}/|s3:)[0-9a-f]{32}"
ATTR_CHAR = r"[A-Za-z0-9!#$&+.^_`|~-]"  # RFC 8187
DISPOSITION = re.compile(rf"attachment; filename=\"([ !#-\[\]-~]*)\"; filename\*=UTF-8''((?:{ATTR_CHAR}|%[0-9A-F]{{2}})+)")


def upload(place: Place, *parts: bytes) -> Answer:
    return send_form(place.server.url, place.documents, form(*parts))


def download(place: Place, document_id: str) -> Answer:
    with Wire(place.server.url) as wire:
        wire.send_head("GET", f"/api/documents/{document_id}/content")
        return wire.read_answer("GET")


def name_in(header: str) -> str:
    """What a client that follows RFC 6266 calls the file."""
    found = DISPOSITION.fullmatch(header)
    assert found, header
    return unquote(found.group(2), errors="strict")


NAMES = {
    "plain": (part("file", "x", file_name="plain.txt"), "plain.txt"),
    "japanese": (part("file", "x", file_name="日本語.txt"), "日本語.txt"),
    "umlauts": (part("file", "x", file_name="Prüfung ß.txt"), "Prüfung ß.txt"),
    "emoji": (part("file", "x", file_name="👩‍🚀.txt"), "👩‍🚀.txt"),
    "right_to_left": (part("file", "x", file_name="עברית\u202etxt.exe"), "עברית\u202etxt.exe"),
    "quote_of_a_browser": (part("file", "x", file_name="qu%22ote.txt"), 'qu"ote.txt'),
    "quote_of_curl": (part("file", "x", file_name='qu\\"ote.txt'), 'qu"ote.txt'),
    "percent": (part("file", "x", file_name="100%.txt"), "100%.txt"),
    "percent_escape": (part("file", "x", file_name="a%20b%41.txt"), "a%20b%41.txt"),
    "semicolon": (part("file", "x", file_name="a;b=c.txt"), "a;b=c.txt"),
    "apostrophe": (part("file", "x", file_name="it's *.txt"), "it's *.txt"),
    "traversal": (part("file", "x", file_name="../../etc/passwd"), "passwd"),
    "backslash": (part("file", "x", file_name="a\\b.txt"), "b.txt"),
    "windows_path": (part("file", "x", file_name="C:\\Users\\me\\b.txt"), "b.txt"),
    "spaces_around": (part("file", "x", file_name="  f.txt "), "f.txt"),
    "longest": (part("file", "x", file_name="日" * 255), "日" * 255),
    "extended": (raw_part("form-data; name=\"file\"; filename*=UTF-8''%e6%97%a5%22.txt", "x"), '日".txt'),
    "extended_latin_1": (raw_part("form-data; name=\"file\"; filename*=iso-8859-1''%e4.txt", "x"), "ä.txt"),
    "extended_path": (raw_part("form-data; name=\"file\"; filename*=UTF-8''..%2f..%5cpasswd", "x"), "passwd"),
    "plain_before_extended": (raw_part('form-data; name="file"; filename="a"; filename*=UTF-8\'\'b', "x"), "a"),
    "unquoted": (raw_part("form-data; name=file; filename=bare.txt", "x"), "bare.txt"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_file_name_comes_back_exactly(place: Place, case: str) -> None:
    body, name = NAMES[case]
    answer = upload(place, body)
    assert answer.status == 201, answer
    assert answer.json["name"] == name
    content = download(place, answer.json["id"])
    assert (content.status, content.body) == (200, b"x")
    assert name_in(content.headers["content-disposition"]) == name
    assert content.headers["content-disposition"].isascii()


@pytest.mark.parametrize("name", ["日本語.txt", 'qu"ote.txt', "../../etc/passwd", "a\\b.txt", "100%41.txt", "a/b.txt", ".."])
def test_a_name_given_as_a_field_is_data_and_never_a_path(place: Place, name: str) -> None:
    answer = upload(place, FILE, part("name", name))
    assert answer.status == 201, answer
    assert answer.json["name"] == name
    content = download(place, answer.json["id"])
    assert content.body == b"hello"
    header = content.headers["content-disposition"]
    assert name_in(header) == name
    assert not {"/", "\\", "%"} & set(header.partition('filename="')[2].partition('"')[0])
    stored = answer.json["storage_uri"]
    assert re.fullmatch(ADDRESS, stored)
    assert place.files() == {address for address in place.files() if re.fullmatch(ADDRESS, address)}


def test_an_old_version_comes_under_the_name_it_was_uploaded_with(place: Place) -> None:
    document = upload(place, part("file", "1", file_name="erste.txt")).json
    path = f"/api/documents/{document['id']}/versions"
    second = part("file", "2", file_name="zweite 二.txt")
    assert send_form(place.server.url, path, form(part("version_name", "v 2?#%é"), second)).status == 201
    for version, name, content in [("v1", "erste.txt", b"1"), ("v 2?#%é", "zweite 二.txt", b"2")]:
        with Wire(place.server.url) as wire:
            wire.send_head("GET", f"{path}/{quote(version, safe='')}/content")
            answer = wire.read_answer("GET")
        assert (answer.status, answer.body) == (200, content)
        assert name_in(answer.headers["content-disposition"]) == name


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [
        ("image/png", "image/png"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("text/plain; charset=latin-1", "text/plain; charset=latin-1"),
        ('application/x; a="b \\\\c; d"', None),
        ('application/x; a="b c"; q=1', 'application/x; a="b c"; q=1'),
        ("application/vnd.a+json;v=1", "application/vnd.a+json;v=1"),
        ("TEXT/HTML", "TEXT/HTML"),
        ("text/日本", None),
        ("text", None),
        ("text/", None),
        ("/plain", None),
        ("text/plain; charset", None),
        ("text/plain;\r\nSet-Cookie: a=b", None),
        ("text/plain;\r\n a=b", None),
        ("text/plain;\n a=b", None),
        ("text/plain;\u2003a=b", None),
        ("text/plain\n", None),
        ("a/" + "b" * 254, None),
    ],
)
def test_a_media_type_goes_out_as_it_came_in_or_never_comes_in(place: Place, media_type: str, shown: str | None) -> None:
    answer = upload(place, FILE, part("media_type", media_type))
    if shown is None:
        assert (answer.status, answer.code) == (422, "invalid")
        assert place.names() == []
        return
    assert answer.json["media_type"] == media_type
    content = download(place, answer.json["id"])
    assert content.headers["content-type"] in {shown, f"{shown}; charset=utf-8"}
    assert content.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in content.headers["content-security-policy"]


def test_a_file_without_a_media_type_is_octets(place: Place) -> None:
    answer = upload(place, part("file", "x", file_name="page.html"))
    assert answer.json["media_type"] == "application/octet-stream"
    assert download(place, answer.json["id"]).headers["content-type"] == "application/octet-stream"
