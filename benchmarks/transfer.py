"""Upload and download of one large file over HTTP: rate, CPU seconds and memory of the server, beside the reference."""

import argparse
import hashlib
import http.client
import json
import os
import signal
import socket
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from benchmarks.servers import ACTOR, OURS, REFERENCE, Running, run_ours, run_reference
from tests.support.s3 import run_s3

MIB: Final = 1024 * 1024
BLOCK: Final = 64 * MIB
BOUNDARY: Final = b"bench-0123456789abcdef"
HEAD: Final = (
    b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)
TAIL: Final = b"\r\n--" + BOUNDARY + b"--\r\n"


class WrongAnswerError(RuntimeError):
    """A server answered something else than it should."""


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


@contextmanager
def _bare_server(file: Path) -> Iterator[str]:
    """What any server could reach at best: discards an upload, sends a file by sendfile, parses nothing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                _answer(connection, file)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _answer(connection: socket.socket, file: Path) -> None:
    buffer = bytearray(MIB)
    count = connection.recv_into(buffer)
    head, _, begun = bytes(buffer[:count]).partition(b"\r\n\r\n")
    if head.startswith(b"GET"):
        with file.open("rb") as content:
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {file.stat().st_size}\r\n\r\n".encode())
            connection.sendfile(content)
        return
    rest = int(head.lower().partition(b"content-length:")[2].split()[0]) - len(begun)
    while rest:
        rest -= connection.recv_into(buffer)
    connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")


def measure_limits(folder: Path, source: Source, buffer: bytearray) -> dict[str, float]:
    """MiB/s of the client and the loopback, and of the disk: the same bytes written and synced without any network."""
    file = folder / "limit.bin"
    rates = {}
    os.sync()
    started = time.perf_counter()
    with file.open("wb", buffering=0) as target:
        block = os.urandom(MIB)
        for _ in range(source.size // MIB):
            target.write(block)
        os.fsync(target.fileno())
    rates["disk, written and synced"] = time.perf_counter() - started
    with _bare_server(file) as url:
        for name, work in (
            ("bare socket, upload thrown away", lambda: upload(url, "/", source)),
            ("bare socket, download by sendfile", lambda: download(url, "/", buffer)),
        ):
            started = time.perf_counter()
            work()
            rates[name] = time.perf_counter() - started
    file.unlink()
    return {name: source.size / MIB / seconds for name, seconds in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the servers keep their data; a temporary folder when absent")
    parser.add_argument("--s3", action="store_true", help="documents in S3, served by rclone on this machine, instead of on disk")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers end with the script
    source, buffer = Source(given.size_mib * MIB), bytearray(MIB)
    results: dict[tuple[str, str], list[Transfer]] = defaultdict(list)
    limits: dict[str, list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="saasbase-bench-", dir=given.folder) as name,
        _new_bucket(in_s3=given.s3) as settings,
        run_ours(Path(name) / OURS, **settings) as ours,
        run_reference(Path(name) / REFERENCE, **settings) as reference,
    ):
        servers = [(server, server.new_project()[1]) for server in (ours, reference)]
        idle = {}
        for server, project in servers:
            measure(server, project, Source(4096), 0, buffer)  # threads and connections exist from here on
            idle[server.name] = server.rss_mib()
        for _ in range(given.repeat):
            for limit, rate in measure_limits(Path(name), source, buffer).items():
                limits[limit].append(rate)
            for server, project in servers:
                for kind, transfer in measure(server, project, source, idle[server.name], buffer).items():
                    results[server.name, kind].append(transfer)
    _report(given.size_mib, idle, results, limits)


@contextmanager
def _new_bucket(*, in_s3: bool) -> Iterator[dict[str, str]]:
    """The settings of both servers for S3, whose names are the same; none for the disk."""
    if not in_s3:
        yield {}
        return
    with run_s3("rclone") as server:
        settings = server.new_bucket().environment
        settings.pop("SAASBASE_STORAGE__S3__PART_BYTES")  # the default of a service, not of the tests
        yield settings | {"SAASBASE_STORAGE__S3__REGION": "us-east-1"}


def _report(size_mib: int, idle: dict[str, float], results: dict[tuple[str, str], list[Transfer]], limits: dict[str, list[float]]) -> None:
    print(f"\n{size_mib} MiB, one connection, medians of {len(results[OURS, 'upload'])} interleaved runs\n")
    print("| | MiB/s (lowest to highest) | server CPU s | idle RSS MiB | highest peak over idle MiB |\n|---|---|---|---|---|")
    for kind in ("upload", "download"):
        for name in (OURS, REFERENCE):
            runs = results[name, kind]
            rates, growth = [run.mib_per_second for run in runs], max(run.growth_mib for run in runs)
            cpu = statistics.median(run.cpu_seconds for run in runs)
            spread = f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
            print(f"| {kind}, {name} | {spread} | {cpu:.2f} | {idle[name]:.0f} | {growth:+.1f} |")
    for limit, rates in limits.items():
        print(f"| limit: {limit} | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | | | |")
    for kind in ("upload", "download"):
        pairs = zip(results[OURS, kind], results[REFERENCE, kind], strict=True)
        ratios = [mine.mib_per_second / its.mib_per_second for mine, its in pairs]
        print(f"\n{kind}: {statistics.median(ratios):.1f} x the reference ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
