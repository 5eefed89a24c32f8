"""Runs a command on a fresh PostgreSQL: ``python -m tests.support.with_postgres [--pooled] make conformance``.

``--pooled`` puts a real PgBouncer in transaction pooling mode between, with fewer connections than the service has.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.postgres import free_port, run_postgres

SERVER_CONNECTIONS = 3


@contextmanager
def run_pooler(server_url: str) -> Iterator[str]:
    """A PgBouncer before the server; yields the URL to reach it by, without a database."""
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        raise RuntimeError("there is no pgbouncer on this machine")
    behind, port = urlsplit(server_url), free_port()
    with tempfile.TemporaryDirectory(prefix="saasbase-pooler-") as folder:
        configuration = Path(folder) / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host={behind.hostname} port={behind.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nauth_type=any\nunix_socket_dir=\n"
            f"pool_mode=transaction\ndefault_pool_size={SERVER_CONNECTIONS}\nmax_client_conn=200\n"
        )
        user: dict[str, Any] = {}
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            other = pwd.getpwnam("nobody")
            shutil.chown(folder, other.pw_uid)
            shutil.chown(configuration, other.pw_uid)
            user = {"user": other.pw_uid}
        process = subprocess.Popen([binary, "-q", configuration], **user)
        try:
            time.sleep(0.5)
            yield f"postgresql://postgres@127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def main() -> int:
    arguments = sys.argv[1:]
    is_pooled = arguments[:1] == ["--pooled"]
    with run_postgres() as url:
        if not is_pooled:
            return _run(arguments, {"SAASBASE_DB_URL": f"{url}/postgres"})
        with run_pooler(url) as pooled:
            pooler = {"SAASBASE_DB_URL": f"{pooled}/postgres", "SAASBASE_DATABASE__TRANSACTION_POOLER": "true", "WORKERS": "2"}
            return _run(arguments[1:], pooler)


def _run(command: list[str], environment: dict[str, str]) -> int:
    return subprocess.run(command, check=False, env={**os.environ, **environment}).returncode


if __name__ == "__main__":
    raise SystemExit(main())
