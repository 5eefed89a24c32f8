"""An answer leaves in one piece, so that of a process that is killed a client has all of it or nothing."""

from pathlib import Path

from tests.support.server import run_server
from tests.support.wire import Wire

REQUESTS = {"/livez": 200, "/api/me": 200, "/api/projects/x": 422, "/nowhere": 404, "/docs": 200}


def test_head_and_body_leave_together(tmp_path: Path) -> None:
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path) as server, Wire(server.url) as wire:
        for path, status in [*REQUESTS.items()] * 40:
            wire.send_head("GET", path)
            first = wire.socket.recv(1_000_000)
            head, _, body = first.partition(b"\r\n\r\n")
            assert head.startswith(f"HTTP/1.1 {status} ".encode())
            (length,) = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
            assert len(body) == length


def test_what_has_no_body_is_not_kept_back(tmp_path: Path) -> None:
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path) as server, Wire(server.url) as wire:
        for _ in range(3):
            wire.send_head("HEAD", "/api/me")
            assert wire.read_answer("HEAD").status == 200
        for _ in range(3):  # one behind the other
            wire.send_head("GET", "/livez")
        wire.send_head("HEAD", "/api/me", connection="close")
        answers = b""
        while more := wire.socket.recv(1_000_000):
            answers += more
        assert answers.count(b"HTTP/1.1 200 OK\r\n") == 4
