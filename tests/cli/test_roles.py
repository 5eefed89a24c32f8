"""The roles of the second wall: made by the command, with no right too many, and every other role refused at start."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from app.db.base import Base
from app.db.engine import Database, PoolLimits, SecondWall, session_settings
from app.db.migrations import head_version, migrate
from app.db.roles import DatabaseRoleError, require_roles
from app.db.tenancy import tenant_tables
from app.db.urls import DatabaseURLError, parse_database_url
from app.main import make_database
from app.settings import Settings
from tests.conftest import run_sql_on
from tests.support.cli import Result, run_saasbase
from tests.support.database import APP, JOBS, OWNER, as_role, environment_of
from tests.support.postgres import WITH_PASSWORD

pytestmark = pytest.mark.anyio
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

PASSWORD = "correct horse 'battery' $staple"
FLAGS = "rolcanlogin, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole"
RIGHTS = text(
    "SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = :role AND table_schema = 'public'"
)
CHANGING = {"SELECT", "INSERT", "UPDATE", "DELETE"}


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database of the owner's, for the server's superuser; roles that a test makes for it go with it."""
    name = f"roles_{uuid4().hex}"
    asyncio.run(run_sql_on(postgres_url, f"CREATE DATABASE {name} OWNER {OWNER}"))
    try:
        yield f"{postgres_url}/{name}"
    finally:
        asyncio.run(run_sql_on(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))
        asyncio.run(run_sql_on(postgres_url, f"DROP ROLE IF EXISTS {WITH_PASSWORD}"))


def url_of(database: str, role: str, password: str) -> str:
    return parse_database_url(database).set(username=role, password=password).render_as_string(hide_password=False)


def create_roles(database: str, folder: Path, **changes: str) -> Result:
    settings = {
        "SAASBASE_DB_URL": url_of(database, WITH_PASSWORD, PASSWORD),
        "SAASBASE_DATABASE__JOBS_URL": as_role(database, JOBS),
        "SAASBASE_DATABASE__MIGRATION_URL": as_role(database, OWNER),
        **changes,
    }
    return run_saasbase(folder, "migrate", "--create-roles", **settings)


async def test_the_command_makes_what_is_absent_and_again_nothing(empty_database: str, tmp_path: Path) -> None:
    schema = f"schema is at {head_version()}\n"
    assert create_roles(empty_database, tmp_path) == Result(0, f"{schema}created the role {WITH_PASSWORD}\n", "")
    assert create_roles(empty_database, tmp_path) == Result(0, schema, "")
    connection = await asyncpg.connect(empty_database)
    try:
        role = await connection.fetchrow(f"SELECT {FLAGS}, rolpassword FROM pg_authid WHERE rolname = '{WITH_PASSWORD}'")
        assert tuple(role)[:5] == (True, False, False, False, False)
        assert role["rolpassword"].startswith("SCRAM-SHA-256$4096:")
    finally:
        await connection.close()


async def test_the_password_of_the_url_lets_in_and_no_other(empty_database: str, tmp_path: Path) -> None:
    assert create_roles(empty_database, tmp_path).status == 0
    connection = await asyncpg.connect(empty_database, user=WITH_PASSWORD, password=PASSWORD)
    assert await connection.fetchval("SELECT current_user") == WITH_PASSWORD
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(empty_database, user=WITH_PASSWORD, password=PASSWORD[:-1])


def settings_kept(url: str, folder: Path, **changes: str) -> dict[str, str]:
    """What a session of the app role has, to which its client says nothing: one that a pooler opens."""

    async def look() -> dict[str, str]:
        connection = await asyncpg.connect(url, user=WITH_PASSWORD, password=PASSWORD)
        try:
            return {name: await connection.fetchval(f"SHOW {name}") for name in session_settings(PoolLimits())}
        finally:
            await connection.close()

    assert create_roles(url, folder, **changes).status == 0
    return asyncio.run(look())


def test_the_roles_keep_what_a_pooled_connection_cannot_say(empty_database: str, tmp_path: Path) -> None:
    expected = {
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "1min",
        "jit": "off",
        "max_parallel_workers_per_gather": "0",
        "plan_cache_mode": "force_generic_plan",
    }
    assert settings_kept(empty_database, tmp_path) == expected
    changed = settings_kept(empty_database, tmp_path, SAASBASE_DATABASE__STATEMENT_TIMEOUT_SECONDS="1.5")
    assert changed == {**expected, "statement_timeout": "1500ms"}


def test_a_role_of_somebody_else_keeps_its_own(empty_database: str, postgres_url: str, tmp_path: Path) -> None:
    asyncio.run(run_sql_on(postgres_url, f"CREATE ROLE {WITH_PASSWORD} LOGIN SUPERUSER"))
    for _ in range(2):
        ended = create_roles(empty_database, tmp_path)
        assert (ended.status, ended.out) == (0, f"schema is at {head_version()}\n"), ended
        assert f"the role {WITH_PASSWORD}, which this one may not alter, keeps its own statement_timeout" in ended.err


