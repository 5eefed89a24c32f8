"""What the service says about itself: whether it works, how it is configured, what it serves."""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from app.db.migrations import head_version
from app.settings import setting_names
from tests.conftest import run_sql_on
from tests.support.answers import run_sql_at
from tests.support.cli import run_saasbase
from tests.support.database import environment_of
from tests.support.openfga import OpenFGAServer
from tests.support.postgres import free_port
from tests.support.s3 import S3Server
from tests.support.server import Server

SECRET = "geheim4711"
SECRETS = {
    "SAASBASE_API_KEYS__PEPPER": SECRET,
    "SAASBASE_ACTOR__PROXY_SECRET": SECRET,
    "SAASBASE_AUTHZ__OPENFGA__TOKEN": SECRET,
    "SAASBASE_DB_URL": f"postgresql://app:{SECRET}@db/saasbase",
    "SAASBASE_DATABASE__JOBS_URL": f"postgresql://jobs:{SECRET}@db/saasbase",
    "SAASBASE_DATABASE__MIGRATION_URL": f"postgresql://owner:{SECRET}@db/saasbase",
}


def faults(out: str) -> list[str]:
    return [line.split()[1] for line in out.splitlines() if not line.startswith("ok ")]


def test_the_doctor_finds_a_healthy_service_healthy(database_url: str, tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "doctor", **environment_of(database_url))
    assert (ended.status, ended.err) == (0, ""), ended
    assert faults(ended.out) == []
    assert [line.split()[1] for line in ended.out.splitlines()] == [
        "settings",
        "database",
        "schema",
        "roles",
        "clock",
        "storage",
        "sweeper",
        "authorization",
        "traces",
    ]


def test_the_doctor_names_everything_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    ended = run_saasbase(
        tmp_path,
        "doctor",
        SAASBASE_DB_URL=f"postgresql://someone:{SECRET}@127.0.0.1:{free_port()}/saasbase",
        SAASBASE_STORAGE__LOCAL__BASE_PATH=str(tmp_path / "file/documents"),
        SAASBASE_AUTHZ__ENGINE="openfga",
        SAASBASE_AUTHZ__OPENFGA__URL=f"http://127.0.0.1:{free_port()}",
        SAASBASE_AUTHZ__OPENFGA__STORE_ID="01J",
    )
    assert ended.status == 1
    assert faults(ended.out) == ["database", "schema", "roles", "clock", "storage", "sweeper", "authorization"]
    assert SECRET not in ended.out + ended.err
    assert "Traceback" not in ended.err


def test_the_doctor_says_what_to_do_about_a_store(rclone_server: S3Server, tmp_path: Path) -> None:
    settings = {**rclone_server.new_bucket().environment, "SAASBASE_STORAGE__S3__BUCKET": "there-is-none"}
    ended = run_saasbase(tmp_path, "doctor", **settings)
    assert (ended.status, faults(ended.out)) == (1, ["storage"])
    assert "its bucket does not exist (make the bucket, or correct SAASBASE_STORAGE__S3__BUCKET)\n" in ended.out


def test_the_doctor_knows_the_schema_of_a_newer_release(database_url: str, owner_url: str, tmp_path: Path) -> None:
    asyncio.run(run_sql_at(owner_url, "UPDATE alembic_version SET version_num = '9999'"))
    ended = run_saasbase(tmp_path, "doctor", **environment_of(database_url))
    assert (ended.status, faults(ended.out)) == (1, ["schema"])
    assert f"at 9999, not at {head_version()}: it belongs to a newer release" in ended.out
    assert "migrate" not in ended.out


@pytest.mark.parametrize(("seconds", "told"), [(60, "BAD  clock          60 s apart"), (-60, "BAD  clock          60 s apart"), (3, "ok ")])
def test_the_doctor_compares_the_clocks(seconds: int, told: str, postgres_url: str, tmp_path: Path) -> None:
    name = f"clock_{uuid4().hex}"
    asyncio.run(run_sql_on(postgres_url, f"CREATE DATABASE {name}"))
    body = f"SELECT pg_catalog.clock_timestamp() + interval ''{seconds} s''"
    for statement in (
        "CREATE SCHEMA other",
        f"CREATE FUNCTION other.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS '{body}'",
        f"ALTER DATABASE {name} SET search_path = other, pg_catalog, public",
    ):
        asyncio.run(run_sql_at(f"{postgres_url}/{name}", statement))
    ended = run_saasbase(tmp_path, "doctor", SAASBASE_DB_URL=f"{postgres_url}/{name}")
    (line,) = [line for line in ended.out.splitlines() if line.split()[1] == "clock"]
    assert line.startswith(told)
    assert " s apart from the database's" in line


