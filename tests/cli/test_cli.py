"""The command line as its user meets it: what it says, how it ends, and that it never shows a password or a traceback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import typer

from app.__main__ import cli
from app.db.migrations import head_version
from app.db.urls import DatabaseURLError
from app.main import make_database
from app.settings import Settings
from tests.support.application import ROOT
from tests.support.cli import Result, command, environment, run_saasbase
from tests.support.database import environment_of
from tests.support.postgres import free_port
from tests.support.s3 import S3Server
from tests.support.server import Server, run_server

PASSWORD = "geheim4711"
# Each command, its options, and what it needs to be given.
COMMANDS = {
    "serve": (["--host", "--port", "--workers"], []),
    "migrate": (["--create-roles"], []),
    "sweep": (["--min-age", "--take-over"], []),
    "bootstrap": (["--organization", "--owner", "--name"], ["--organization", "acme", "--owner", "user:alice"]),
    "demo": ([], []),
    "doctor": ([], []),
    "keys create": (
        ["--organization", "--role", "--name", "--project", "--days", "--acts-for-others"],
        ["--organization", "acme", "--role", "ORG_MEMBER", "--name", "key"],
    ),
    "keys list": (["--organization"], ["--organization", "acme"]),
    "keys rotate": (["--overlap-seconds"], ["sbk_abc"]),
    "keys revoke": ([], ["sbk_abc"]),
    "audit verify": (["--organization", "--known-position", "--known-hash"], []),
    "authz model": ([], []),
    "authz setup": (["--name"], []),
    "authz reconcile": (["--dry-run"], []),
    "config check": ([], []),
    "openapi export": (["--output"], []),
    "import reference": (
        ["--db-url", "--storage", "--s3-endpoint", "--s3-region", "--s3-virtual-hosts", "--dry-run"],
        ["--db-url", "jdbc:sqlite:none.db", "--storage", "."],
    ),
}
A_STORE = {"SAASBASE_AUTHZ__OPENFGA__STORE_ID": "01J"}  # without one 'authz reconcile' does not come as far as the database
NEED_ITS_URL = COMMANDS.keys() - {"authz model", "authz setup"}
NEED_THE_DATABASE = NEED_ITS_URL - {"doctor", "config check", "openapi export", "import reference"}
# URLs that name no database this service could use, and a word of what it says.
BAD_URLS = {
    "mysql://u:{password}@h/d": "must be sqlite:///FILE",
    "postgresql+psycopg://u:{password}@h/d": "must be sqlite:///FILE",
    "jdbc:oracle:thin:u/{password}@h": "must be sqlite:///FILE",
    "{password}": "must be sqlite:///FILE",
    "": "must be sqlite:///FILE",
    "sqlite://": "needs a file",
    "sqlite:///:memory:": "needs a file",
    "postgresql://u:{password}@h:5432": "names no database",
    "postgresql://u:{password}@h:99999/d": "must be sqlite:///FILE",
    "postgresql://u:x@h:{password}/d": "must be sqlite:///FILE",
    "jdbc:postgresql://h:{password}/d": "must be sqlite:///FILE",
    "jdbc:postgresql://[::1/d?password={password}": "must be sqlite:///FILE",
}


def assert_refused(ended: Result, *words: str) -> None:
    """One clear line, status 1, and nothing that was confidential."""
    assert ended.status == 1, ended
    assert ended.out == ""
    assert re.fullmatch(r"saasbase: [^\n]+\n", ended.err), ended.err
    assert PASSWORD not in ended.err
    for word in words:
        assert word in ended.err


def test_every_command_is_among_them() -> None:
    def names(group: typer.Typer) -> Iterator[str]:
        for made in group.registered_commands:
            yield made.name or made.callback.__name__ if made.callback else ""
        for below in group.registered_groups:
            if below.typer_instance:
                yield from (f"{below.name} {name}" for name in names(below.typer_instance))

    assert sorted(names(cli)) == sorted(COMMANDS)


def test_help_lists_every_command_with_a_sentence(tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert "the multi-tenant back end of a SaaS product" in ended.out
    for name in {name.partition(" ")[0] for name in COMMANDS}:
        assert re.search(rf"\b{name}\s+[A-Z][^\n]{{20,}}", ended.out), f"{name} in\n{ended.out}"


def test_the_version_is_told(tmp_path: Path) -> None:
    assert run_saasbase(tmp_path, "--version") == Result(0, f"saasbase {version('saasbase-server')}\n", "")
    assert "Print the version and end." in run_saasbase(tmp_path, "--help").out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_its_options(name: str, tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, *name.split(), "--help")
    assert (ended.status, ended.err) == (0, "")
    options, _ = COMMANDS[name]
    assert set(re.findall(r"--[a-z][a-z0-9-]+", ended.out)) == {*options, "--help"}
    for option in options:
        assert re.search(rf"{option}\s.*[A-Za-z]{{4,}}[^\n]*\.", ended.out), f"{option} says nothing"


def test_no_command_shows_the_help_and_an_unknown_one_says_so(tmp_path: Path) -> None:
    assert "Commands" in run_saasbase(tmp_path).out
    ended = run_saasbase(tmp_path, "serv")
    assert ended.status == 2
    assert "No such command 'serv'" in ended.err


def test_migrate_says_where_the_schema_is_and_again_does_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        assert run_saasbase(tmp_path, "migrate") == Result(0, f"schema is at {head_version()}\n", "")
    assert (tmp_path / "data/saasbase.db").is_file(), "the default database"


def test_sweep_says_what_it_removed(database_url: str, tmp_path: Path) -> None:
    objects = tmp_path / "documents/objects/ab"
    objects.mkdir(parents=True)
    for name, age_seconds in (("ab" + "0" * 30, 5000), ("ab" + "1" * 30, 0)):
        (objects / name).write_bytes(b"x")
        os.utime(objects / name, (time.time() - age_seconds,) * 2)
    settings = {**environment_of(database_url), "SAASBASE_STORAGE__LOCAL__BASE_PATH": str(tmp_path / "documents")}
    assert run_saasbase(tmp_path, "sweep", "--take-over", **settings)[:2] == (0, "examined 1, removed 1\n")
    assert run_saasbase(tmp_path, "sweep", **settings) == Result(0, "examined 0, removed 0\n", "")
    assert run_saasbase(tmp_path, "sweep", "--min-age", "0", **settings)[:2] == (0, "examined 1, removed 1\n")


def test_a_negative_age_is_a_usage_error(tmp_path: Path) -> None:
    assert run_saasbase(tmp_path, "sweep", "--min-age", "-1").status == 2


@pytest.mark.parametrize(("url", "words"), BAD_URLS.items())
def test_a_bad_database_url_is_told_without_its_parts(url: str, words: str) -> None:
    settings = Settings.model_validate({"db_url": url.format(password=PASSWORD)})
    with pytest.raises(DatabaseURLError) as caught:
        make_database(settings)
    assert words in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(NEED_ITS_URL))
def test_a_bad_database_url_stops_with_one_line(name: str, tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, *name.split(), *COMMANDS[name][1], SAASBASE_DB_URL=f"jdbc:postgresql://h:{PASSWORD}/d", **A_STORE)
    assert_refused(ended, "SAASBASE_DB_URL: ", "must be sqlite:///FILE")


@pytest.mark.parametrize("name", sorted(NEED_THE_DATABASE))
def test_an_unreachable_postgresql_stops_with_one_line(name: str, tmp_path: Path) -> None:
    url = f"postgresql://someone:{PASSWORD}@127.0.0.1:{free_port()}/saasbase"
    ended = run_saasbase(tmp_path, *name.split(), *COMMANDS[name][1], SAASBASE_DB_URL=url, **A_STORE)
    assert_refused(ended, "the database cannot be used", "Connect")


def test_a_postgresql_that_refuses_stops_with_one_line(postgres_url: str, tmp_path: Path) -> None:
    url = postgres_url.replace("postgres@", f"nobody:{PASSWORD}@")
    assert_refused(run_saasbase(tmp_path, "migrate", SAASBASE_DB_URL=f"{url}/postgres"), 'role "nobody" does not exist')


def test_a_sqlite_file_that_cannot_be_opened_stops_with_one_line(tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "serve", SAASBASE_DB_URL=f"sqlite:///{tmp_path}")
    assert_refused(ended, "unable to open database file")


def test_a_setting_that_does_not_exist_stops_with_one_line(tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "serve", SAASBASE_DB_PASSWORD=PASSWORD)
    assert_refused(ended, "SAASBASE_DB_PASSWORD: there is no such setting")


def test_a_dotenv_file_in_the_working_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"POSTGRES_PASSWORD={PASSWORD}\nSAASBASE_DATABASE__POOL_SIZE={PASSWORD}\n")
    assert_refused(run_saasbase(tmp_path, "migrate"), "SAASBASE_DATABASE__POOL_SIZE: ")


def test_a_dotenv_file_that_is_no_text_stops_with_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfeS\0")
    assert_refused(run_saasbase(tmp_path, "migrate"), ".env: is not UTF-8")


def test_a_dotenv_file_that_cannot_be_read_stops_with_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to("/proc/self/mem")  # whose first bytes nobody can read, whoever runs the tests
    assert_refused(run_saasbase(tmp_path, "migrate"), ".env: cannot be read: Input/output error")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--organization", "acme", "--known-position", "2"), "together"),
        (("--organization", "acme", "--known-hash", "0" * 64), "together"),
        (("--known-position", "2", "--known-hash", "0" * 64), "name it"),
        (("--organization", "acme", "--known-position", "2", "--known-hash", "zz"), "64 digits"),
        (("--organization", "acme", "--known-position", "2", "--known-hash", "0" * 63), "64 digits"),
        (("--organization", "acme", "--known-position", "2", "--known-hash", "0" * 64 + "\n"), "64 digits"),
        (("--organization", "acme", "--known-position", str(2**63), "--known-hash", "0" * 64), "no position is beyond"),
    ],
)
def test_what_is_half_known_of_a_chain_is_a_usage_error(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "audit", "verify", *options)
    assert (ended.status, ended.out) == (2, "")
    assert told in " ".join(ended.err.replace("│", " ").split())
    assert not (tmp_path / "data").exists(), "nothing was looked at"


@pytest.mark.parametrize("name", ["serve", "sweep"])
def test_a_store_that_cannot_be_written_stops_with_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    ended = run_saasbase(tmp_path, name, SAASBASE_STORAGE__LOCAL__BASE_PATH=str(tmp_path / "file/documents"))
    assert_refused(ended, "SAASBASE_STORAGE__LOCAL__BASE_PATH", "documents cannot be stored")


S3_FAULTS = {
    "SAASBASE_STORAGE__S3__BUCKET": ("there-is-none", "make the bucket"),
    "SAASBASE_STORAGE__S3__SECRET_KEY": (PASSWORD, "SignatureDoesNotMatch"),
    "SAASBASE_STORAGE__S3__ENDPOINT": ("http://127.0.0.1:1", "within reach"),
}


@pytest.mark.parametrize("name", S3_FAULTS)
def test_an_s3_that_cannot_be_used_stops_with_one_line(name: str, rclone_server: S3Server, tmp_path: Path) -> None:
    value, advice = S3_FAULTS[name]
    ended = run_saasbase(tmp_path, "serve", **{**rclone_server.new_bucket().environment, name: value})
    assert_refused(ended, "documents cannot be stored", advice)


ISSUER = {"SAASBASE_JWT__ISSUERS": '[{"issuer": "https://a.example", "audience": "saasbase", "jwks_url": "https://a.example/keys"}]'}
OPENFGA = {"SAASBASE_AUTHZ__ENGINE": "openfga", "SAASBASE_AUTHZ__OPENFGA__STORE_ID": "store"}
BUCKET = {"SAASBASE_STORAGE__S3__BUCKET": "documents"}


@pytest.mark.parametrize(("library", "needed_by"), [("botocore", BUCKET), ("jwt", ISSUER), ("httpx", ISSUER), ("httpx", OPENFGA)])
def test_a_library_is_loaded_only_where_it_is_needed(library: str, needed_by: dict[str, str], tmp_path: Path) -> None:
    code = f"import sys; from app.main import create_app; create_app(); print('{library}' in sys.modules)"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SAASBASE_DB_URL": f"sqlite:///{tmp_path}/x.db"}
    for given, expected in [({}, "False"), (needed_by, "True")]:
        ended = subprocess.run(command, env={**environment, **given}, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert ended.stdout.strip() == expected


def test_a_port_that_is_taken_stops_the_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run_saasbase(tmp_path, "serve", "--port", str(taken.getsockname()[1]))
    assert ended.status == 3  # uvicorn's word for a start that failed
    assert "address already in use" in ended.err
    assert "Traceback" not in ended.err


def test_serve_serves_and_ends_with_sigterm(server: Server) -> None:
    assert httpx.get(f"{server.url}/livez", timeout=60).json() == {"status": "ok"}
    created = httpx.post(f"{server.url}/api/organizations", json={"slug": "acme"}, headers={"X-SaaSBase-Actor": "user:alice"}, timeout=60)
    assert created.status_code == 201
    assert f"SaaSBase Server  {server.url}/docs\n" in server.log
    assert "X-SaaSBase-Actor: user:alice" in server.log
    assert "for development" in server.log
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_serve_says_when_nobody_may_name_himself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    with run_server(url, tmp_path, SAASBASE_ACTOR__TRUSTED_PROXIES="") as server:
        assert "SAASBASE_ACTOR__TRUSTED_PROXIES is empty" in server.log
        refused = httpx.post(
            f"{server.url}/api/organizations", json={"slug": "acme"}, headers={"X-SaaSBase-Actor": "user:alice"}, timeout=60
        )
        assert refused.status_code == 401


def test_two_workers_serve_and_end_with_sigterm(tmp_path: Path) -> None:
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=2) as server:
        assert httpx.get(f"{server.url}/version", timeout=60).status_code == 200
        assert server.stop() == 0


def test_every_worker_writes_its_log_lines(tmp_path: Path) -> None:
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=2) as server:
        for number in range(4):
            httpx.get(f"{server.url}/version", headers={"X-Correlation-ID": f"order-{number}"}, timeout=60)
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    seen = [line["correlation_id"] for line in lines if line["logger"] == "app.access" and line["route"] == "/version"]
    assert sorted(seen) == [f"order-{number}" for number in range(4)]  # each is written after its answer: two workers may take turns


def test_control_c_ends_without_a_traceback(tmp_path: Path) -> None:
    port = free_port()
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command("serve", "--port", str(port)), cwd=tmp_path, env=environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while "Uvicorn running" not in log_path.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
    assert "Application shutdown complete" in log_path.read_text()
    assert "Traceback" not in log_path.read_text()
