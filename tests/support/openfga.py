"""A real OpenFGA for the tests, with its data in memory; killed and started again by those that want to see what happens."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx

from app.authz.model import make_model
from tests.support.postgres import START_SECONDS, free_port

INSTALL = "go install github.com/openfga/openfga/cmd/openfga@latest"
# Read here, because no test sees the environment's settings.
GIVEN_BINARY = os.environ.get("OPENFGA_BIN")


class NoOpenFGAError(RuntimeError):
    """There is no OpenFGA, and there could be one; a test run without it would hide half of what it should show."""


@cache
def find_binary() -> Path | None:
    """The server's program; None when it is not installed."""
    candidates = [GIVEN_BINARY, shutil.which("openfga"), *_of_go()]
    return next((Path(found) for found in candidates if found and Path(found).is_file()), None)


def _of_go() -> Iterator[Path]:
    if (go := shutil.which("go")) is not None:
        told = subprocess.run([go, "env", "GOBIN", "GOPATH"], capture_output=True, text=True, check=True).stdout.splitlines()
        yield from [Path(told[0]) / "openfga"] if told[0] else [Path(folder) / "bin/openfga" for folder in told[1].split(os.pathsep)]


def is_expected() -> bool:
    """Whether tests run on OpenFGA here: it is there, or the machine has what makes it."""
    return find_binary() is not None or shutil.which("go") is not None


# The engines that one suite for all of them runs over.
ENGINES = ("builtin", "openfga") if is_expected() else ("builtin",)


class OpenFGAServer:
    """A server of its own on a port of its own."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on its port, with an empty memory."""
        binary = find_binary()
        if binary is None:
            raise NoOpenFGAError(f"there is Go and no OpenFGA on this machine: run '{INSTALL}'")
        command: list[str | Path] = [binary, "run", "--datastore-engine", "memory", "--log-level", "error"]
        command += ["--http-addr", f"127.0.0.1:{self.port}", "--grpc-addr", f"127.0.0.1:{free_port()}"]
        command += ["--playground-enabled=false", "--metrics-enabled=false", *self._options]
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    if httpx.get(f"{self.url}/healthz", timeout=10, trust_env=False).is_success:
                        return
                except httpx.TransportError:
                    time.sleep(0.02)
            log.seek(0)
            raise NoOpenFGAError(f"OpenFGA did not start: {log.read()[-2000:]!r}")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)

    def pause(self) -> None:
        """Let it answer nothing, with its connections open (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def new_store(self) -> str:
        """An empty store with the model; its id."""
        with httpx.Client(base_url=self.url, trust_env=False, headers=self._headers, timeout=60) as client:
            store = client.post("/stores", json={"name": "test"}).raise_for_status().json()["id"]
            client.post(f"/stores/{store}/authorization-models", json=make_model()).raise_for_status()
        return str(store)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": "Bearer geheim"} if "preshared" in self._options else {}


@contextmanager
def run_openfga(*options: str) -> Iterator[OpenFGAServer]:
    """A server for the block."""
    server = OpenFGAServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
