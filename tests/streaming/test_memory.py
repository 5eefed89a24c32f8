"""A large file costs the server no memory, on the way in or out."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server import Server, run_server
from tests.support.wire import BOUNDARY, form, part

SIZE = 256 * 1024 * 1024
BLOCK = bytes(range(256)) * 4096


def _memory_kib(server: Server, line: str) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(rf"^{line}:\s+(\d+) kB", status, re.MULTILINE)
    assert found
    return int(found.group(1))


def _body(size: int) -> Iterator[bytes]:
    head, _, tail = form(part("file", b"\0CONTENT\0", file_name="large.bin")).partition(b"\0CONTENT\0")
    yield head
    for _ in range(size // len(BLOCK)):
        yield BLOCK
    yield tail


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the bytes do not pass the database
@pytest.mark.parametrize(("store", "allowed_mib"), [("disk", 16), ("s3", 64)])
def test_256_mebibytes_raise_the_servers_peak_memory_by_little(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path, store: str, allowed_mib: int
) -> None:
    settings = request.getfixturevalue("rclone_server").new_bucket().environment if store == "s3" else {}
    settings.pop("SAASBASE_STORAGE__S3__PART_BYTES", None)  # the default is larger than what tests take
    with run_server(database_url, tmp_path, workers=1, **settings) as server:
        upload, download = _growth_kib(server)
    assert upload <= allowed_mib * 1024
    assert download <= allowed_mib * 1024


def _growth_kib(server: Server) -> tuple[int, int]:
    headers = {"X-SaaSBase-Actor": "user:alice"}
    with httpx.Client(base_url=f"{server.url}/api", headers=headers, timeout=300) as client:
        organization = client.post("/organizations", json={"slug": "memory"}).raise_for_status().json()
        project = client.post("/projects", json={"organization_id": organization["id"], "name": "p"}).raise_for_status().json()
        path, kind = f"/projects/{project['id']}/documents", {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        warm = client.post(path, content=_body(len(BLOCK)), headers=kind).raise_for_status().json()
        client.get(f"/documents/{warm['id']}/content").raise_for_status()
        idle = _memory_kib(server, "VmRSS")

        document = client.post(path, content=_body(SIZE), headers=kind).raise_for_status().json()
        after_upload = _memory_kib(server, "VmHWM")
        digest, received = hashlib.sha256(), 0
        with client.stream("GET", f"/documents/{document['id']}/content") as answer:
            for chunk in answer.iter_raw():
                digest.update(chunk)
                received += len(chunk)
        after_download = _memory_kib(server, "VmHWM")
    assert (received, document["size_bytes"]) == (SIZE, SIZE)
    assert digest.hexdigest() == document["checksum"]
    return after_upload - idle, after_download - idle
