"""The log of a running service: for a person in a terminal, for a machine elsewhere, and as it is told."""

import json
import os
import pty
import re
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.support.cli import command, environment
from tests.support.postgres import free_port
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.server import run_server


def read_terminal(leader: int, process: subprocess.Popen[bytes], until: str) -> str:
    """What stands in the terminal once that does."""
    text, deadline = "", time.monotonic() + 120
    while until not in text:
        assert time.monotonic() < deadline, text
        assert process.poll() is None, text
        text += os.read(leader, 65536).decode()
    return text


def serve_in_terminal(folder: Path, **settings: str) -> str:
    """Serve in a terminal, ask one thing, and return what the terminal shows."""
    port, (leader, follower) = free_port(), pty.openpty()
    settings = {"SAASBASE_ACTOR__TRUSTED_PROXIES": "127.0.0.1/32", **settings}
    process = subprocess.Popen(
        command("serve", "--port", str(port)), cwd=folder, env=environment(**settings), stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    try:
        shown = read_terminal(leader, process, "Uvicorn running")
        httpx.get(
            f"http://127.0.0.1:{port}/api/me", headers={"X-SaaSBase-Actor": "user:alice", "X-Request-ID": "r1"}, timeout=60
        ).raise_for_status()
        return shown + read_terminal(leader, process, "r1")
    finally:
        process.terminate()
        process.wait(60)
        os.close(leader)


def test_a_terminal_shows_lines_for_a_person(tmp_path: Path) -> None:
    line = serve_in_terminal(tmp_path).splitlines()[-1]
    assert re.match(r"\d\d:\d\d:\d\d INFO    GET /api/me 200  actor=user:alice duration_ms=[\d.]+ request_id=r1", line), line


def test_a_terminal_shows_what_was_asked_for(tmp_path: Path) -> None:
    line = json.loads(serve_in_terminal(tmp_path, SAASBASE_LOG__FORMAT="json").splitlines()[-1])
    assert (line["message"], line["actor"], line["level"]) == ("GET /api/me 200", "user:alice", "INFO")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "SAASBASE_API_KEYS__PEPPER and SAASBASE_AUDIT__KEY: everybody knows the default"),
        ({"SAASBASE_API_KEYS__PEPPER": "mine"}, "WARNING SAASBASE_AUDIT__KEY: everybody knows the default"),
        ({"SAASBASE_API_KEYS__PEPPER": "mine", "SAASBASE_AUDIT__KEY": "mine"}, None),
    ],
)
def test_a_start_with_secrets_that_everybody_knows_says_so_once(settings: dict[str, str], told: str | None, tmp_path: Path) -> None:
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=2, SAASBASE_LOG__FORMAT="console", **settings) as server:
        found = [line for line in server.log.splitlines() if "everybody knows" in line]
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


@pytest.mark.parametrize(("level", "shown"), [("INFO", True), ("WARNING", False)])
def test_the_level_decides_what_is_written(tmp_path: Path, level: str, shown: bool) -> None:
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, SAASBASE_LOG__LEVEL=level, SAASBASE_LOG__FORMAT="console") as server:
        server.stop()  # the line is written when the answer has been sent
        assert ("GET /readyz 200" in server.log) is shown


SESSION_TOKEN = "session-token-4711"
SPEAKERS = {"app", "uvicorn", "asyncio", "concurrent", "python_multipart"}  # who may write below WARNING: none of them sees a header


def test_the_most_talkative_log_holds_nothing_that_opens_s3(rclone_server: S3Server, tmp_path: Path) -> None:
    bucket = rclone_server.new_bucket().environment
    given = {name: value for name, value in bucket.items() if not name.endswith("_KEY")}
    chain = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_SESSION_TOKEN": SESSION_TOKEN}
    settings = {**given, **chain, "SAASBASE_LOG__LEVEL": "DEBUG", "SAASBASE_STORAGE__S3__PRESIGN_DOWNLOADS": "true"}
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=1, **settings) as server:
        with httpx.Client(base_url=f"{server.url}/api", headers={"X-SaaSBase-Actor": "user:alice"}, timeout=60) as alice:
            home = alice.post("/organizations", json={"slug": "acme"}).raise_for_status().json()["id"]
            project = alice.post("/projects", json={"organization_id": home, "name": "p"}).raise_for_status().json()["id"]
            files = {"file": ("a.txt", b"text", "text/plain")}
            document = alice.post(f"/projects/{project}/documents", files=files).raise_for_status().json()["id"]
            signed = alice.get(f"/documents/{document}/content").headers["location"]
        server.stop()
        lines = server.log.splitlines()
    signature = httpx.URL(signed).params["X-Amz-Signature"]
    for secret in (SESSION_TOKEN, SECRET_KEY, signature, "AWS4-HMAC-SHA256", "Signature=", "CanonicalRequest", "amz-security-token"):
        assert not [line for line in lines if secret.lower() in line.lower()], secret
    speakers = {json.loads(line)["logger"].partition(".")[0] for line in lines if line.startswith("{")}
    assert "app" in speakers
    assert speakers <= SPEAKERS