@on_postgresql
async def test_the_roles_have_the_rights_they_need_and_no_more(owner_url: str) -> None:
    async with opened(owner_url) as owner, owner.open_read() as connection:
        rights: dict[str, dict[str, set[str]]] = {APP: {}, JOBS: {}}
        for role, held in rights.items():
            for table, right in (await connection.execute(RIGHTS, {"role": role})).all():
                held.setdefault(table, set()).add(right)
    tables = {**dict.fromkeys(Base.metadata.tables, CHANGING), "installation": {"SELECT"}, "alembic_version": {"SELECT"}}
    assert rights[JOBS] == tables
    proofs = {table: {"SELECT"} for table in ("audit_chains", "audit_gaps", "audit_checkpoints", "audit_retentions")}
    assert rights[APP] == {**tables, "audit_events": {"SELECT", "INSERT"}, **proofs}


@on_postgresql
async def test_the_command_mends_rights_and_policies(owner_url: str, database_url: str, tmp_path: Path) -> None:
    async with opened(owner_url) as owner, owner.writer.begin() as connection:
        for statement in (
            f"GRANT UPDATE, DELETE, TRUNCATE ON audit_events TO {APP}",
            f"GRANT INSERT, UPDATE, DELETE, TRUNCATE ON audit_gaps TO {APP}",
            f"GRANT INSERT, UPDATE, DELETE, TRUNCATE ON audit_retentions TO {APP}",
            f"REVOKE INSERT ON projects FROM {APP}",
            f"REVOKE INSERT ON rate_buckets FROM {APP}",
            f"REVOKE SELECT ON installation FROM {JOBS}",
            f"GRANT UPDATE ON installation TO {JOBS}",
            "DROP POLICY jobs ON documents",
            f"ALTER POLICY jobs ON projects TO {OWNER}",
            f"REVOKE EXECUTE ON FUNCTION saasbase_tenants_of_subjects FROM {APP}",
        ):
            await connection.exec_driver_sql(statement)
    environment = {**environment_of(database_url), "SAASBASE_DATABASE__MIGRATION_URL": owner_url}
    assert run_saasbase(tmp_path, "migrate", "--create-roles", **environment).status == 0
    await test_the_roles_have_the_rights_they_need_and_no_more(owner_url)
    async with opened(owner_url) as owner, owner.open_read() as connection:
        policies = await connection.execute(text("SELECT tablename, roles::text FROM pg_policies WHERE policyname = 'jobs'"))
        assert set(policies.all()) == {(table, f"{{{JOBS}}}") for table in tenant_tables()}
        callable_ = text(f"SELECT has_function_privilege('{APP}', 'saasbase_tenants_of_subjects(text[], text[])', 'EXECUTE')")
        assert (await connection.execute(callable_)).scalar_one() is True


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SAASBASE_DB_URL": OWNER}, "SAASBASE_DB_URL must name a role of its own"),
        ({"SAASBASE_DATABASE__JOBS_URL": OWNER}, "SAASBASE_DATABASE__JOBS_URL must name a role of its own"),
        ({"SAASBASE_DATABASE__JOBS_URL": WITH_PASSWORD}, "SAASBASE_DATABASE__JOBS_URL must name a role of its own"),
        ({"SAASBASE_DB_URL": "saasbase_new:pässword"}, "SAASBASE_DB_URL: a password made here must be ASCII"),
    ],
)
def test_roles_that_would_be_no_wall_are_refused_with_one_line(
    changes: dict[str, str], words: str, empty_database: str, tmp_path: Path
) -> None:
    given = {}
    for setting, role in changes.items():
        name, _, password = role.partition(":")
        given[setting] = url_of(empty_database, name, password or name)
    ended = create_roles(empty_database, tmp_path, **given)
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1), ended
    assert words in ended.err


def test_sqlite_has_no_roles_and_no_second_wall(tmp_path: Path) -> None:
    assert run_saasbase(tmp_path, "migrate", "--create-roles") == Result(1, "", "saasbase: SQLite has no roles\n")
    for command in ("serve", "migrate", "sweep"):
        ended = run_saasbase(tmp_path, command, SAASBASE_DATABASE__ROW_LEVEL_SECURITY="true")
        assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1), ended
        assert "SAASBASE_DATABASE__ROW_LEVEL_SECURITY" in ended.err
        assert "for PostgreSQL" in ended.err
    with pytest.raises(DatabaseURLError, match="SAASBASE_DATABASE__JOBS_URL: the database URL must be"):
        make_database(Settings.model_validate({"database": {"jobs_url": f"mysql://u:{PASSWORD}@h/d"}}))


@asynccontextmanager
async def opened(url: str, wall: SecondWall | None = None) -> AsyncIterator[Database]:
    database = Database.from_url(url, wall=wall)
    try:
        yield database
    finally:
        await database.aclose()


