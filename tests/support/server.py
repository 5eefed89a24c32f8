"""The service as a process of its own, for what only a real socket or a real kill can show."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.database import environment_of
from tests.support.metrics import Samples, read_samples
from tests.support.postgres import START_SECONDS, free_port

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

    def wait_until(self, holds: Callable[[], bool], seconds: float = 60) -> None:
        """Until it does, or fail with the log."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def wait_for_workers(self, count: int) -> None:
        """Until that many have been started; it is alive with the first."""
        self.wait_until(lambda: self.log.count("Application startup complete") >= count)

    def wait_for_first_sweep(self) -> None:
        """Until the sweeper has done what it does at the start."""
        name = 'saasbase_job_runs_total{name="sweeper"}'
        self.wait_until(lambda: self.metrics().get(name, 0) >= 1)

    def metrics(self) -> Samples:
        return read_samples(httpx.get(f"{self.url}/metrics", timeout=60, verify=False))

    def kill(self) -> None:
        """kill -9, workers included: nobody gets to say goodbye."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
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
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/readyz", timeout=60, verify=False).status_code == httpx.codes.OK:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start:\n{server.log}")
