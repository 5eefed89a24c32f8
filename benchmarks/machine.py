"""On what it was measured, for those who compare: processors, memory and versions, and nothing that names the machine."""

import os
import platform
import re
import sqlite3
import subprocess
import time
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Work:
    """Processor seconds until a moment: of the whole machine, and of this program with every program it has started and ended."""

    moment: float
    all: float
    own: float

    @classmethod
    def so_far(cls) -> "Work":
        """Until now."""
        user, nice, system = (int(field) for field in Path("/proc/stat").read_text().split()[1:4])
        return cls(time.monotonic(), (user + nice + system) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4]))

    def of_others_since(self, before: "Work") -> float:
        """Which part of the processors other programs took."""
        others = (self.all - before.all) - (self.own - before.own)
        return max(others, 0) / (self.moment - before.moment) / (os.cpu_count() or 1)


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
