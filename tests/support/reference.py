"""The reference, SaaSBase 0.1.1 from the package index, as a process of its own: installed once, into a folder of its own."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

from tests.support.postgres import START_SECONDS, free_port

REFERENCE_PACKAGE = "saasbase[all]==0.1.1"
SAME_VERSIONS = ("fastapi", "starlette", "pydantic", "python-multipart", "uvicorn", "uvloop", "httptools")

_VENV = Path(__file__).parents[2] / ".reference"


class ReferenceNotStartedError(RuntimeError):
    """The reference did not answer in time."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A running reference."""

    url: str
    pid: int
    database_url: str
    documents: Path


@contextmanager
def run_reference(folder: Path, database_url: str | None = None, **given: str) -> Iterator[Reference]:
    """The reference with its files below the folder, with the options ``saasbase serve`` gives to uvicorn and the settings given."""
    python = install_reference()
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    database_url, documents = database_url or f"jdbc:sqlite:{folder}/reference.db", folder / "documents"
    command: list[str | Path] = [python, "-m", "uvicorn", "--factory", "saasbase.fastapi:create_app", "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--ws", "none", "--workers", "1"]
    command += ["--no-proxy-headers", "--no-server-header", "--no-access-log"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SAASBASE_") and name != "PYTHONPATH"}
    environment = {**clean, "SAASBASE_DB_URL": database_url, "SAASBASE_STORAGE__LOCAL__BASE_PATH": str(documents), **given}
    with (folder / "reference.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_alive(process, url)
        yield Reference(url, process.pid, database_url, documents)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def install_reference() -> Path:
    """Its interpreter; the first call takes a while. Test processes that come at once wait for the first of them."""
    python, done = _VENV / "bin" / "python", _VENV / ".installed"
    pins = [f"{name}=={version(name)}" for name in SAME_VERSIONS]
    wanted = "\n".join([REFERENCE_PACKAGE, *pins])
    _VENV.mkdir(exist_ok=True)
    with _VENV.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", _VENV], check=True)
            pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([python, *pip, REFERENCE_PACKAGE, *pins], check=True)
            done.write_text(wanted)
    return python


def _wait_until_alive(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/openapi.json", timeout=60).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise ReferenceNotStartedError(url)
