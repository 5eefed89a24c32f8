"""The configuration: defaults, names, faults told in one line each, and the example file that lists it all."""

import re
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, SecretStr

from app.audit.retention import RetentionRules
from app.http.described import field_texts
from app.settings import PREFIX, RENAMED, Section, Settings, SettingsError, load_settings, setting_names
from tests.support.application import ROOT

EXAMPLE = ROOT / ".env.example"
SECRET = "geheim-4711"
# Names that deployments of the reference have in their environment already, and a value that is not the default.
KEPT = {
    "SAASBASE_DB_URL": "jdbc:sqlite:x.db",
    "SAASBASE_STORAGE__LOCAL__BASE_PATH": "elsewhere/documents",
    "SAASBASE_STORAGE__S3__ENDPOINT": "http://127.0.0.1:9000",
    "SAASBASE_STORAGE__S3__REGION": "eu-west-1",
    "SAASBASE_STORAGE__S3__BUCKET": "documents",
    "SAASBASE_STORAGE__S3__PREFIX": "tenants",
    "SAASBASE_STORAGE__S3__ACCESS_KEY": "key",
    "SAASBASE_STORAGE__S3__SECRET_KEY": "secret",
    "SAASBASE_STORAGE__S3__PATH_STYLE": "false",
    "SAASBASE_WEB__ENABLED": "false",
    "SAASBASE_WEB__BASE_PATH": "/v1",
    "SAASBASE_ACTOR__HEADER": "X-Actor",
    "SAASBASE_ACTOR__ANONYMOUS": "user:nobody",
    "SAASBASE_AUDIT__RETENTION": "P30D",
}
BAD = {
    "SAASBASE_DATABASE__POOL_SIZE": ["0", SECRET, "2.5", ""],
    "SAASBASE_DATABASE__POOL_TIMEOUT_SECONDS": ["0", "nan", "inf", "-1"],
    "SAASBASE_DATABASE__TRANSACTION_POOLER": [SECRET],
    "SAASBASE_STORAGE__MAX_UPLOAD_BYTES": ["0", "5 GiB"],
    "SAASBASE_STORAGE__SWEEP_MIN_AGE_SECONDS": ["-1", "99999999999999999999"],
    "SAASBASE_STORAGE__S3__ENDPOINT": ["minio:9000", "ftp://minio", f"http://user:{SECRET}@minio", "http://minio/bucket", "http:// minio"],
    "SAASBASE_STORAGE__S3__BUCKET": ["a", "a/b", "-bucket", "b" * 64],
    "SAASBASE_STORAGE__S3__REGION": ["eu west"],
    "SAASBASE_STORAGE__S3__PREFIX": ["a b", "a?b", "ä"],
    "SAASBASE_STORAGE__S3__PART_BYTES": ["5242879", "8 MiB"],
    "SAASBASE_STORAGE__S3__PRESIGN_SECONDS": ["0", "604801"],
    "SAASBASE_STORAGE__S3__SECRET_KEY": [SECRET],
    "SAASBASE_ACTOR__HEADER": ["", "X Actor", "X-Actor:", "A" * 65],
    "SAASBASE_ACTOR__TRUSTED_PROXIES": [SECRET, "10.0.0.0/33", "127.0.0.1/32;10.0.0.1"],
    "SAASBASE_ACTOR__ANONYMOUS": [f"robot:{SECRET}", "user:", "service:a\x01b"],
    "SAASBASE_AUDIT__KEY": [""],
    "SAASBASE_AUDIT__MIN_RETENTION": ["30", "-P1D", "P36501D", SECRET],
    "SAASBASE_AUDIT__RETENTION": ["30", "0d", "P0.5D", "PT36H", "36501d", "P99999999999D", "d"],
    "SAASBASE_ORGANIZATIONS__CREATION": [SECRET, "AUTHENTICATED"],
    "SAASBASE_WEB__ENABLED": ["perhaps"],
    "SAASBASE_WEB__BASE_PATH": ["/a b", "/{tenant}", "/api?x=1"],
    "SAASBASE_WEB__MAX_BODY_BYTES": ["1023"],
    "SAASBASE_WEB__DRAIN_SECONDS": ["-1", "3601", "nan"],
    "SAASBASE_WEB__SHUTDOWN_SECONDS": ["0", "1.5"],
    "SAASBASE_WEB__CORS_ORIGINS": ["app.example.com", "https://app.example.com/", "https://*.example.com", f"https://{SECRET}@x"],
    "SAASBASE_WEB__HSTS_SECONDS": ["-1"],
    "SAASBASE_LIMITS__KEY_PER_MINUTE": ["-1", "1000001", "many"],
    "SAASBASE_LOG__LEVEL": ["LOUD"],
    "SAASBASE_LOG__FORMAT": ["xml"],
}


