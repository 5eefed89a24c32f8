"""Upload and download of one large file over HTTP: rate, CPU seconds and memory of the server."""

import hashlib
import http.client
import json
import os
import socket
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from benchmarks.servers import ACTOR, Running
from benchmarks.workloads import WrongAnswerError

MIB: Final = 1024 * 1024
BLOCK: Final = 64 * MIB
BOUNDARY: Final = b"bench-0123456789abcdef"
HEAD: Final = (
    b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)
TAIL: Final = b"\r\n--" + BOUNDARY + b"--\r\n"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One upload or download."""

    mib_per_second: float
    cpu_seconds: float
    growth_mib: float


class Source:
    """Random bytes in memory, sent by the kernel (sendfile), so that the client costs next to nothing."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._descriptor = os.memfd_create("bench")
        block, digest = os.urandom(min(size, BLOCK)), hashlib.sha256()
        os.write(self._descriptor, block)
        self._block_size = len(block)
        for start in range(0, size, len(block)):
            digest.update(memoryview(block)[: size - start])
        self.checksum = digest.hexdigest()

    def send(self, connection: socket.socket) -> None:
        """Send all of it."""
        rest = self.size
        while rest:
            place = (self.size - rest) % self._block_size
            rest -= os.sendfile(connection.fileno(), self._descriptor, place, min(rest, self._block_size - place))


def upload(url: str, path: str, source: Source) -> Any:
    """Send a multipart form over a socket of its own; returns the answer's JSON."""
    length = len(HEAD) + source.size + len(TAIL)
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Length: {length}"]
    lines += [f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}", *_actor_lines()]
    with _connect(url) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + HEAD)
        source.send(connection)
        connection.sendall(TAIL)
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read()
    if response.status != http.HTTPStatus.CREATED:
        raise WrongAnswerError(f"{response.status}: {body[:300]!r}")
    return json.loads(body)


def download(url: str, path: str, buffer: bytearray, digest: Any = None) -> int:
    """Receive a file into one buffer and throw it away; returns its size."""
    request = "\r\n".join([f"GET {path} HTTP/1.1", "Host: bench", *_actor_lines()]).encode() + b"\r\n\r\n"
    view = memoryview(buffer)
    with _connect(url) as connection:
        connection.sendall(request)
        filled = 0
        while (end := buffer.find(b"\r\n\r\n", 0, filled)) < 0:
            if not (count := connection.recv_into(view[filled:])):
                raise WrongAnswerError("the connection ended within the headers")
            filled += count
        head = bytes(view[:end]).decode("latin-1").lower()
        if not head.startswith("http/1.1 200"):
            raise WrongAnswerError(head)
        size = int(head.partition("content-length:")[2].split()[0])
        received, rest = view[end + 4 : filled], size - (filled - end - 4)
        while True:
            if digest is not None:
                digest.update(received)
            if not rest:
                return size
            if not (count := connection.recv_into(view)):
                raise WrongAnswerError(f"the connection ended {rest} bytes too early")
            received, rest = view[:count], rest - count


def _actor_lines() -> list[str]:
    return [f"{name}: {value}" for name, value in ACTOR.items()] + ["Connection: close"]


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 80))
    connection.settimeout(None)  # Python's timeouts make the socket non-blocking, which sendfile does not take
    return connection


def measure(server: Running, project: str, source: Source, idle_mib: float, buffer: bytearray) -> dict[str, Transfer]:
    """One upload and one download of it; the document is checked and deleted."""

    def finish(started: float, cpu: float) -> Transfer:
        seconds = time.perf_counter() - started
        return Transfer(source.size / MIB / seconds, server.cpu_seconds() - cpu, server.peak_mib() - idle_mib)

    os.sync()  # what was written before must not be paid for by this upload
    server.forget_peak()
    cpu, started = server.cpu_seconds(), time.perf_counter()
    document = upload(server.url, f"/api/projects/{project}/documents", source)
    results = {"upload": finish(started, cpu)}
    if (document["size_bytes"], document["checksum"]) != (source.size, source.checksum):
        raise WrongAnswerError("the server has stored something else")
    path = f"/api/documents/{document['id']}/content"
    digest = hashlib.sha256()
    download(server.url, path, buffer, digest)  # also fills the page cache
    if digest.hexdigest() != source.checksum:
        raise WrongAnswerError("the server sends something else than it stored")
    os.sync()
    server.forget_peak()
    cpu, started = server.cpu_seconds(), time.perf_counter()
    download(server.url, path, buffer)
    results["download"] = finish(started, cpu)
    httpx.delete(f"{server.url}/api/documents/{document['id']}", headers=ACTOR, timeout=60).raise_for_status()
    return results
