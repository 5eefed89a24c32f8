"""Look-ups by the driver itself: the same rows as the ordinary way gives, and none of its strength lost."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import aiosqlite
import pytest
from sqlalchemy import event

from app.db.confinement import Tenants
from app.db.engine import Database
from app.db.lookups import Lookup
from tests.conftest import Caller, Service
from tests.support.jobs import stop_jobs
from tests.support.keys import key_of
from tests.support.record import new_call, new_execution, new_place

pytestmark = pytest.mark.anyio


class Asked(NamedTuple):
    lookup: Lookup
    parameters: Mapping[str, Any]
    tenants: Tenants | None = None


@pytest.fixture
def database(service: Service) -> Database:
    return service.runtime.context.database


@pytest.fixture
def asked(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What requests look up."""
    seen: list[Asked] = []
    look_up = Database.look_up

    async def noting(self: Database, *given: Any) -> Any:
        seen.append(Asked(*given))
        return await look_up(self, *given)

    monkeypatch.setattr(Database, "look_up", noting)
    return seen


def retold(caplog: pytest.LogCaptureFixture) -> int:
    return sum("sent again" in record.message for record in caplog.records)


async def test_lists_are_looked_up_and_show_what_the_ordinary_way_shows(
    service: Service, alice: Caller, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    organization, project = await new_place(alice)
    document = await alice.new_document(project["id"], metadata='{"a": [1, null, "ü"]}')
    execution = await new_execution(alice, project, confidence=0.25, tags=["a"])
    await alice.post(f"/executions/{execution['id']}/events", {"name": "e"})
    await new_call(alice, project["id"], metadata={"a": [1.5, None]})
    await alice.post(f"/organizations/{organization['id']}/groups", {"group_id": "g", "name": "group"})
    await key_of(service, alice, "ORGANIZATION", organization["id"], "ORG_OWNER")
    lists = ["organizations", "projects", "documents", "document-versions", "api-calls", "executions", "audit-events"]
    lists += [f"organizations/{organization['id']}/groups", f"executions/{execution['id']}/events"]
    paths = [f"/{name}?{page}" for name in lists for page in ("limit=2", "size=1", "size=1&page=7", "limit=2&direction=desc")]
    paths += [f"/api-keys?organization_id={organization['id']}", f"/documents/{document['id']}/versions", "/organizations/all"]
    paths += [f"/memberships?resource_type=PROJECT&resource_id={project['id']}&effective=true", f"/projects/{project['id']}/api-calls"]
    caplog.set_level(logging.INFO, "app.db.engine")
    short = [(await alice.get(path)).json() for path in paths]
    assert not retold(caplog)
    event.listen(
        database.reader.sync_engine, "before_cursor_execute", heard := lambda *_: None
    )  # while somebody listens it is the ordinary way
    assert [(await alice.get(path)).json() for path in paths] == short
    event.remove(database.reader.sync_engine, "before_cursor_execute", heard)
    assert all(body["items"] if isinstance(body, dict) and "page=7" not in path else body for path, body in zip(paths, short, strict=True))


async def test_the_rows_are_those_of_the_ordinary_way(
    service: Service, alice: Caller, database: Database, asked: list[Asked], caplog: pytest.LogCaptureFixture
) -> None:
    organization, project = await new_place(alice)
    made = {
        "organizations": organization,
        "projects": project,
        "documents": await alice.new_document(project["id"], metadata='{"a": [1, null, "ü"]}'),
        "api-calls": await new_call(alice, project["id"], metadata={"a": [1.5, None]}),
        "executions": await new_execution(alice, project, confidence=0.25, tags=["a"]),
    }
    bearer, key = await key_of(service, alice, "ORGANIZATION", organization["id"], "ORG_OWNER", allowed_cidrs=["0.0.0.0/0"])
    del asked[:]
    caplog.set_level(logging.INFO, "app.db.engine")
    for caller in (alice, bearer):
        for collection, body in (made | {"api-keys": key}).items():
            await caller.get(f"/{collection}/{body['id']}")
            await caller.get(f"/{collection}/{uuid4()}", 404)
        await caller.get(f"/organizations/by-slug/{organization['slug']}")
    assert not retold(caplog)
    assert len(asked) == 13 + 13 + 1  # with what is found by its id comes the key; to find by slug is to look twice
    found = 0
    for lookup, parameters, tenants in list(asked):
        quick = await database.look_up(lookup, parameters, tenants)
        async with database.open_read(tenants) as connection:
            expected = (await connection.execute(lookup.statement, parameters)).one_or_none()
        assert (quick is None) == (expected is None)
        if expected is not None:
            found += 1
            assert vars(quick) == dict(expected._mapping)
            assert [type(value) for value in vars(quick).values()] == [type(value) for value in expected]
    assert found == 7 + 12 + 2


async def test_a_broken_connection_costs_a_second_try_and_nobody_notices(
    alice: Caller, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"/organizations/{(await alice.new_organization())['id']}"
    await alice.get(path)
    await stop_jobs()  # one of them could be given the broken connection
    caplog.set_level(logging.INFO, "app.db.engine")
    for times in (1, 2, 3):
        lent = await database.reader.raw_connection()
        driver: Any = lent.driver_connection
        await driver.close()
        lent.close()
        for _ in range(8):  # whichever of the connections the pool gives
            await alice.get(path)
        assert retold(caplog) == times


async def test_who_goes_away_in_the_middle_leaves_no_connection_behind(alice: Caller, database: Database, asked: list[Asked]) -> None:
    path = f"/organizations/{(await alice.new_organization())['id']}"
    await alice.get(path)
    lookup = asked[-1]
    for pause in range(8):
        await asyncio.gather(*(database.look_up(*lookup) for _ in range(8)))  # so that nobody goes away while connecting
        tasks = [asyncio.create_task(database.look_up(*lookup)) for _ in range(4)]
        for _ in range(pause):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(60):
        while database.count_connections()[0]:  # a job may have one at this moment
            await asyncio.sleep(0.01)
    assert all(row is not None for row in await asyncio.gather(*(database.look_up(*lookup) for _ in range(40))))


async def test_a_look_up_sees_the_tenants_it_was_told(alice: Caller, database: Database, asked: list[Asked]) -> None:
    await alice.get(f"/organizations/{(await alice.new_organization())['id']}")
    lookup, parameters, tenants = asked[-1]
    for seen in (tenants, Tenants.exactly(uuid4()), None, tenants):
        row = await database.look_up(lookup, parameters, seen)
        assert (row is not None) == (seen is tenants or not database.row_level_security)


async def test_what_took_long_is_answered_in_a_thread_for_a_while(
    alice: Caller, database: Database, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who is in thousands of groups holds up everybody once, not each time."""
    await alice.get(f"/organizations/{(await alice.new_organization())['id']}")
    await stop_jobs()
    lookup = Lookup(asked[-1].lookup.statement, is_short=True)
    trips = 0
    fetch = aiosqlite.Connection.execute_fetchall

    async def counting(self: aiosqlite.Connection, *given: Any) -> Any:
        nonlocal trips
        trips += 1
        return await fetch(self, *given)

    monkeypatch.setattr(aiosqlite.Connection, "execute_fetchall", counting)
    answers = [await database.look_up(lookup, *asked[-1][1:]) for _ in range(2)]
    assert trips == 0
    monkeypatch.setattr("app.db.lookups._SHORT_SECONDS", 0.0)
    answers += [await database.look_up(lookup, *asked[-1][1:]) for _ in range(3)]
    assert trips == (2 if database.is_sqlite else 0)
    assert answers == answers[:1] * 5


async def test_many_at_once_let_others_have_their_turn(alice: Caller, database: Database, asked: list[Asked]) -> None:
    """SQLite answers a short one on the spot: were all answered one after the other, no new connection would be taken meanwhile."""
    await alice.get(f"/organizations/{(await alice.new_organization())['id']}")
    lookup = asked[-1]
    assert lookup.lookup.is_short
    turns = 0

    async def go_on() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(go_on())
    await asyncio.gather(*(database.look_up(*lookup) for _ in range(80)))
    other.cancel()
    assert turns >= 80 / database.reader.pool.size()  # type: ignore[attr-defined] # it is a pool of a fixed size
