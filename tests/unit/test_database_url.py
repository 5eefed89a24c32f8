"""Which spellings of a database URL are taken, and what an address that leads nowhere is called."""

import socket

import pytest

from app.core.errors import UnavailableError
from app.db.errors import as_app_error
from app.db.urls import UNSUPPORTED_URL, DatabaseURLError, parse_database_url

ACCEPTED = {
    "sqlite:///data/app.db": "sqlite+aiosqlite:///data/app.db",
    "sqlite:////var/lib/app.db": "sqlite+aiosqlite:////var/lib/app.db",
    " sqlite:///app.db\n": "sqlite+aiosqlite:///app.db",
    "sqlite+aiosqlite:///app.db": "sqlite+aiosqlite:///app.db",
    "jdbc:sqlite:app.db": "sqlite+aiosqlite:///app.db",
    "jdbc:sqlite:/var/lib/app.db": "sqlite+aiosqlite:////var/lib/app.db",
    "postgresql://u:p@db:5433/name": "postgresql+asyncpg://u:p@db:5433/name",
    "postgres://u:p@db/name": "postgresql+asyncpg://u:p@db/name",
    "postgresql+asyncpg://u:p@db/name": "postgresql+asyncpg://u:p@db/name",
    "postgresql://u:p%40%2F@[::1]:5433/name": "postgresql+asyncpg://u:p%40%2F@[::1]:5433/name",
    "jdbc:postgresql://db:5433/name?user=u&password=p": "postgresql+asyncpg://u:p@db:5433/name",
    "jdbc:postgresql://db/name?user=u&password=p%40%2F%3A": "postgresql+asyncpg://u:p%40%2F%3A@db/name",
    "jdbc:postgresql://db/name": "postgresql+asyncpg://db/name",
    "jdbc:postgresql://u:p@db/name": "postgresql+asyncpg://u:p@db/name",
}


@pytest.mark.parametrize(("given", "read"), ACCEPTED.items())
def test_every_documented_spelling_is_taken(given: str, read: str) -> None:
    assert parse_database_url(given).render_as_string(hide_password=False) == read


def test_a_password_of_the_reference_form_is_read_as_it_was_meant() -> None:
    url = parse_database_url("jdbc:postgresql://db:5432/name?user=a%20b&password=p%2B%26%3D%40")
    assert (url.username, url.password, url.host, url.port, url.database) == ("a b", "p+&=@", "db", 5432, "name")


@pytest.mark.parametrize(
    "given",
    [
        "",
        "   ",
        "app.db",
        "/var/lib/app.db",
        "mysql://u:secret@db/name",
        "jdbc:mysql://db/name?user=u&password=secret",
        "jdbc:oracle:thin:@db",
        "jdbc:",
        "postgresql+psycopg2://u:secret@db/name",
        "sqlite+pysqlite:///app.db",
        "mongodb://u:secret@db/name",
        "http://db/secret",
        "postgresql://u:secret@db:port/name",
        "postgresql://u:secret@db:65536/name",
        "jdbc:postgresql://db:port/name?password=secret",
        "jdbc:postgresql://db:99999999/name?password=secret",
        "jdbc:postgresql://[::1/name?password=secret",
    ],
)
def test_another_database_driver_or_spelling_is_refused_in_one_line(given: str) -> None:
    with pytest.raises(DatabaseURLError) as caught:
        parse_database_url(given)
    assert str(caught.value) == UNSUPPORTED_URL
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "given", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "jdbc:sqlite:", "jdbc:sqlite::memory:", "sqlite:///file:x?mode=memory"]
)
def test_a_database_in_memory_is_refused(given: str) -> None:
    with pytest.raises(DatabaseURLError, match="needs a file"):
        parse_database_url(given)


@pytest.mark.parametrize("given", ["postgresql://db", "postgresql://u:secret@db/", "jdbc:postgresql://db?user=u&password=secret"])
def test_a_postgresql_url_names_its_database(given: str) -> None:
    with pytest.raises(DatabaseURLError, match="names no database") as caught:
        parse_database_url(given)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), ConnectionRefusedError(111, "refused"), TimeoutError()]
)
def test_a_network_that_does_not_lead_to_the_database_makes_it_unavailable(error: Exception) -> None:
    told = as_app_error(error)
    assert isinstance(told, UnavailableError)
    assert told.code == "database_unavailable"
    assert "refused" not in told.detail
    assert "Name" not in told.detail


def test_a_fault_of_the_service_is_not_called_anything_else() -> None:
    for error in (ValueError("x"), KeyError("x"), OSError(28, "No space left on device"), RuntimeError("x")):
        assert as_app_error(error) is None


@pytest.mark.parametrize("option", ["sslmode=require", "ssl=require"])
def test_encryption_is_asked_for_as_libpq_and_jdbc_do(option: str) -> None:
    url = parse_database_url(f"postgresql://alice@db/saasbase?{option}")
    assert dict(url.query) == {"ssl": "require"}


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(DatabaseURLError, match="application_name"):
        parse_database_url("postgresql://alice@db/saasbase?application_name=x")
