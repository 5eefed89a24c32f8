"""On what it was measured, for those who compare: processors, memory and versions, and nothing that names the machine."""

import os
import platform
import re
import sqlite3
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.load import tool
from tests.support.postgres import find_binaries
from tests.support.reference import REFERENCE_PACKAGE

PACKAGES: Final = (
    "fastapi",
    "starlette",
    "pydantic",
    "uvicorn",
    "uvloop",
    "httptools",
    "sqlalchemy",
    "asyncpg",
    "aiosqlite",
    "python-multipart",
)


def describe() -> str:
    """One paragraph."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} processors ({model[1] if model else platform.machine()}) shared by servers, database and load tool,"
        f" {memory:.0f} GiB, {platform.system()}. Load by {tool()}. Python {platform.python_version()}, {versions},"
        f" {_postgres()}, SQLite {sqlite3.sqlite_version}. The reference is {REFERENCE_PACKAGE.replace('[all]==', ' ')}."
    )


def _postgres() -> str:
    words = subprocess.run([find_binaries() / "postgres", "--version"], check=True, capture_output=True, text=True).stdout.split()
    return f"PostgreSQL {words[2]}"
