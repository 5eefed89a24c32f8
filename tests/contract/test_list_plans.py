"""Lists, totals and checks are found by index, whatever is asked: planned on PostgreSQL at 200,000 rows a table, and on SQLite."""

import asyncio
import importlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.authn.api_keys import PROOF
from app.authz.builtin import BuiltinPolicyEngine, locating, locating_for
from app.authz.tree import KEYS, SCOPES
from app.core.actors import Actor, ActorType, Asker
from app.core.permissions import Action
from app.db.base import Base
from app.db.confinement import SETTING, Tenants
from app.db.engine import Database
from app.db.listing import Listing, Shape
from app.db.lookups import Lookup
from app.db.repository import Repository
from app.db.tenancy import fenced
from app.db.visibility import FILTERED
from app.models import ApiKey, Execution, GroupMember, Membership, UnsentTuple
from tests.conftest import TEMPLATE, run_sql_on
from tests.support.application import ROOT
from tests.support.crowd import seed_crowd
from tests.support.database import APP, OWNER, as_role, open_database

pytestmark = pytest.mark.anyio

ENGINE = BuiltinPolicyEngine()
ASKER = Asker(Actor(ActorType.USER, "u"))
TENANTS = Tenants.exactly(uuid4())


def listings() -> Iterator[Listing]:
    """Of every repository there is."""
    for path in (ROOT / "app/resources").glob("*/repository.py"):
        importlib.import_module(f"app.resources.{path.parent.name}.repository")
    for repository in Repository.__subclasses__():
        if hasattr(repository, "listing"):
            yield repository.listing


CROWDED: set[type[Base]] = {*(listing.model for listing in listings()), Membership, GroupMember, UnsentTuple}
TABLES = {model.__tablename__ for model in CROWDED}


def shapes(listing: Listing) -> Iterator[Shape]:
    """Every order with every way of paging; every filter, alone and within a project."""
    for sort in listing.sorts:
        yield Shape((), sort, descending=True, size=21)
        yield Shape((), sort, descending=False, size=21, is_after=True)
        yield Shape((), sort, descending=False, size=21, is_numbered=True)
    default, *_ = listing.sorts
    scope = ("project_id",) if "project_id" in listing.filters else ()
    for given in {tuple(sorted({name, *more})) for name in listing.filters for more in ((), scope)}:
        yield Shape(given, default, descending=False, size=21)
        yield Shape(given, default, descending=False, size=21, is_numbered=True)


def lookups(listing: Listing) -> Iterator[tuple[str, Lookup]]:
    """As anybody sees it, and as it is within one tenant."""
    for shape in shapes(listing):
        if listing.model in SCOPES:
            visible = ENGINE.visible_rows(listing.model, Action.MEMBER_MANAGE, ASKER)
            statement = listing.statement(shape, [visible]).execution_options(**{FILTERED: frozenset({listing.model.__tablename__})})
            yield f"{listing.model.__tablename__} {shape}", Lookup(fenced(statement, is_pinned=False))
        yield f"{listing.model.__tablename__} of one tenant {shape}", Lookup(fenced(listing.statement(shape, ()), is_pinned=True))


def every_lookup() -> Iterator[tuple[str, Lookup]]:
    for listing in listings():
        yield from lookups(listing)
    for key in (*KEYS.values(), Execution.id, ApiKey.id):
        # One of our own: what it is compiled to is kept, and what is planned for any value is not for the service.
        yield f"check by {key}", Lookup(locating(key, has_groups=True, tells_unsent=True).statement)
        yield f"check by {key} with a key", Lookup(locating_for(PROOF, key, tells_unsent=True).statement)


@pytest.fixture(scope="module")
def crowded_url(postgres_url: str) -> Iterator[str]:
    name = f"crowd_{uuid4().hex}"
    asyncio.run(run_sql_on(postgres_url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER}"))
    asyncio.run(seed_crowd(f"{postgres_url}/{name}", CROWDED))
    yield f"{postgres_url}/{name}"
    asyncio.run(run_sql_on(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


class AnyValue(dict[str, Any]):
    """Of every name that it is a parameter."""

    def __bool__(self) -> bool:
        return True

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> None:
        return None


async def plans_of(url: str) -> dict[str, list[str]]:
    """What reads a table of tenants from end to end, by statement: whatever the values, so the plans are the generic ones."""
    found: dict[str, list[str]] = {}
    async with open_database(url) as database:
        connection = await asyncpg.connect(url, server_settings={"plan_cache_mode": "force_generic_plan", "jit": "off"})
        await connection.execute(f"SELECT set_config('{SETTING}', '{{{uuid4().hex}}}', false)")
        for number, (name, lookup) in enumerate(every_lookup()):
            sent = lookup.compiled(database.reader.sync_engine.dialect, AnyValue())
            told = TENANTS if database.row_level_security else None
            await connection.execute(f"PREPARE asked{number} AS {sent.confined(told) if told else sent.sql}")
            values = ["NULL"] * (len(sent.arguments) + len(told.values if told else ()))
            given = f"({', '.join(values)})" if values else ""
            plan = [row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE asked{number}{given}")]
            await connection.execute(f"DEALLOCATE asked{number}")
            read = [table for step in plan for table in re.findall(r"Seq Scan on (\w+)", step) if table in TABLES]
            if read:
                found[name] = read
        await connection.close()
    return found


@pytest.mark.parametrize("role", [APP, OWNER])  # with row-level security, and without
async def test_no_list_total_or_check_reads_a_table_from_end_to_end(crowded_url: str, role: str) -> None:
    assert await plans_of(as_role(crowded_url, role)) == {}


async def test_nor_on_sqlite(sqlite_template: Path) -> None:
    found: dict[str, list[str]] = {}
    database = Database.from_url(f"sqlite:///{sqlite_template}")
    connection = sqlite3.connect(sqlite_template)
    connection.create_function("lower", 1, str.lower)
    for name, lookup in every_lookup():
        sent = lookup.compiled(database.reader.sync_engine.dialect, AnyValue())
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sent.sql}", [None] * len(sent.arguments)).fetchall()
        read = [table for *_, step in plan for table in re.findall(r"^SCAN (\w+)", step) if table in TABLES]
        if read:
            found[name] = read
    connection.close()
    await database.aclose()
    assert found == {}
