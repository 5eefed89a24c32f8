"""The README's quick start does what the README says, command by command."""

import re
import subprocess
from pathlib import Path

from tests.support.server import Server

README = Path(__file__).parents[2] / "README.md"


def test_the_quick_start_works_as_pasted(server: Server, tmp_path: Path) -> None:
    commands = _quick_start().replace("http://127.0.0.1:8000", server.url)
    # A terminal goes on after a failed command; here the first failure ends the test.
    pasted = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert pasted.returncode == 0, pasted.stderr
    lines = pasted.stdout.splitlines()
    assert lines[:5] == ["2", "PROJECT_VIEWER", "Hello again from Acme", "Hello from Acme", "404"]
    trail = [tuple(line.split()[1:]) for line in lines[5:]]
    assert [event for event in trail if event[2] == "SUCCESS"] == [
        ("alice", "ORGANIZATION_CREATED", "SUCCESS"),
        ("alice", "MEMBERSHIP_GRANTED", "SUCCESS"),
        ("alice", "PROJECT_CREATED", "SUCCESS"),
        ("alice", "DOCUMENT_CREATED", "SUCCESS"),
        ("alice", "DOCUMENT_VERSION_CREATED", "SUCCESS"),
        ("alice", "MEMBERSHIP_GRANTED", "SUCCESS"),
    ]


def _quick_start() -> str:
    section = README.read_text().partition("\n## Quick start\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    assert len(blocks) == 1, "the quick start is one block to paste"
    return str(blocks[0])
