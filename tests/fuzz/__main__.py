"""Runs schemathesis over the OpenAPI document of a real server: ``python -m tests.fuzz``, which is ``make fuzz``.

The server has the world of ``saasbase demo`` and a key of its owner; on SQLite, or on the database named by SAASBASE_DB_URL. Fails when
a check found something, and when there was nothing to check.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from app.http import examples
from tests.support.cli import run_saasbase
from tests.support.database import OWNER, as_role, environment_of
from tests.support.server import ROOT, run_server

CONFIGURATION = Path(__file__).parent / "schemathesis.toml"
LONGEST_SECONDS = 600
# Every caller shows who it is, and may guess: what a check sends without a credential or with a bad one is to be 401, not 429.
SETTINGS = {"SAASBASE_ACTOR__ANONYMOUS": "", "SAASBASE_API_KEYS__GUESS_LIMIT": "false", "SAASBASE_LOG__LEVEL": "WARNING"}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="saasbase-fuzz-") as name:
        folder = Path(name)
        url = os.environ.get("SAASBASE_DB_URL", f"sqlite:///{folder / 'fuzz.db'}")
        settings = {**environment_of(url), **SETTINGS, "SAASBASE_STORAGE__LOCAL__BASE_PATH": str(folder / "documents")}
        if not url.startswith("sqlite"):
            _saasbase(folder, "migrate", "--create-roles", **settings, SAASBASE_DATABASE__MIGRATION_URL=as_role(url, OWNER))
        viewer = _saasbase(folder, "demo", **settings)
        owner = _saasbase(folder, "keys", "create", "--organization", "demo", "--role", "ORG_OWNER", "--name", "fuzz", **settings)
        with run_server(url, folder, workers=1, **SETTINGS) as server:
            environment = {"FUZZ_TOKEN": owner, **_world(f"{server.url}/api", owner, viewer)}
            status = _run_schemathesis(server.url, folder / "report.json", environment)
            sys.stderr.write(server.log)
    return status


def _saasbase(folder: Path, *arguments: str, **settings: str) -> str:
    """The last line that the command says."""
    result = run_saasbase(folder, *arguments, **settings)
    if result.status != 0:
        raise RuntimeError(result.err)
    return result.out.strip().rpartition("\n")[2]


def _world(api: str, owner: str, viewer: str) -> dict[str, str]:
    """What the ids of the document's examples stand for, and the key that the run lives on."""
    with httpx.Client(base_url=api, headers={"Authorization": f"Bearer {owner}"}) as client:

        def first(path: str, **params: str) -> Any:
            return client.get(path, params=params).raise_for_status().json()["items"][0]

        document = first("/documents")
        world = {
            examples.ORGANIZATION: document["organization_id"],
            examples.PROJECT: document["project_id"],
            examples.DOCUMENT: document["id"],
            examples.CALL: first("/api-calls")["id"],
            examples.EXECUTION: first("/executions")["id"],
            examples.KEY: _id_of(api, viewer),
        }
    return {"FUZZ_WORLD": json.dumps(world), "FUZZ_KEY": _id_of(api, owner)}


def _id_of(api: str, token: str) -> str:
    told = httpx.get(f"{api}/me", headers={"Authorization": f"Bearer {token}"}).raise_for_status().json()
    return str(told["actor"]["id"])


def _run_schemathesis(url: str, report: Path, environment: dict[str, str]) -> int:
    program = Path(sys.executable).parent / "schemathesis"
    command: list[str | Path] = [program, "--config-file", CONFIGURATION, "run", f"{url}/openapi.json", "--no-color"]
    command += ["--report", "json", "--report-json-path", report]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SAASBASE_")}
    ended = subprocess.run(command, cwd=ROOT, env={**clean, **environment}, timeout=LONGEST_SECONDS, check=False)
    told = json.loads(report.read_text())
    tested, cases = told["operations"]["tested"], told["test_cases"]["generated"]
    if not told["complete"] or tested < told["operations"]["total"] or cases < 50 * tested:
        sys.stderr.write(f"not all was tested: {cases} cases for {tested} of {told['operations']['total']} operations\n")
        return 1
    return ended.returncode


if __name__ == "__main__":
    raise SystemExit(main())
