"""HTTP by hand: bodies and requests as no client library would send them."""

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any, Self
from urllib.parse import urlsplit

BOUNDARY = "the-boundary"


def part(name: str, body: bytes | str, *, file_name: str | None = None, media_type: str | None = None) -> bytes:
    """One part of a form; the name goes in as it is."""
    shown = f'; filename="{file_name}"' if file_name is not None else ""
    return raw_part(f'form-data; name="{name}"{shown}', body, media_type=media_type)


def raw_part(disposition: str, body: bytes | str, *, media_type: str | None = None) -> bytes:
    """A part with any Content-Disposition."""
    lines = f"Content-Disposition: {disposition}\r\n" + (f"Content-Type: {media_type}\r\n" if media_type is not None else "")
    return lines.encode() + b"\r\n" + (body.encode() if isinstance(body, str) else body)


def form(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    """A whole multipart body."""
    return b"".join(f"--{boundary}\r\n".encode() + one + b"\r\n" for one in parts) + f"--{boundary}--\r\n".encode()


FILE = part("file", b"hello", file_name="f.txt", media_type="text/plain")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code; fails unless this is a problem."""
        assert self.headers["content-type"] == "application/problem+json", self
        problem = self.json
        assert problem["status"] == self.status
        return str(problem["code"])


class Wire:
    """One connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send_head(self, method: str, path: str, *, actor: str | None = "user:alice", **headers: str) -> None:
        """The request line and headers; ``content_type`` is Content-Type."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        if actor is not None:
            lines.append(f"X-SaaSBase-Actor: {actor}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def send_chunks(self, chunks: Iterable[bytes], *, close: bool = True) -> None:
        """A body in chunked transfer encoding."""
        for chunk in chunks:
            self.socket.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if close:
            self.socket.sendall(b"0\r\n\r\n")

    def read_answer(self, method: str = "POST") -> Answer:
        response = HTTPResponse(self.socket, method=method)
        response.begin()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())


def send_form(url: str, path: str, body: bytes, *, boundary: str = BOUNDARY, actor: str | None = "user:alice") -> Answer:
    """Post a multipart body with its length."""
    with Wire(url) as wire:
        wire.send_head("POST", path, actor=actor, content_type=f"multipart/form-data; boundary={boundary}", content_length=str(len(body)))
        wire.socket.sendall(body)
        return wire.read_answer()
