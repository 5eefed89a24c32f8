"""Rows that wait for the commit: written by the driver itself they are the same, all or none, and refused in the same words."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.audit.denials import DeniedAttempts
from app.audit.trail import Origin, Subject
from app.authz.builtin import BuiltinPolicyEngine
from app.core.errors import ConflictError
from app.core.events import AuditAction
from app.db.confinement import Tenants
from app.db.engine import Database, PoolLimits
from app.db.tenancy import FencedSession, TenancyError
from app.db.writes import MAX_ROWS, Insertion
from app.models import Project
from app.unit_of_work import SYSTEM, UnitOfWork, WorkContext, open_system_work
from tests.conftest import Caller, Service
from tests.support import rows
from tests.support.answers import read_problem
from tests.support.database import OWNER, as_role, behind, open_database, wall_of
from tests.support.record import new_call, new_execution, new_place

pytestmark = pytest.mark.anyio


@pytest.fixture
def database(service: Service) -> Database:
    return service.runtime.context.database


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[Insertion], bool]]:
    """What was to be written at once, and whether it was."""
    seen: list[tuple[Sequence[Insertion], bool]] = []
    write_at_once = Database.write_at_once

    async def noting(self: Database, insertions: Sequence[Insertion], *given: Any) -> bool:
        written = await write_at_once(self, insertions, *given)
        seen.append((insertions, written))
        return written

    monkeypatch.setattr(Database, "write_at_once", noting)
    return seen


@contextmanager
def heard(database: Database) -> Iterator[None]:
    """While somebody listens everything goes the ordinary way."""
    event.listen(database.writer.sync_engine, "before_cursor_execute", listener := lambda *_: None)
    yield
    event.remove(database.writer.sync_engine, "before_cursor_execute", listener)


async def create_everything(alice: Caller) -> None:
    organization, project = await new_place(alice)
    await alice.new_document(project["id"], metadata='{"a": [1, null, "ü"]}')
    await new_call(alice, project["id"], metadata={"a": [1.5, None]}, request_payload={"ü": "\U0001f40d'\\"}, external_request_id="x")
    await new_execution(alice, project, confidence=0.25, tags=["a"], input={"b": [True]})
    await alice.post(f"/organizations/{organization['id']}/groups", {"group_id": "g", "name": "group"})


async def test_what_was_written_at_once_is_what_was_given(
    alice: Caller, database: Database, asked: list[tuple[Sequence[Insertion], bool]]
) -> None:
    await create_everything(alice)
    written = [insertion for insertions, done in asked if done for insertion in insertions]
    assert {insertion.model.__tablename__ for insertion in written} == {
        *("projects", "documents", "document_versions", "api_calls", "executions", "groups", "audit_events")
    }
    async with behind(database) as connection:
        for insertion in written:
            table: Any = insertion.model.__table__
            for given in insertion.rows:
                found = (await connection.execute(select(table).where(table.c.id == given["id"]))).one()._mapping
                told = {name: value for name, value in found.items() if name in given}
                assert told == given


async def test_the_ordinary_way_writes_the_same(alice: Caller, database: Database, asked: list[tuple[Sequence[Insertion], bool]]) -> None:
    async def shown() -> list[Any]:
        bodies = [
            (await alice.get(f"/{name}?limit=100")).json()["items"] for name in ("documents", "api-calls", "executions", "audit-events")
        ]
        return [[sorted(item) for item in items] for items in bodies]

    await create_everything(alice)
    quick = await shown()
    with heard(database):
        await create_everything(alice)
    assert any(done for _, done in asked)
    both = await shown()
    assert [sorted(items) for items in both] == [sorted(items * 2) for items in quick]


async def test_a_row_and_its_event_are_one_statement(alice: Caller, database: Database) -> None:
    """Which tells row-level security of the tenant itself."""
    if database.is_sqlite:
        return
    project = (await new_place(alice))[1]["id"]
    told: list[str] = []

    def note(query: Any) -> None:
        told.append(query.query)

    await database.writer.dispose()  # so that connections are made anew
    event.listen(database.writer.sync_engine, "connect", lambda connection, _: connection.driver_connection.add_query_logger(note))
    await asyncio.gather(*(new_call(alice, project) for _ in range(3)))
    assert sorted(query.split("(")[0].strip() for query in told) == ["SELECT seen.* FROM"] * 3 + ["WITH told AS"] * 3


@pytest.fixture(params=["app", "owner"])
async def bare(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Database]:
    """A database without a service: as the service's role, on PostgreSQL with row-level security, and without."""
    url = database_url if request.param == "app" else as_role(database_url, OWNER)
    async with open_database(url) as opened:
        yield opened


def crossed() -> None:
    pytest.fail("past the line")


async def projects(database: Database) -> list[str]:
    async with behind(database) as connection:
        return sorted((await connection.execute(select(Project.__table__.c.name))).scalars())


def insertions_of(*written: tuple[Any, dict[str, Any]]) -> list[Insertion]:
    return [Insertion(model, [row]) for model, row in written]


async def test_all_are_written_or_none(bare: Database) -> None:
    home, made = rows.organization("ours")
    _, first = rows.project(home, "first")
    _, orphan = rows.project(rows.organization("absent")[0], "orphan")
    _, second = rows.project(home, "second")
    tenants = Tenants.exactly(home.ref.id)
    for refused in ([*made, *first, *first], [*made, *first, *orphan], [*orphan, *first]):
        if bare.row_level_security and orphan[0] in refused:
            continue  # that is no refusal but a fault: the row is no tenant's that was named
        assert not await bare.write_at_once(insertions_of(*refused), tenants, crossed)
    assert await projects(bare) == []
    lines: list[str] = []
    assert await bare.write_at_once(insertions_of(*made, *first), tenants, lambda: lines.append("past"))
    assert await bare.write_at_once(insertions_of(*second), tenants, lambda: lines.append("past"))
    assert (await projects(bare), lines) == (["first", "second"], ["past"] * 2)
    assert bare.count_connections()[0] == 0


