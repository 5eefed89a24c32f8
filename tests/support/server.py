"""The service as a process of its own, for what only a real socket or a real kill can show."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.database import environment_of
from tests.support.postgres import free_port

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Server:
    """A running ``saasbase serve``."""

    url: str
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9, workers included: nobody gets to say goodbye."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


@contextmanager
def run_server(database_url: str, folder: Path, *, workers: int = 1, host: str = "127.0.0.1", **environment: str) -> Iterator[Server]:
    """Start the service on a free port with its files below ``folder``; ends it with the block."""
    port = free_port()
    log_path = folder / f"server-{port}.log"
    settings = {
        **environment_of(database_url),
        "SAASBASE_STORAGE__LOCAL__BASE_PATH": str(folder / "documents"),
        "SAASBASE_ACTOR__TRUSTED_PROXIES": "127.0.0.1/32",
        **environment,
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SAASBASE_")}
    command = [sys.executable, "-m", "app", "serve", "--host", host, "--port", str(port), "--workers", str(workers)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**clean, **settings, "PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log_path)
    try:
        _wait_until_alive(server)
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def _wait_until_alive(server: Server) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            if httpx.get(f"{server.url}/readyz", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"the server did not start:\n{server.log}")