class Leaf(NamedTuple):
    """One setting: its variable, its description and its default as text."""

    name: str
    description: str
    default: str


def leaves(section: type[BaseModel] = Settings, prefix: str = PREFIX) -> Iterator[Leaf]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from leaves(field.annotation, f"{prefix}{name.upper()}__")
        else:
            yield Leaf(prefix + name.upper(), field_texts(section).get(name, ""), written(field.get_default(call_default_factory=True)))


def written(value: Any) -> str:
    """The value as it stands in an environment variable."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return str(value.value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of a .env file that is read."""
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    return tmp_path / ".env"


def fault() -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_every_setting_has_a_default_and_a_description() -> None:
    assert load_settings() == Settings()
    found = list(leaves())
    assert len(found) >= 20
    assert [leaf.name for leaf in found] == list(setting_names())
    assert [leaf.name for leaf in found if not leaf.description.endswith((".", "...")) or "\n" in leaf.description] == []


def test_the_names_of_the_reference_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEPT.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.db_url.get_secret_value() == "jdbc:sqlite:x.db"
    assert settings.storage.local.base_path == Path("elsewhere/documents")
    s3 = settings.storage.s3
    assert (s3.endpoint, s3.region, s3.bucket, s3.prefix) == ("http://127.0.0.1:9000", "eu-west-1", "documents", "tenants/")
    assert s3.access_key == SecretStr("key")
    assert s3.secret_key == SecretStr("secret")
    assert s3.path_style is False
    assert settings.web.enabled is False
    assert settings.web.base_path == "/v1"
    assert settings.actor.header == "X-Actor"
    assert settings.actor.anonymous == "user:nobody"
    assert settings.audit.retention == timedelta(days=30)


@pytest.mark.parametrize(("given", "path"), [("/api/", "/api"), ("api", "/api"), ("", ""), ("/", ""), ("/a/b", "/a/b")])
def test_the_base_path_may_be_empty_and_loses_its_trailing_slash(given: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_WEB__BASE_PATH", given)
    assert load_settings().web.base_path == path


@pytest.mark.parametrize(
    ("given", "networks"),
    [
        ("", []),
        ("127.0.0.1/32", ["127.0.0.1/32"]),
        (" 10.0.0.0/8 , ::1/128 ,", ["10.0.0.0/8", "::1/128"]),
        ("192.168.1.7/16,10.1.2.3", ["192.168.0.0/16", "10.1.2.3/32"]),
        ("::ffff:10.1.2.3/104,::ffff:10.1.2.3,::ffff:0:0/95", ["10.0.0.0/8", "10.1.2.3/32", "::fffe:0:0/95"]),
    ],
)
def test_networks_are_a_list_with_commas(given: str, networks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_ACTOR__TRUSTED_PROXIES", given)
    assert load_settings().actor.trusted_proxies == tuple(map(ip_network, networks))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ENDPOINT": "http://127.0.0.1:9000"}, "SAASBASE_STORAGE__S3__BUCKET: is needed: the bucket that documents lie in"),
        (
            {"BUCKET": "documents", "ACCESS_KEY": SECRET},
            "SAASBASE_STORAGE__S3__SECRET_KEY: goes together with ACCESS_KEY: give both or none",
        ),
    ],
)
def test_half_of_s3_stops_with_one_line(given: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"SAASBASE_STORAGE__S3__{name}", value)
    assert fault() == expected


def test_the_largest_document_has_to_fit_into_the_parts_that_s3_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_STORAGE__MAX_UPLOAD_BYTES", str(10_000 * 8 * 1024**2 + 1))
    assert load_settings().storage.max_upload_bytes > 10_000 * 8 * 1024**2  # the disk takes it
    monkeypatch.setenv("SAASBASE_STORAGE__S3__BUCKET", "documents")
    assert fault().startswith("SAASBASE_STORAGE__MAX_UPLOAD_BYTES: is more than 10000 parts of S3__PART_BYTES")
    monkeypatch.setenv("SAASBASE_STORAGE__S3__PART_BYTES", str(9 * 1024**2))
    assert load_settings().storage.s3.part_bytes == 9 * 1024**2


def test_an_empty_anonymous_actor_and_an_empty_proxy_secret_mean_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_ACTOR__ANONYMOUS", "")
    monkeypatch.setenv("SAASBASE_ACTOR__PROXY_SECRET", "")
    actor = load_settings().actor
    assert (actor.anonymous, actor.proxy_secret) == ("", None)