async def refusal_of(url: str, jobs: str | None, *, row_level_security: bool = True) -> str:
    """What the start says; nothing when it goes on."""
    wall = SecondWall(row_level_security=row_level_security, jobs_url=parse_database_url(jobs) if jobs is not None else None)
    async with opened(url, wall) as database:
        try:
            await require_roles(database)
        except DatabaseRoleError as error:
            return str(error)
    return ""


@asynccontextmanager
async def new_role(server: str, url: str, options: str) -> AsyncIterator[str]:
    """A role for a moment; yields the URL to connect as it."""
    name = f"role_{uuid4().hex}"
    await run_sql_on(server, f"CREATE ROLE {name} LOGIN {options}")
    try:
        yield as_role(url, name)
    finally:
        await run_sql_on(server, f"DROP ROLE {name}")


@on_postgresql
async def test_the_roles_the_command_makes_are_good(database_url: str, owner_url: str) -> None:
    jobs = as_role(database_url, JOBS)
    assert await refusal_of(database_url, jobs) == ""
    assert await refusal_of(owner_url, None, row_level_security=False) == "", "one role for everything, and no second wall"
    assert await refusal_of(owner_url, jobs, row_level_security=False) == ""


@on_postgresql
async def test_a_role_that_the_wall_does_not_hold_is_refused(database_url: str, owner_url: str, postgres_url: str) -> None:
    jobs = as_role(database_url, JOBS)
    database = database_url.rpartition("/")[2]
    assert "is a superuser" in await refusal_of(f"{postgres_url}/{database}", jobs)
    assert "owns the tables" in await refusal_of(owner_url, jobs)
    assert "sees every tenant's api_calls, " in await refusal_of(jobs, jobs)
    for options, words in (
        ("BYPASSRLS", "has BYPASSRLS"),
        (f"IN ROLE {OWNER}", "is a member"),
        (f"NOINHERIT IN ROLE {OWNER}", "is a member"),
    ):
        async with new_role(postgres_url, database_url, options) as url:
            assert words in await refusal_of(url, jobs)


@on_postgresql
async def test_a_role_for_jobs_that_sees_too_little_is_refused(database_url: str) -> None:
    """The sweeper would take every content it sees no row of for a leftover."""
    for jobs in (None, database_url):
        refused = await refusal_of(database_url, jobs)
        assert refused.startswith("SAASBASE_DATABASE__JOBS_URL: ")
        assert "document_versions" in refused


@on_postgresql
async def test_a_role_that_would_see_nothing_is_refused(database_url: str, owner_url: str, tmp_path: Path) -> None:
    refused = await refusal_of(database_url, None, row_level_security=False)
    assert refused.startswith("SAASBASE_DB_URL: ")
    assert "set SAASBASE_DATABASE__ROW_LEVEL_SECURITY=true" in refused
    assert "SAASBASE_DATABASE__JOBS_URL" in await refusal_of(owner_url, database_url, row_level_security=False)
    for command in ("serve", "sweep"):
        ended = run_saasbase(tmp_path, command, SAASBASE_DB_URL=database_url)
        assert ended == Result(1, "", f"saasbase: {refused}\n")


@on_postgresql
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("ALTER TABLE projects DISABLE ROW LEVEL SECURITY", "not forced on projects"),
        ("ALTER TABLE projects NO FORCE ROW LEVEL SECURITY", "not forced on projects"),
        ("DROP POLICY tenant ON memberships", "not forced on memberships"),
        ("DROP TABLE api_calls", "not forced on api_calls"),
        ("CREATE POLICY more ON executions USING (true)", "sees every tenant's executions"),
        (f"CREATE POLICY more ON executions FOR SELECT TO {APP} USING (true)", "sees every tenant's executions"),
        (f"REVOKE INSERT ON executions FROM {APP}", "SAASBASE_DB_URL: the role saasbase_app has no right to use executions"),
        (f"REVOKE SELECT ON groups FROM {JOBS}", "SAASBASE_DATABASE__JOBS_URL: the role saasbase_jobs has no right to use groups"),
        (
            f"REVOKE EXECUTE ON FUNCTION saasbase_tenant_of_projects_by_id FROM {APP}",
            "has no right to use saasbase_tenant_of_projects_by_id(uuid)",
        ),
        ("DROP POLICY jobs ON document_versions", "does not see every tenant's document_versions"),
    ],
)
async def test_a_gap_in_the_wall_is_refused(fault: str, words: str, database_url: str, owner_url: str) -> None:
    async with opened(owner_url) as owner, owner.writer.begin() as connection:
        await connection.exec_driver_sql(fault)
    assert words in await refusal_of(database_url, as_role(database_url, JOBS))


async def test_an_installation_with_one_role_works_as_before(empty_database: str) -> None:
    url = as_role(empty_database, OWNER)
    async with opened(url) as database:
        await migrate(database)
        await require_roles(database)
