"""Runs a command on a fresh PostgreSQL: ``python -m tests.support.with_postgres [--pooled] make conformance``.

The command finds the settings of an installation with row-level security and a role for each purpose; schema and roles are its own to
make. ``--pooled`` puts a real PgBouncer in transaction pooling mode between, with fewer connections than the service has.
"""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.db.engine import Database
from tests.support.database import APP, JOBS, OWNER, as_role, environment_of, make_owner
from tests.support.postgres import START_SECONDS, free_port, run_postgres
from tests.support.replicas import find_program

SERVER_CONNECTIONS = 3
DATABASE = "saasbase_conformance"


@contextmanager
def run_pooler(server_url: str) -> Iterator[str]:
    """A PgBouncer before the server; yields the URL to reach it by, without a database."""
    binary = find_program("pgbouncer")
    if binary is None:
        raise RuntimeError("there is no pgbouncer on this machine")
    behind, port = urlsplit(server_url), free_port()
    with tempfile.TemporaryDirectory(prefix="saasbase-pooler-") as folder:
        configuration, users = Path(folder) / "pgbouncer.ini", Path(folder) / "users.txt"
        users.write_text("".join(f'"{role}" "{role}"\n' for role in (APP, JOBS)))
        configuration.write_text(
            f"[databases]\n* = host={behind.hostname} port={behind.port}\n"
            f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nauth_type=trust\nauth_file={users}\nunix_socket_dir=\n"
            f"pool_mode=transaction\ndefault_pool_size={SERVER_CONNECTIONS}\nmax_client_conn=200\n"
        )
        user: dict[str, Any] = {}
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            other = pwd.getpwnam("nobody")
            shutil.chown(folder, other.pw_uid)
            shutil.chown(configuration, other.pw_uid)
            shutil.chown(users, other.pw_uid)
            user = {"user": other.pw_uid}
        process = subprocess.Popen([binary, "-q", configuration], **user)
        try:
            _wait_until_open(process, port)
            yield f"postgresql://postgres@127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_open(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise RuntimeError("PgBouncer did not start")


def main() -> int:
    arguments = sys.argv[1:]
    is_pooled = arguments[:1] == ["--pooled"]
    with run_postgres() as url:
        asyncio.run(make_database(url))
        owner = {"SAASBASE_DATABASE__MIGRATION_URL": as_role(f"{url}/{DATABASE}", OWNER)}
        if not is_pooled:
            return _run(arguments, owner | environment_of(as_role(f"{url}/{DATABASE}", APP)))
        with run_pooler(url) as pooled:
            pooler = {"SAASBASE_DATABASE__TRANSACTION_POOLER": "true", "WORKERS": "2"}
            return _run(arguments[1:], owner | pooler | environment_of(as_role(f"{pooled}/{DATABASE}", APP)))


async def make_database(server_url: str) -> None:
    """The database of the run, which its owner fills."""
    await make_owner(server_url)
    superuser = Database.from_url(f"{server_url}/postgres")
    try:
        async with superuser.reader.connect() as connection:  # no transaction: PostgreSQL makes no database in one
            await connection.exec_driver_sql(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    finally:
        await superuser.aclose()


def _run(command: list[str], environment: dict[str, str]) -> int:
    return subprocess.run(command, check=False, env={**os.environ, **environment}).returncode


if __name__ == "__main__":
    raise SystemExit(main())
