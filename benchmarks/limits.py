"""What any server could reach at best with a large file: the disk alone, a socket that discards, and nginx."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.servers import Running, run_process, wait_until_open
from benchmarks.transfer import MIB, Source, download, upload
from tests.support.postgres import free_port
from tests.support.replicas import find_program

DISK, NGINX = "disk, written and synced", "nginx, download by sendfile"
DISK_HASHED = "disk, SHA-256, written and synced"
BARE_UPLOAD, BARE_DOWNLOAD = "bare socket, upload thrown away", "bare socket, download by sendfile"
BARE_COPY = "bare socket, download by read and write"

_COPIED: Final = "/copied"
_FILE: Final = "limit.bin"
_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@contextmanager
def run_nginx(folder: Path) -> Iterator[str | None]:
    """The URL of an nginx that serves the folder; None where it is not installed."""
    binary = find_program("nginx")
    if binary is None:
        yield None
        return
    port, configuration = free_port(), folder / "nginx.conf"
    places = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _TEMPORARY)
    # One process, which stays who it is: another user could not read the folder.
    configuration.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; events {{}}\n"
        f"http {{ access_log off; sendfile on; {places} server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    with run_process([binary, "-e", "stderr", "-p", str(folder), "-c", str(configuration)], folder / "nginx.log") as process:
        yield wait_until_open(Running("nginx", f"http://127.0.0.1:{port}", process.pid)).url


@contextmanager
def _bare_server(file: Path) -> Iterator[str]:
    """What any server could reach at best: discards an upload, sends a file by sendfile or by copying it, parses nothing."""
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
            if head.startswith(f"GET {_COPIED} ".encode()):  # as everything does that hands its server bytes, and ASGI knows nothing else
                while count := content.readinto(buffer):
                    connection.sendall(memoryview(buffer)[:count])
            else:
                connection.sendfile(content)
        return
    rest = int(head.lower().partition(b"content-length:")[2].split()[0]) - len(begun)
    while rest:
        rest -= connection.recv_into(buffer)
    connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")


def measure_limits(folder: Path, nginx: str | None, source: Source, buffer: bytearray) -> dict[str, float]:
    """MiB/s of the disk, the same bytes written and synced without any network; of client and loopback; and of nginx where there is one."""
    file = folder / _FILE
    os.sync()
    seconds = {DISK: _took(lambda: _write(file, source.size, is_hashed=False))}
    file.unlink()
    os.sync()
    seconds[DISK_HASHED] = _took(lambda: _write(file, source.size, is_hashed=True))
    with _bare_server(file) as url:
        seconds[BARE_UPLOAD] = _took(lambda: upload(url, "/", source))
        seconds[BARE_DOWNLOAD] = _took(lambda: download(url, "/", buffer))
        seconds[BARE_COPY] = _took(lambda: download(url, _COPIED, buffer))
    if nginx is not None:
        seconds[NGINX] = _took(lambda: download(nginx, f"/{_FILE}", buffer))
    file.unlink()
    return {name: source.size / MIB / taken for name, taken in seconds.items()}


def _write(file: Path, size: int, *, is_hashed: bool) -> None:
    block, digest = os.urandom(MIB), hashlib.sha256()
    with file.open("wb", buffering=0) as target:
        for _ in range(size // MIB):
            if is_hashed:
                digest.update(block)
            target.write(block)
        os.fsync(target.fileno())


def _took(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