async def test_many_rows_go_the_ordinary_way(bare: Database) -> None:
    home, made = rows.organization("ours")
    many = [row for number in range(MAX_ROWS) for row in rows.project(home, f"p{number}")[1]]
    assert not await bare.write_at_once(insertions_of(*made, *many), Tenants.exactly(home.ref.id), crossed)
    assert await bare.write_at_once(insertions_of(*made, *many[:-1]), Tenants.exactly(home.ref.id), lambda: None)


async def test_nothing_was_sent_when_no_connection_was_free(database_url: str) -> None:
    home, made = rows.organization("ours")
    database = Database.from_url(database_url, PoolLimits(size=1, checkout_seconds=0.2), wall_of(database_url))
    try:
        async with database.writer.connect():
            with pytest.raises(PoolTimeoutError):
                await database.write_at_once(insertions_of(*made), Tenants.exactly(home.ref.id), crossed)
    finally:
        await database.aclose()


async def test_who_goes_away_in_the_middle_leaves_no_connection_and_no_half(bare: Database) -> None:
    home, made = rows.organization("ours")
    tenants = Tenants.exactly(home.ref.id)
    assert await bare.write_at_once(insertions_of(*made), tenants, lambda: None)
    for pause in range(10):
        pair = [rows.project(home, f"{pause}-{which}")[1] for which in "ab"]
        await bare.ping()  # so that nobody goes away while connecting
        task = asyncio.create_task(bare.write_at_once(insertions_of(*pair[0], *pair[1]), tenants, lambda: None))
        for _ in range(pause):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await bare.write_at_once(insertions_of(*rows.project(home, "last")[1]), tenants, lambda: None)
    halves = [name.partition("-")[0] for name in await projects(bare)]
    assert all(halves.count(number) in {0, 2} for number in map(str, range(10)))
    assert bare.count_connections()[0] == 0


async def test_a_refusal_is_told_as_ever(alice: Caller, database: Database, asked: list[tuple[Sequence[Insertion], bool]]) -> None:
    async def answer() -> tuple[int, str]:
        refused = await alice.post("/organizations", {"slug": "taken"}, 409)
        return refused.status_code, refused.json()["code"]

    await alice.post("/organizations", {"slug": "taken"})
    quick = await answer()
    with heard(database):
        assert await answer() == quick == (409, "slug_taken")
    organization, project = await new_place(alice)
    doomed, body = f"/projects/{project['id']}", {"name": "call", "operation_key": "op"}
    answers = await asyncio.gather(alice.delete(doomed), *(alice.post(f"{doomed}/api-calls", body, None) for _ in range(8)))
    for late in answers[1:]:
        if late.status_code != 201:
            read_problem(late, 404)
    assert (await alice.get(f"/api-calls?organization_id={organization['id']}")).json()["items"] == []
    assert asked


async def test_what_waits_is_found_by_what_is_asked_next_and_goes_with_its_attempt(bare: Database) -> None:
    home, made = rows.organization("ours")
    assert await bare.write_at_once(insertions_of(*made), Tenants.exactly(home.ref.id), lambda: None)
    context = WorkContext(bare, BuiltinPolicyEngine(), DeniedAttempts())
    names = select(Project.name).order_by(Project.name)

    def insert(work: UnitOfWork, name: str) -> None:
        (insertion,) = insertions_of(*rows.project(home, name)[1])
        work.session.insert(insertion)

    async with open_system_work(context, "a test", home.ref.id) as work:
        insert(work, "first")
        assert (await work.session.execute(names)).scalars().all() == ["first"]
        with suppress(ZeroDivisionError):
            async with work.attempt():
                insert(work, "second")
                raise ZeroDivisionError
        insert(work, "third")
        async with work.attempt():
            insert(work, "fourth")
        with pytest.raises(ConflictError):
            async with work.attempt():
                work.session.insert(insertions_of(*made)[0])
        work.record(AuditAction.PROJECT_CREATED, Subject(home.ref, home.organization_id))
    assert await projects(bare) == ["first", "fourth", "third"]


async def test_only_what_needs_one_makes_a_session_of_sqlalchemys(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    organization, project = await new_place(alice)
    made: list[FencedSession] = []
    make = FencedSession.__init__

    def noting(self: FencedSession, **options: Any) -> None:
        made.append(self)
        make(self, **options)

    monkeypatch.setattr(FencedSession, "__init__", noting)
    call = await new_call(alice, project["id"])
    for page in ("limit=5", "size=5"):
        for scope in (f"organization_id={organization['id']}", f"project_id={project['id']}"):
            assert [row["id"] for row in (await alice.get(f"/api-calls?{scope}&{page}")).json()["items"]] == [call["id"]]
    await alice.get(f"/api-calls/{call['id']}")
    assert made == []
    await alice.patch(f"/api-calls/{call['id']}", {"metadata": {"a": 1}})
    assert len(made) == 1


async def test_what_waits_is_the_pinned_tenants(bare: Database) -> None:
    home, made = rows.organization("ours")
    (insertion,) = insertions_of(*made)
    context = WorkContext(bare, BuiltinPolicyEngine(), DeniedAttempts())
    for pin, is_read_only in ((None, False), (uuid4(), False), (home.ref.id, True)):
        work = UnitOfWork(context, SYSTEM, Origin(), is_read_only=is_read_only)
        if pin is not None:
            work.pin(pin)
        with pytest.raises(TenancyError):
            work.session.insert(insertion)
        await work.rollback()