@pytest.mark.parametrize(
    "name",
    [
        "SAASBASE_FOO",
        "SAASBASE_DB_URI",
        "SAASBASE_DATABASE__FOO",
        "SAASBASE_STORAGE__LOCAL__FOO",
        "SAASBASE_DB_URL__X",
        "SAASBASE_DATABASE",
        "SAASBASE_STORAGE__LOCAL",
        "saasbase_foo",
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_an_unknown_name_stops_with_one_line_that_names_it(name: str, place: str, dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "environment":
        monkeypatch.setenv(name, SECRET)
    else:
        dotenv.write_text(f"{name}={SECRET}\n")
    assert fault() == f"{name.upper()}: there is no such setting"


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_bad_value_stops_with_one_line_that_names_the_variable_and_not_the_value(
    name: str, value: str, place: str, dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "environment":
        monkeypatch.setenv(name, value)
    else:
        dotenv.write_text(f'{name}="{value}"\n')
    told = fault()
    assert re.fullmatch(rf"{name}: [^\n]{{10,}}", told), told
    assert SECRET not in told
    assert "Value error" not in told


def test_each_fault_has_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_FOO", SECRET)
    monkeypatch.setenv("SAASBASE_DATABASE__POOL_SIZE", SECRET)
    monkeypatch.setenv("SAASBASE_LOG__LEVEL", SECRET)
    names = [line.partition(":")[0] for line in fault().splitlines()]
    assert sorted(names) == ["SAASBASE_DATABASE__POOL_SIZE", "SAASBASE_FOO", "SAASBASE_LOG__LEVEL"]


def test_a_dotenv_file_is_read_and_the_environment_wins(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv.write_text("SAASBASE_DATABASE__POOL_SIZE=3\nSAASBASE_LOG__LEVEL=ERROR\n")
    monkeypatch.setenv("SAASBASE_LOG__LEVEL", "DEBUG")
    settings = load_settings()
    assert (settings.database.pool_size, settings.log.level.value) == (3, "DEBUG")


def test_what_else_stands_in_a_dotenv_file_is_not_our_business(dotenv: Path) -> None:
    dotenv.write_text(f"PORT=8000\nPOSTGRES_PASSWORD={SECRET}\n")
    assert load_settings() == Settings()


SAFE = {
    "SAASBASE_ENVIRONMENT": "production",
    "SAASBASE_API_KEYS__PEPPER": "0123456789abcdef",
    "SAASBASE_AUDIT__KEY": "0123456789abcdef",
}


def test_production_starts_with_secrets_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SAFE.items():
        monkeypatch.setenv(name, value)
    assert load_settings().environment.value == "production"
    monkeypatch.setenv("SAASBASE_ACTOR__TRUSTED_PROXIES", "10.0.0.0/8")
    monkeypatch.setenv("SAASBASE_ACTOR__PROXY_SECRET", "short")  # on top of an address
    load_settings()
    monkeypatch.setenv("SAASBASE_ACTOR__TRUSTED_PROXIES", "0.0.0.0/0")
    monkeypatch.setenv("SAASBASE_ACTOR__PROXY_SECRET", "0123456789abcdef")
    load_settings()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"SAASBASE_API_KEYS__PEPPER": "development"}, ["SAASBASE_API_KEYS__PEPPER"]),
        ({"SAASBASE_API_KEYS__PEPPER": "0123456789abcde"}, ["SAASBASE_API_KEYS__PEPPER"]),
        ({"SAASBASE_AUDIT__KEY": "development"}, ["SAASBASE_AUDIT__KEY"]),
        ({"SAASBASE_ACTOR__TRUSTED_PROXIES": "10.0.0.0/8,0.0.0.0/0"}, ["SAASBASE_ACTOR__TRUSTED_PROXIES"]),
        ({"SAASBASE_ACTOR__TRUSTED_PROXIES": "::1/128,0.0.0.0/1,128.0.0.0/1"}, ["SAASBASE_ACTOR__TRUSTED_PROXIES"]),
        ({"SAASBASE_ACTOR__TRUSTED_PROXIES": "::/0"}, ["SAASBASE_ACTOR__TRUSTED_PROXIES"]),
        ({"SAASBASE_ACTOR__TRUSTED_PROXIES": "::ffff:0:0/96"}, ["SAASBASE_ACTOR__TRUSTED_PROXIES"]),
        ({"SAASBASE_ACTOR__TRUSTED_PROXIES": "0.0.0.0/1,::ffff:8000:0/97"}, ["SAASBASE_ACTOR__TRUSTED_PROXIES"]),
        (
            {"SAASBASE_ACTOR__TRUSTED_PROXIES": "0.0.0.0/0", "SAASBASE_ACTOR__PROXY_SECRET": "0123456789abcde"},
            ["SAASBASE_ACTOR__PROXY_SECRET"],
        ),
        (
            {"SAASBASE_API_KEYS__PEPPER": "x", "SAASBASE_ACTOR__TRUSTED_PROXIES": "::/0"},
            ["SAASBASE_API_KEYS__PEPPER", "SAASBASE_ACTOR__TRUSTED_PROXIES"],
        ),
    ],
)
def test_production_refuses_what_is_only_safe_at_home(changes: dict[str, str], names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SAFE, **changes}.items():
        monkeypatch.setenv(name, value)
    assert [line.partition(":")[0] for line in fault().splitlines()] == names
    monkeypatch.setenv("SAASBASE_ENVIRONMENT", "development")
    load_settings()


def test_secrets_are_not_shown() -> None:
    settings = Settings.model_validate({"db_url": f"postgresql://u:{SECRET}@h/d", "actor": {"proxy_secret": SECRET}})
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_the_example_file_has_every_setting_with_its_default_and_description() -> None:
    lines = EXAMPLE.read_text().splitlines()
    found = [
        Leaf(match[1], lines[number - 1].removeprefix("# "), match[2])
        for number, line in enumerate(lines)
        if (match := re.fullmatch(r"#?(\w+)=(.*)", line))
    ]
    assert sorted(found) == sorted(leaves())


def test_the_example_file_is_read_as_the_defaults(dotenv: Path) -> None:
    dotenv.write_text(re.sub(r"^#(?=SAASBASE_)", "", EXAMPLE.read_text(), flags=re.MULTILINE))
    assert "\nSAASBASE_LOG__LEVEL=INFO\n" in dotenv.read_text()
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("given", "days"), [("", None), ("P30D", 30), ("30d", 30), ("30 days", 30), ("P2W", 14), ("PT24H", 1), ("P1Y", 365), ("36500d", 36500)]
)
def test_for_how_long_events_are_kept_is_a_duration(given: str, days: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_AUDIT__MIN_RETENTION", given)
    monkeypatch.setenv("SAASBASE_AUDIT__RETENTION", given)
    audit = load_settings().audit
    assert audit.min_retention == audit.retention == (timedelta(days=days) if days is not None else None)
    assert RetentionRules.of(audit.min_retention, audit.retention) == RetentionRules(days or 0, days or 0)


@pytest.mark.parametrize("given", ["30", "1.5d", "P30", "PT36H", "0d"])
def test_a_duration_that_is_no_whole_days_is_told_how_it_is_written(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_AUDIT__RETENTION", given)
    assert fault() == "SAASBASE_AUDIT__RETENTION: must be whole days from 1 to 36500, written as P30D or 30d"


def test_events_cannot_be_kept_shorter_than_the_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_AUDIT__MIN_RETENTION", "P30D")
    for given in ("", "30d"):
        monkeypatch.setenv("SAASBASE_AUDIT__RETENTION", given)
        load_settings()
    monkeypatch.setenv("SAASBASE_AUDIT__RETENTION", "29d")
    assert fault() == "SAASBASE_AUDIT__RETENTION: must not be less than SAASBASE_AUDIT__MIN_RETENTION"


@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_name_of_the_reference_that_changed_is_told_the_new_one(place: str, dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "environment":
        for name in RENAMED:
            monkeypatch.setenv(name, SECRET)
    else:
        dotenv.write_text("".join(f"{name}={SECRET}\n" for name in RENAMED))
    assert sorted(fault().splitlines()) == sorted(f"{old}: there is no such setting; it is called {new}" for old, new in RENAMED.items())
    assert set(RENAMED.values()) <= set(setting_names())


def test_the_readme_has_every_name_that_changed() -> None:
    migration = (ROOT / "README.md").read_text().partition("## Coming from SaaSBase 0.1.1")[2]
    assert [old for old, new in RENAMED.items() if f"| `{old}` | `{new}` |" not in migration] == []


@pytest.mark.parametrize("previous", ["older,development", "older,old,older"])
def test_a_key_of_the_trail_has_one_place_in_time(previous: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_AUDIT__PREVIOUS_KEYS", previous)
    assert fault() == "SAASBASE_AUDIT__PREVIOUS_KEYS: each secret is the key once: name none twice, and not the key itself"


def test_keys_of_the_trail_are_a_list_that_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAASBASE_AUDIT__PREVIOUS_KEYS", f" {SECRET} , older,")
    settings = load_settings()
    assert [key.get_secret_value() for key in settings.audit.previous_keys] == [SECRET, "older"]
    assert SECRET not in repr(settings)
