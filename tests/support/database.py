"""A test's database as the service meets it, with row-level security and roles on PostgreSQL; and past all that, as the owner."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database, PoolLimits, SecondWall
from app.db.urls import parse_database_url
from app.main import migrate_database
from app.settings import Settings

# As in production: none of them is a superuser, and no two of them are one.
OWNER: Final = "saasbase_owner"
APP: Final = "saasbase_app"
JOBS: Final = "saasbase_jobs"


def as_role(url: str, role: str) -> str:
    """The same PostgreSQL database for another role, whose password is its name. A SQLite file knows no roles."""
    if url.startswith("sqlite"):
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}:{role}@{parts.hostname}:{parts.port or 5432}").geturl()


def wall_of(url: str) -> SecondWall:
    """How the service keeps tenants apart when it connects like this: by row-level security when the role is the one made for it."""
    if urlsplit(url).username != APP:
        return SecondWall()
    return SecondWall(row_level_security=True, jobs_url=parse_database_url(as_role(url, JOBS)))


def section_of(url: str) -> dict[str, Any]:
    """The same as settings below ``database``."""
    return {} if urlsplit(url).username != APP else {"row_level_security": True, "jobs_url": as_role(url, JOBS)}


def environment_of(url: str) -> dict[str, str]:
    """The same as environment variables, with the database itself."""
    return {"SAASBASE_DB_URL": url, **{f"SAASBASE_DATABASE__{name.upper()}": str(value) for name, value in section_of(url).items()}}


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """A database without a service around it."""
    database = Database.from_url(url, wall=wall_of(url))
    try:
        yield database
    finally:
        await database.aclose()


@asynccontextmanager
async def behind(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction behind the service's back, past every fence and policy: as the owner of the tables."""
    if database.is_sqlite:
        async with database.writer.begin() as connection:
            yield connection
        return
    owner = Database(database.url.set(username=OWNER, password=OWNER), PoolLimits(size=1))
    try:
        async with owner.writer.begin() as connection:
            yield connection
    finally:
        await owner.aclose()


async def make_owner(server: str) -> None:
    """The role that owns every test's tables, on a server it may be on already."""
    superuser = Database.from_url(f"{server}/postgres", PoolLimits(size=1))
    try:
        async with superuser.writer.begin() as connection:
            if (await connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": OWNER})).first() is None:
                await connection.exec_driver_sql(f"CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD '{OWNER}'")
    finally:
        await superuser.aclose()


async def migrate_with_roles(url: str) -> None:
    """Make the schema and the roles as ``saasbase migrate --create-roles`` does."""
    app = as_role(url, APP)
    section = {**section_of(app), "migration_url": as_role(url, OWNER)}
    await migrate_database(Settings.model_validate({"db_url": app, "database": section}), with_roles=True)
