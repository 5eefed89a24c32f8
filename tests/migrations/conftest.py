"""Databases that no migration has touched yet."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest


async def run_sql(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def empty_postgres(postgres_url: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    name = f"empty_{uuid4().hex}"
    asyncio.run(run_sql(f"{postgres_url}/postgres", f"CREATE DATABASE {name}"))
    try:
        yield f"{postgres_url}/{name}"
    finally:
        asyncio.run(run_sql(f"{postgres_url}/postgres", f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def empty_sqlite(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/empty.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """Each of them in turn."""
    url: str = request.getfixturevalue("empty_sqlite" if request.param == "sqlite" else "empty_postgres")
    return url
