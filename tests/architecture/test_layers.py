"""The layers are contracts of import-linter in pyproject.toml; here they are held, and each is seen to break."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support.application import ROOT

CONTRACTS = [contract["name"] for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]]
TRESPASSES = {
    "A module imports only from layers below its own": ("app/core/clock.py", "import app.db.base"),
    "Resources are strangers to one another": ("app/resources/projects/service.py", "import app.resources.documents.schemas"),
    "Capabilities are strangers to one another": ("app/audit/trail.py", "import app.authz.engine"),
    "Inside a resource: router, service, repository, schemas": (
        "app/resources/projects/schemas.py",
        "import app.resources.projects.service",
    ),
    "Only the edge knows HTTP": ("app/resources/projects/service.py", "import fastapi"),
    "Only repositories and capabilities know SQL": ("app/resources/projects/router.py", "import sqlalchemy"),
    "One module knows the library of S3": ("app/blobs/s3_writer.py", "import aioboto3"),
    "Only main and the command line know the settings": ("app/jobs.py", "import app.settings"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_every_contract_is_kept() -> None:
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken" in found.stdout


def test_every_contract_breaks_when_it_is_trespassed(tmp_path: Path) -> None:
    assert set(TRESPASSES) == set(CONTRACTS), "a contract without a trespass that shows it works"
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, line in TRESPASSES.values():
        with (tmp_path / path).open("a") as module:
            module.write(f"\n{line}\n")
    found = lint(tmp_path)
    assert found.returncode == 1, found.stdout + found.stderr
    kept = [name for name in CONTRACTS if f"{name} BROKEN" not in found.stdout]
    assert kept == []
