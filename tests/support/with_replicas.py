"""Runs a program against two processes of the service: ``python -m tests.support.with_replicas PROGRAM [ARGUMENT ...]``.

They stand behind nginx, share a PostgreSQL with row-level security behind PgBouncer, and keep documents in Swift. The program finds the
address as its last argument, and names actors in the header ACTOR_HEADER: nginx lets nobody use the usual one.
"""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.database import APP, as_role, migrate_with_roles
from tests.support.postgres import run_postgres
from tests.support.replicas import run_replicas
from tests.support.s3 import run_s3
from tests.support.with_postgres import DATABASE, make_database, run_pooler

ACTOR_HEADER = "X-Gateway-Actor"


def main() -> int:
    with run_postgres() as url, run_pooler(url) as pooled, run_s3("swift") as s3, tempfile.TemporaryDirectory(prefix="saasbase-") as name:
        asyncio.run(make_database(url))
        asyncio.run(migrate_with_roles(f"{url}/{DATABASE}"))
        settings = {
            **s3.new_bucket().environment,
            "SAASBASE_DATABASE__TRANSACTION_POOLER": "true",
            "SAASBASE_ACTOR__HEADER": ACTOR_HEADER,
            "SAASBASE_LOG__LEVEL": "WARNING",
        }
        with run_replicas(as_role(f"{pooled}/{DATABASE}", APP), Path(name), **settings) as replicas:
            return subprocess.run([*sys.argv[1:], "--actor-header", ACTOR_HEADER, replicas.url], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
