"""The installed ``saasbase`` command in a process of its own, with nothing but the settings a test gives."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Result(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app", *arguments]


def environment(**settings: str) -> dict[str, str]:
    """The test's own environment without any setting of the service, and these."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("SAASBASE_")}
    return {**clean, "COLUMNS": "120", "NO_COLOR": "1", **settings}


def run_saasbase(folder: Path, *arguments: str, **settings: str) -> Result:
    """Run it to its end in a folder. However that is, its user never sees a traceback."""
    ended = subprocess.run(
        command(*arguments), cwd=folder, env=environment(**settings), capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return Result(ended.returncode, ended.stdout, ended.stderr)


def run_saasbase_at_once(count: int, folder: Path, *arguments: str, **settings: str) -> list[Result]:
    """Start it that many times before the first has ended, and wait for all."""
    started = [
        subprocess.Popen(
            command(*arguments), cwd=folder, env=environment(**settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    told = [process.communicate(timeout=180) for process in started]
    return [Result(process.returncode, out, err) for process, (out, err) in zip(started, told, strict=True)]
