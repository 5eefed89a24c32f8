"""Runs a command with SAASBASE_DB_URL naming a fresh PostgreSQL: ``python -m tests.support.with_postgres make conformance``."""

import os
import subprocess
import sys

from tests.support.postgres import run_postgres


def main() -> int:
    with run_postgres() as url:
        return subprocess.run(sys.argv[1:], check=False, env={**os.environ, "SAASBASE_DB_URL": f"{url}/postgres"}).returncode


if __name__ == "__main__":
    raise SystemExit(main())
