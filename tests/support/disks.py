"""Disks that are soon full: small file systems in memory, which only root may mount, and not in every container."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@cache
def are_expected() -> bool:
    """Whether this machine lets one be mounted."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    attempt = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]  # gone with the process
    return subprocess.run(attempt, check=False, capture_output=True).returncode == 0


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A disk of that size, mounted as a new folder for the block."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