def test_the_doctor_says_that_a_schema_is_missing(postgres_url: str, tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "doctor", SAASBASE_DB_URL=f"{postgres_url}/postgres")
    assert ended.status == 1
    assert "BAD  schema         at None, not at " in ended.out
    assert "run 'saasbase migrate'" in ended.out


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_doctor_sees_that_statements_have_no_limit_behind_a_pooler(database_url: str, owner_url: str, tmp_path: Path) -> None:
    settings = {**environment_of(database_url), "SAASBASE_DATABASE__TRANSACTION_POOLER": "true"}
    assert "no statement_timeout: 'saasbase migrate --create-roles'" in run_saasbase(tmp_path, "doctor", **settings).out
    assert run_saasbase(tmp_path, "migrate", "--create-roles", **settings, SAASBASE_DATABASE__MIGRATION_URL=owner_url).status == 0
    assert "statement_timeout" not in run_saasbase(tmp_path, "doctor", **settings).out


def test_the_doctor_makes_no_sqlite_database(tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "doctor")
    assert ended.status == 0, ended
    assert "ok   schema         none yet" in ended.out


@pytest.mark.usefixtures("openfga_server")
def test_the_doctor_asks_openfga(openfga_server: OpenFGAServer, tmp_path: Path) -> None:
    settings = {"SAASBASE_AUTHZ__ENGINE": "openfga", "SAASBASE_AUTHZ__OPENFGA__URL": openfga_server.url}
    ended = run_saasbase(tmp_path, "doctor", **settings, SAASBASE_AUTHZ__OPENFGA__STORE_ID=openfga_server.new_store())
    assert (ended.status, faults(ended.out)) == (0, []), ended


def test_the_configuration_is_shown_without_secrets(tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "config", "check", **SECRETS, SAASBASE_ACTOR__TRUSTED_PROXIES="10.0.0.0/8,192.168.0.1/32")
    assert (ended.status, ended.err) == (0, "")
    shown = dict(line.split("=", 1) for line in ended.out.splitlines())
    assert list(shown) == list(setting_names())
    assert SECRET not in ended.out
    assert shown["SAASBASE_DB_URL"] == "postgresql+asyncpg://app:***@db/saasbase"
    assert shown["SAASBASE_API_KEYS__PEPPER"] == "***"
    assert shown["SAASBASE_ACTOR__TRUSTED_PROXIES"] == "10.0.0.0/8,192.168.0.1/32"
    assert shown["SAASBASE_LOG__LEVEL"] == "INFO"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("SAASBASE_AUDIT__KEY", f"postgresql://x/{SECRET}", "***"),
        ("SAASBASE_API_KEYS__PEPPER", f"sqlite:///{SECRET}", "***"),
        ("SAASBASE_ACTOR__PROXY_SECRET", f"jdbc:sqlite:{SECRET}", "***"),
        ("SAASBASE_AUDIT__PREVIOUS_KEYS", f"postgresql://x/{SECRET},{SECRET}", "***,***"),
        ("SAASBASE_AUTHZ__OPENFGA__URL", f"http://user:{SECRET}@host", "http://***@host"),
        ("SAASBASE_AUTHZ__OPENFGA__URL", f"https://user:p@{SECRET}@host:8080/fga", "https://***@host:8080/fga"),
        ("SAASBASE_DB_URL", f"jdbc:postgresql://h/d?user=u&password={SECRET}", "postgresql+asyncpg://u:***@h/d"),
    ],
)
def test_nothing_that_looks_like_a_url_is_shown_with_its_secret(name: str, value: str, shown: str, tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, "config", "check", **{name: value})
    assert (ended.status, ended.err) == (0, "")
    assert f"{name}={shown}\n" in ended.out
    assert SECRET not in ended.out


def test_a_password_in_the_url_of_an_issuer_is_not_shown(tmp_path: Path) -> None:
    issuer = {"issuer": "https://login.example", "audience": ["api"], "jwks_url": f"https://me:{SECRET}@login.example/keys"}
    ended = run_saasbase(tmp_path, "config", "check", SAASBASE_JWT__ISSUERS=json.dumps([issuer]))
    assert SECRET not in ended.out + ended.err


def test_what_is_shown_can_be_set_again(tmp_path: Path) -> None:
    issuer = {"issuer": "https://login.example", "audience": ["api"], "jwks_url": "https://login.example/keys"}
    chosen = {"SAASBASE_WEB__BASE_PATH": "/v1", "SAASBASE_AUDIT__RETENTION": "28d"}
    first = run_saasbase(tmp_path, "config", "check", SAASBASE_JWT__ISSUERS=json.dumps([issuer]), **chosen)
    assert first.status == 0, first
    given = dict(line.split("=", 1) for line in first.out.splitlines() if "PEPPER" not in line)
    assert given["SAASBASE_AUDIT__RETENTION"] == "P28D"
    assert run_saasbase(tmp_path, "config", "check", **given) == first


def test_the_openapi_document_is_the_one_that_is_served(server: Server, tmp_path: Path) -> None:
    served = httpx.get(f"{server.url}/openapi.json", timeout=60).json()
    told = run_saasbase(tmp_path, "openapi", "export")
    assert (told.status, told.err) == (0, "")
    assert json.loads(told.out) == served
    file = tmp_path / "openapi.json"
    assert run_saasbase(tmp_path, "openapi", "export", "--output", str(file)) == (0, "", "")
    assert file.read_text() == told.out
    ended = run_saasbase(tmp_path, "openapi", "export", "--output", str(tmp_path / "no/file"))
    assert ended.status == 1
    assert ended.err.startswith("saasbase: ")
