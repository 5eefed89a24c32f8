"""An issuer of tokens as tests use it: real key pairs, and a real HTTP server that publishes them."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NAME = "https://issuer.example"
AUDIENCE = "saasbase"
CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@dataclass(frozen=True)
class KeyPair:
    """A key pair, the algorithm it signs with, and the name it is published under."""

    private: Any
    algorithm: str
    kid: str

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public half as it is published; a value of None leaves the member out."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        public: dict[str, Any] = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        public.pop("key_ops", None)
        members = {**public, "kid": self.kid, "use": "sig", "alg": self.algorithm, **changes}
        return {name: value for name, value in members.items() if value is not None}

    def pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    def sign(self, claims: Any, **header: Any) -> str:
        """A token with these claims; header members of None are left out."""
        return self.sign_bytes(json.dumps(claims).encode(), **header)

    def sign_bytes(self, claims: bytes, **header: Any) -> str:
        members = {"typ": "JWT", "alg": self.algorithm, "kid": self.kid, **header}
        signed = f"{part({name: value for name, value in members.items() if value is not None})}.{encode(claims)}"
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return f"{signed}.{encode(algorithm.sign(signed.encode(), self.private))}"


@cache
def key_pair(algorithm: str = "RS256", kid: str = "one", size: int = 2048) -> KeyPair:
    """The same pair for the same name: making RSA keys takes time."""
    if algorithm in CURVES:
        return KeyPair(ec.generate_private_key(CURVES[algorithm]), algorithm, kid)
    if algorithm == "EdDSA":
        return KeyPair(ed25519.Ed25519PrivateKey.generate(), algorithm, kid)
    return KeyPair(rsa.generate_private_key(65537, size), algorithm, kid)


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(members: Any) -> str:
    """A header or claims as they stand in a token."""
    return encode(json.dumps(members).encode())


def claims(subject: str = "alice", **changes: Any) -> dict[str, Any]:
    """The claims of a good token; those of None are left out."""
    moment = int(time.time())
    good = {"iss": NAME, "aud": AUDIENCE, "sub": subject, "iat": moment, "exp": moment + 300, **changes}
    return {name: value for name, value in good.items() if value is not None}


def token(subject: str = "alice", *, key: KeyPair | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token signed by the issuer's first key, unless another is given."""
    return (key or key_pair()).sign(claims(subject, **changes), **(header or {}))


@dataclass
class KeyServer:
    """What a running key server answers, and how often it was asked."""

    url: str
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    """Ends every delay."""
    endless: bytes = b""
    fetches: int = 0
    paths: list[str] = field(default_factory=list)

    def publish(self, *keys: KeyPair | dict[str, Any]) -> None:
        """Answer with these keys from now on."""
        self.body = json.dumps({"keys": [key.jwk() if isinstance(key, KeyPair) else key for key in keys]}).encode()


@contextmanager
def run_key_server(*keys: KeyPair, port: int = 0) -> Iterator[KeyServer]:
    """Serve a JWK set over HTTP from a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running.fetches += 1
            running.paths.append(self.path)
            running.go_on.wait(running.delay_seconds)
            self.send_response(running.status)
            for name, value in running.headers.items():
                self.send_header(name, value)
            if not running.endless:
                self.send_header("Content-Length", str(len(running.body)))
            self.end_headers()
            try:
                self.wfile.write(running.body)
                while running.endless and not ended.is_set():
                    self.wfile.write(running.endless)
                    time.sleep(0.01)
            except ConnectionError:  # the client has had enough
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    running = KeyServer(f"http://127.0.0.1:{server.server_port}/keys")
    running.publish(*keys)
    ended = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield running
    finally:
        ended.set()
        running.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
