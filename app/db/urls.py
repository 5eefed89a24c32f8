"""Database URLs, in every spelling this service takes."""

from urllib.parse import parse_qs, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

MAX_PORT = 65535
UNSUPPORTED_URL = (
    "the database URL must be sqlite:///FILE, sqlite+aiosqlite:///FILE, postgresql://USER:PASSWORD@HOST:PORT/NAME, "
    "postgresql+asyncpg://..., jdbc:sqlite:FILE or jdbc:postgresql://HOST:PORT/NAME?user=...&password=..."
)


class DatabaseURLError(ValueError):
    """The database URL is of no form this service takes."""


def parse_database_url(text_: str) -> URL:
    """Read any accepted spelling of a database URL into the one with our driver.

    Raises:
        DatabaseURLError: another database, another driver, or a SQLite database in memory (each connection would get its own).
    """
    raw = text_.strip()
    try:
        url = make_url(_from_jdbc(raw.removeprefix("jdbc:")) if raw.startswith("jdbc:") else raw)
    except (ArgumentError, ValueError):  # the second for a port that is no number
        raise DatabaseURLError(UNSUPPORTED_URL) from None
    if not 0 < (url.port or 1) <= MAX_PORT:
        raise DatabaseURLError(UNSUPPORTED_URL)
    if url.drivername in {"sqlite", "sqlite+aiosqlite"}:
        if not url.database or url.database.startswith((":memory:", "file:")):
            raise DatabaseURLError("a SQLite database needs a file: sqlite:///data/saasbase.db")
        return url.set(drivername="sqlite+aiosqlite")
    if url.drivername in {"postgresql", "postgres", "postgresql+asyncpg"}:
        if not url.database:
            raise DatabaseURLError("the PostgreSQL URL names no database")
        return url.set(drivername="postgresql+asyncpg", query=_connection_options(url))
    raise DatabaseURLError(UNSUPPORTED_URL)


def read_url(setting: str, text_: str) -> URL:
    """The same for the value of a setting, which the error then names."""
    try:
        return parse_database_url(text_)
    except DatabaseURLError as error:
        raise DatabaseURLError(f"{setting}: {error}") from None


def _connection_options(url: URL) -> dict[str, str]:
    """The options after the question mark, as asyncpg spells them; libpq and JDBC say ``sslmode``."""
    options = {name: str(value) for name, value in url.query.items()}
    if "sslmode" in options:
        options["ssl"] = options.pop("sslmode")
    unknown = sorted(options.keys() - {"ssl"})
    if unknown:
        raise DatabaseURLError(f"the PostgreSQL URL has options this service does not know: {', '.join(unknown)} (sslmode is the only one)")
    return options


def _from_jdbc(rest: str) -> str:
    kind, _, tail = rest.partition(":")
    if kind == "sqlite":
        return f"sqlite:///{tail}"
    parts = urlsplit(rest)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    url = URL.create(
        "postgresql",
        username=query.pop("user", parts.username),
        password=query.pop("password", parts.password),
        host=parts.hostname,
        port=parts.port,
        database=parts.path.lstrip("/") or None,
        query=query,
    )
    return url.render_as_string(hide_password=False) if kind == "postgresql" else rest
