"""The second wall: PostgreSQL itself shows a transaction the rows of its tenants and no others, whatever the statement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.denials import DeniedAttempts
from app.audit.trail import Origin, Subject
from app.authz.builtin import BuiltinPolicyEngine
from app.authz.tree import KEYS
from app.blobs.sweeper import sweep
from app.core.actors import Actor, ActorType, Identity
from app.core.events import AuditAction
from app.core.permissions import Role
from app.db.base import Base
from app.db.confinement import OF_SUBJECTS, SETTING, Tenants, confine, lookup_name
from app.db.engine import Database, PoolLimits
from app.db.fair_pool import borrowed
from app.db.tenancy import tenant_tables
from app.models import ApiKey, ApiKeySecret, Execution, Organization, Project, UnsentTuple
from app.unit_of_work import UnitOfWork, WorkContext
from tests.conftest import make_settings, open_service
from tests.support import rows
from tests.support.database import OWNER, behind, wall_of
from tests.support.jobs import stop_jobs
from tests.support.keys import key_of
from tests.support.rows import Place, Rows

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)]  # SQLite has no such thing

ALICE = Actor(ActorType.USER, "alice")
TABLES = [table for table in Base.metadata.sorted_tables if table.name in tenant_tables()]
PROJECTS = Base.metadata.tables["projects"]
UNPROTECTED = text(
    "SELECT c.relname FROM pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
    " AND (c.relname = 'organizations' OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'organization_id'))"
    " AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (SELECT FROM pg_policies AS p WHERE p.tablename = c.relname"
    "  AND p.policyname = 'tenant' AND p.qual = p.with_check AND p.cmd = 'ALL' AND p.roles = '{public}'))"
)
DEFINERS = text(
    "SELECT proname, proconfig, pg_get_userbyid(proowner) AS owner, has_function_privilege('public', oid, 'EXECUTE') AS is_public"
    " FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
)


def tenant_of(table: Any) -> Any:
    return table.c.id if table.name == Organization.__tablename__ else table.c.organization_id


def every_kind_of_row(name: str) -> tuple[Place, Place, Rows]:
    """A tenant with a row in each table."""
    home, written = rows.organization(name)
    project, project_rows = rows.project(home, name)
    key = rows.api_key(home)
    secret = {"prefix": f"prefix{name}", "api_key_id": key[0][1]["id"], "organization_id": home.organization_id}
    secret |= {"hash": "0" * 64, "hash_algorithm": "none", "created_at": rows.BEGINNING}
    written += project_rows + rows.document(project)[1] + rows.api_call(project)[1] + rows.execution(project) + key
    written += [(ApiKeySecret, secret), *rows.group(home, "devs"), *rows.event(home), *rows.chain(home)]
    written += rows.member(home, "devs", Actor(ActorType.USER, f"member-of-{name}"))
    written += rows.grant(home, Actor(ActorType.USER, f"owner-of-{name}"), Role.ORG_OWNER)
    change = {"operation": "write", "subject": "user:u", "relation": "org_owner", "resource": "organization:o"}
    written += [(UnsentTuple, {"organization_id": home.organization_id, **change, "created_at": rows.BEGINNING})]
    return home, project, written


@dataclass(frozen=True)
class World:
    """Two tenants of the same shape, met as the service meets them, over a single connection."""

    database: Database
    ours: Place
    theirs: Place
    our_project: Place
    rows: Rows

    def id_of(self, model: Any, tenant: Place, column: str = "id") -> Any:
        return next(values[column] for table, values in self.rows if table is model and values["organization_id"] == tenant.organization_id)

    @asynccontextmanager
    async def confined(self, tenants: Tenants) -> AsyncIterator[AsyncConnection]:
        """A transaction of the service's own role, with no fence but the database's."""
        async with self.database.writer.begin() as connection:
            confine(connection.sync_connection, tenants)  # type: ignore[arg-type] # it is open
            yield connection


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    ours, our_project, our_rows = every_kind_of_row("ours")
    theirs, _, their_rows = every_kind_of_row("theirs")
    database = Database.from_url(database_url, PoolLimits(size=1), wall_of(database_url))
    try:
        await rows.write(database, our_rows + their_rows)
        yield World(database, ours, theirs, our_project, our_rows + their_rows)
    finally:
        await database.aclose()


async def names_seen(connection: AsyncConnection) -> list[str]:
    """What a statement sees that somebody forgot to confine."""
    return sorted((await connection.execute(select(PROJECTS.c.name))).scalars())


async def test_every_table_of_tenants_is_protected_and_one_left_out_is_seen(world: World) -> None:
    async with behind(world.database) as connection:
        assert list((await connection.execute(UNPROTECTED)).scalars()) == []
        await connection.execute(text("CREATE TABLE forgotten (organization_id uuid)"))
        await connection.execute(text("ALTER TABLE executions NO FORCE ROW LEVEL SECURITY"))
        await connection.execute(text("DROP POLICY tenant ON memberships"))
        assert set((await connection.execute(UNPROTECTED)).scalars()) == {"forgotten", "executions", "memberships"}


async def test_a_statement_without_criteria_sees_its_tenants_only(world: World) -> None:
    ours, theirs = world.ours.ref.id, world.theirs.ref.id
    both = Tenants("CAST(ARRAY[{}, {}] AS text)", (ours.hex, theirs.hex))
    for tenants, expected in (
        (Tenants.exactly(ours), {ours}),
        (Tenants.exactly(theirs), {theirs}),
        (both, {ours, theirs}),
        (Tenants.exactly(uuid4()), set()),
        (None, set()),
    ):
        async with world.database.open_read(tenants) as connection:
            for table in TABLES:
                assert set((await connection.execute(select(tenant_of(table)))).scalars()) == expected, (table.name, tenants)


async def test_what_a_connection_was_told_and_never_used_reaches_nobody(world: World) -> None:
    for _ in range(2):  # the pool has one connection
        async with world.database.open_read(Tenants.exactly(world.ours.ref.id)):
            pass
        async with borrowed(world.database.writer.sync_engine) as driver:
            assert driver.next_tenants is None
            async with driver.transaction():
                assert await driver.fetchval("SELECT count(*) FROM projects") == 0
        async with world.database.open_read() as connection:
            assert await names_seen(connection) == []


async def test_an_unset_and_an_empty_setting_show_nothing(database_url: str, world: World) -> None:
    connection = await asyncpg.connect(database_url)
    ours = str(world.ours.ref.id)
    try:
        assert await connection.fetchval("SELECT count(*) FROM projects") == 0
        async with connection.transaction():
            await connection.execute(f"SELECT set_config('{SETTING}', '{{{ours}}}', true)")
            assert await connection.fetchval("SELECT name FROM projects") == "ours"
        assert await connection.fetchval(f"SELECT current_setting('{SETTING}', true)") == "", "unset is '' from now on, not NULL"
        assert await connection.fetchval("SELECT count(*) FROM projects") == 0
        async with connection.transaction():
            assert await connection.fetchval("SELECT count(*) FROM projects") == 0
    finally:
        await connection.close()


async def test_a_row_of_another_tenant_can_be_neither_written_nor_reached(world: World) -> None:
    ours, theirs = world.ours.ref.id, world.theirs.ref.id
    row = {"id": uuid4(), "name": "new", "metadata": {}, "created_at": rows.BEGINNING, "updated_at": rows.BEGINNING}
    row |= {"created_by_subject": "user:alice", "revision": 1}
    for statement in (
        insert(PROJECTS).values(**row, organization_id=theirs),
        update(PROJECTS).values(organization_id=theirs),
        insert(Base.metadata.tables["organizations"]).values(**row, slug="new"),
    ):
        with pytest.raises(DBAPIError, match="violates row-level security policy"):
            async with world.confined(Tenants.exactly(ours)) as connection:
                await connection.execute(statement)
    async with world.confined(Tenants.exactly(ours)) as connection:
        assert (await connection.execute(update(PROJECTS).values(name="changed"))).rowcount == 1
        assert (await connection.execute(delete(PROJECTS).where(PROJECTS.c.organization_id == theirs))).rowcount == 0
        await connection.execute(insert(PROJECTS).values(**row, organization_id=ours))
    async with behind(world.database) as connection:
        assert await names_seen(connection) == ["changed", "new", "theirs"]


async def test_each_transaction_of_a_session_is_confined_and_the_next_one_is_not(world: World) -> None:
    context = WorkContext(world.database, BuiltinPolicyEngine(), DeniedAttempts())
    for is_read_only in (True, False):
        work = UnitOfWork(context, Identity(ALICE, "header"), Origin(), is_read_only=is_read_only)
        work.pin(world.ours.ref.id)
        for _ in range(2):
            assert await names_seen(await work.session.orm_session.connection()) == ["ours"]
            async with work.session.attempt():
                assert await names_seen(await work.session.orm_session.connection()) == ["ours"]
            await work.session.orm_session.commit()
        await work.rollback()
        async with world.database.writer.begin() as connection:
            assert await names_seen(connection) == []


async def test_a_transaction_that_never_began_leaves_nothing_to_the_next(world: World) -> None:
    async with world.confined(Tenants.exactly(world.ours.ref.id)):
        pass
    async with world.database.writer.begin() as connection:
        assert await names_seen(connection) == []
    async with world.database.reader.connect() as connection:
        assert await names_seen(connection) == []


async def test_a_transaction_that_cannot_begin_harms_no_later_one(world: World) -> None:
    with pytest.raises(DBAPIError, match="no_such_function"):
        async with world.database.open_read(Tenants("no_such_function()", ())) as connection:
            await names_seen(connection)
    async with world.database.open_read(Tenants.exactly(world.ours.ref.id)) as connection:
        assert await names_seen(connection) == ["ours"]
    async with world.database.writer.begin() as connection:
        assert await names_seen(connection) == []


async def tenants_seen(database: Database, tenants: Tenants) -> set[UUID]:
    """What the setting says in a transaction that is confined so."""
    async with database.open_read(tenants) as connection:
        found = (await connection.execute(text(f"SELECT current_setting('{SETTING}')"))).scalar_one()
        return {UUID(tenant) for tenant in found.strip("{}").split(",") if tenant}


async def test_a_key_tells_the_tenant_of_its_row_and_nothing_else(world: World) -> None:
    keys: list[tuple[Any, Any]] = [(key, world.id_of(key.class_, world.ours)) for key in KEYS.values() if key.class_ is not Organization]
    keys += [(Execution.id, world.id_of(Execution, world.ours)), (ApiKey.id, world.id_of(ApiKey, world.ours))]
    keys += [(ApiKeySecret.prefix, "prefixours"), (Organization.slug, "ours")]
    ours = world.ours.ref.id
    for key, value in keys:
        assert await tenants_seen(world.database, Tenants.of_row(key, value)) == {ours}, key
        for other in [uuid4()] if isinstance(value, UUID) else ["", "our", "OURS", "' OR true --", "ours\\", "%"]:
            assert await tenants_seen(world.database, Tenants.of_row(key, other)) == set(), (key, other)
    assert await tenants_seen(world.database, Tenants.of_row(Organization.id, ours)) == {ours}
    theirs, prefix = world.theirs.ref.id, "prefixours"
    for key, value in [*((key, world.id_of(key.class_, world.theirs)) for key, _ in keys[:-2]), (Organization.id, theirs)]:
        assert await tenants_seen(world.database, Tenants.of_rows((ApiKeySecret.prefix, key), (prefix, value))) == {ours, theirs}, key
        assert await tenants_seen(world.database, Tenants.of_rows((ApiKeySecret.prefix, key), ("none", value))) == {theirs}, key
    assert await tenants_seen(world.database, Tenants.of_rows((ApiKeySecret.prefix, Project.id), (prefix, uuid4()))) == {ours}
    assert await tenants_seen(world.database, Tenants.of_rows((ApiKeySecret.prefix, Project.id), ("none", uuid4()))) == set()
    async with behind(world.database) as connection:
        found = (await connection.execute(DEFINERS)).all()
    expected = {lookup_name(key.class_.__tablename__, key.key) for key, _ in keys} | {OF_SUBJECTS}
    assert {function.proname for function in found} == expected, "each hole is named here"
    for function in found:
        assert (function.owner, function.is_public) == (OWNER, False), function
        assert function.proconfig == ["search_path=pg_catalog, public, pg_temp"], function


async def test_an_actor_is_shown_the_tenants_of_his_grants_and_groups(world: World) -> None:
    ours, theirs = world.ours.ref.id, world.theirs.ref.id
    both = Actor(ActorType.USER, "o'both {,}\\ ü")
    await rows.write(
        world.database,
        rows.grant(world.our_project, both, Role.PROJECT_VIEWER)
        + rows.member(world.theirs, "devs", both)
        + rows.group(world.ours, "outer")
        + rows.member(world.ours, "outer", Actor(ActorType.GROUP, "devs"))
        + rows.grant(world.theirs, Actor(ActorType.GROUP, "outer"), Role.ORG_MEMBER),
    )
    for type_, name, expected in (
        ("USER", "owner-of-ours", {ours}),
        ("USER", "member-of-theirs", {theirs}),
        ("USER", both.id, {ours, theirs}),
        ("SERVICE", both.id, set()),
        ("USER", "owner-of", set()),
        ("USER", "%", set()),
        ("USER", "nobody", set()),
    ):
        assert await tenants_seen(world.database, Tenants.of_subjects([(type_, name)])) == expected, name
    several = Tenants.of_subjects([("USER", "owner-of-ours"), ("USER", "member-of-theirs")])
    assert await tenants_seen(world.database, several) == {ours, theirs}
    crossed = Tenants.of_subjects([("GROUP", "owner-of-ours"), ("USER", "nobody")])
    assert await tenants_seen(world.database, crossed) == set()


async def test_the_role_of_requests_adds_audit_events_and_never_changes_one(world: World) -> None:
    events = Base.metadata.tables["audit_events"]
    for statement in (update(events).values(action="CHANGED"), delete(events)):
        with pytest.raises(DBAPIError, match="permission denied for table audit_events"):
            async with world.confined(Tenants.exactly(world.ours.ref.id)) as connection:
                await connection.execute(statement)
    for name in ("audit_chains", "audit_gaps", "audit_checkpoints", "audit_retentions"):
        table = Base.metadata.tables[name]
        row = {**next(values for model, values in world.rows if model.__tablename__ == name), "key_id": "other"}
        for change in (update(table).values(key_id="other"), delete(table), insert(table).values(row)):
            with pytest.raises(DBAPIError, match=f"permission denied for table {name}"):
                async with world.confined(Tenants.exactly(world.ours.ref.id)) as connection:
                    await connection.execute(change)
    context = WorkContext(world.database, BuiltinPolicyEngine(), DeniedAttempts())
    work = UnitOfWork(context, Identity(ALICE, "header"), Origin(), is_read_only=False)
    work.pin(world.ours.ref.id)
    await work.session.execute(update(Project).values(name="changed"))
    work.record(AuditAction.PROJECT_UPDATED, Subject(world.our_project.ref, world.ours.ref.id))
    await work.commit()
    async with world.database.for_jobs.writer.begin() as connection:
        tenants = (await connection.execute(delete(events).returning(events.c.organization_id))).scalars().all()
    assert sorted(tenants) == sorted([world.ours.ref.id] * 2 + [world.theirs.ref.id]), "the role for jobs sees every tenant"


async def test_finding_a_row_is_one_statement(world: World) -> None:
    work = UnitOfWork(
        WorkContext(world.database, BuiltinPolicyEngine(), DeniedAttempts()), Identity(ALICE, "header"), Origin(), is_read_only=True
    )
    await work.locate_ref(world.our_project.ref)  # the first time the statement is prepared, and the types it knows are looked up
    sent: list[str] = []
    async with world.database.reader.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
    driver.add_query_logger(lambda message: sent.append(message.query.split()[0]))  # type: ignore[union-attr] # the driver's own
    await work.locate_ref(world.our_project.ref)
    await asyncio.sleep(0)
    assert sent == ["SELECT"]


async def test_without_the_setting_reads_are_no_transactions_and_one_role_does_everything(owner_url: str, tmp_path: Path) -> None:
    async with open_service(make_settings(owner_url, tmp_path)) as service:
        alice = service.as_("user:alice")
        organization = await alice.new_organization()
        bearer, _ = await key_of(service, alice, "ORGANIZATION", organization["id"], "ORG_MEMBER")
        await stop_jobs("last use of keys")
        project = await alice.new_project(organization["id"])
        await alice.new_document(project["id"])
        await bearer.get(f"/projects/{project['id']}")
        assert (await bearer.get("/projects")).json()["total_items"] == 1
        database = service.runtime.context.database
        assert await service.runtime.key_uses.write(database) == 1
        assert (await sweep(database, service.runtime.store, timedelta())).removed == 0
        await alice.delete("/audit-events", 200, params={"organization_id": organization["id"]})
        async with database.open_read(Tenants.exactly(uuid4())) as connection:
            assert await names_seen(connection) == ["project"]
            assert not (await connection.get_raw_connection()).driver_connection.is_in_transaction()  # type: ignore[union-attr]
