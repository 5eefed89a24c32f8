"""The roles of the second wall: made by ``saasbase migrate --create-roles``, and checked before the service serves."""

import hmac
import logging
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import pbkdf2_hmac, sha256
from typing import Any, Final

from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import IdentifierPreparer

from app.db.engine import Database, session_settings
from app.db.tenancy import tenant_tables

_log = logging.getLogger(__name__)

# What proves that nobody touched the audit trail, or says how much of it may go, the role of requests can only read.
READ_ONLY: Final = frozenset({"audit_chains", "audit_gaps", "audit_checkpoints", "audit_retentions"})
# Any fixed number: processes that make the roles of one database take turns on it.
_ADVISORY_LOCK: Final = 7_230_519_684_112_346
_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
# To the trail itself it adds rows, and can neither change nor remove one.
_RIGHTS_ON: Final = {"audit_events": _RIGHTS[:2], **dict.fromkeys(READ_ONLY, _RIGHTS[:1])}
# What belongs to no tenant: every request may touch the one, and nobody changes the other.
_SHARED_RIGHTS: Final = {"rate_buckets": _RIGHTS, "installation": _RIGHTS[:1]}
_ITERATIONS: Final = 4096  # what PostgreSQL itself takes

_ROLE: Final = text("SELECT current_user AS name, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
_FUNCTIONS: Final = text(
    "SELECT oid::regprocedure::text AS name, has_function_privilege(oid, 'EXECUTE') AS is_granted FROM pg_proc"
    " WHERE pronamespace = current_schema()::regnamespace AND prosecdef AND left(proname, 9) = 'saasbase_'"
)
_SHARED: Final = text(
    "SELECT relname AS name, has_table_privilege(oid, CASE relname WHEN 'installation' THEN 'SELECT' ELSE 'INSERT' END) AS is_granted"
    " FROM pg_class"
    " WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(:names)"
)
_KEPT: Final = text(
    "SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = to_regrole(quote_ident(:name))"
    " AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_MAY_NOT: Final = "42501"  # insufficient_privilege
_TABLES: Final = text(
    "SELECT c.relname AS name, pg_has_role(c.relowner, 'MEMBER') AS is_owned,"
    " has_table_privilege(c.oid, 'SELECT') AND (c.relname = ANY(:read_only) OR has_table_privilege(c.oid, 'INSERT')) AS is_granted,"
    " c.relrowsecurity AND c.relforcerowsecurity AND bool_or(p.polname = 'tenant') IS TRUE AS is_protected,"
    " NOT row_security_active(c.oid) OR bool_or(p.polpermissive AND pg_get_expr(p.polqual, p.polrelid) = 'true'"
    "  AND (SELECT bool_or(r = 0 OR pg_has_role(r, 'USAGE')) FROM unnest(p.polroles) AS r)) IS TRUE AS is_open"
    " FROM pg_class AS c LEFT JOIN pg_policy AS p ON p.polrelid = c.oid"
    " WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(:names) GROUP BY c.oid ORDER BY c.relname"
)


class DatabaseRoleError(RuntimeError):
    """A role of the database cannot be what the settings make of it; says in one line what to do."""


async def require_roles(database: Database) -> None:
    """Refuse to serve when a role sees more, or less, than its work needs. Asks PostgreSQL seven short questions at start.

    Raises:
        DatabaseRoleError: says in one line what to do.
    """
    role, tables = await _look(database, READ_ONLY)
    if database.row_level_security:
        _require_confined(role, tables)
        async with database.open_read() as connection:
            functions = list((await connection.execute(_FUNCTIONS)).all())
        _require_rights("SAASBASE_DB_URL", role, [*tables, *functions, *await _look_at_shared(database)])
    elif hidden := [table.name for table in tables if not table.is_open]:
        raise DatabaseRoleError(
            f"SAASBASE_DB_URL: the role {role.name} sees no row of {', '.join(hidden)}:"
            " set SAASBASE_DATABASE__ROW_LEVEL_SECURITY=true, or connect as the role that owns the tables"
        )
    if database.row_level_security or database.for_jobs is not database:
        role, tables = await _look(database.for_jobs, frozenset())
        if hidden := [table.name for table in tables if not table.is_open]:
            raise DatabaseRoleError(
                f"SAASBASE_DATABASE__JOBS_URL: the role {role.name} does not see every tenant's {', '.join(hidden)}:"
                " name a role for jobs, and run 'saasbase migrate --create-roles'"
            )
        _require_rights("SAASBASE_DATABASE__JOBS_URL", role, [*tables, *await _look_at_shared(database.for_jobs)])


def _require_rights(setting: str, role: Any, needed: list[Any]) -> None:
    if closed := [item.name for item in needed if not item.is_granted]:
        raise DatabaseRoleError(
            f"{setting}: the role {role.name} has no right to use {', '.join(closed)}: run 'saasbase migrate --create-roles'"
        )


def _require_confined(role: Any, tables: list[Any]) -> None:
    who = f"SAASBASE_DB_URL: the role {role.name}"
    if role.rolsuper:
        raise DatabaseRoleError(f"{who} is a superuser, for whom row-level security does not hold: name another")
    if role.rolbypassrls:
        raise DatabaseRoleError(f"{who} has BYPASSRLS, so row-level security does not hold for it: name another")
    if any(table.is_owned for table in tables):
        raise DatabaseRoleError(f"{who} owns the tables, or is a member of the role that does, and could switch row-level security off")
    found = {table.name for table in tables if table.is_protected}
    if bare := sorted(tenant_tables().keys() - found):
        raise DatabaseRoleError(f"row-level security is not forced on {', '.join(bare)}: run 'saasbase migrate'")
    if opened := [table.name for table in tables if table.is_open]:
        raise DatabaseRoleError(f"{who} sees every tenant's {', '.join(opened)}: a policy other than the service's own lets it")


async def _look(database: Database, read_only: frozenset[str]) -> tuple[Any, list[Any]]:
    async with database.open_read() as connection:
        role = (await connection.execute(_ROLE)).one()
        return role, list((await connection.execute(_TABLES, {"names": sorted(tenant_tables()), "read_only": sorted(read_only)})).all())


async def _look_at_shared(database: Database) -> list[Any]:
    async with database.open_read() as connection:
        return list((await connection.execute(_SHARED, {"names": list(_SHARED_RIGHTS)})).all())


async def create_roles(owner: Database, served: Database) -> list[str]:
    """Make the roles that serve where they are absent, and give them what they need. To do again after each migration.

    A role that exists keeps its password; the settings of its sessions, which a connection through a pooler cannot say, become those of
    ``served``. All in one transaction, as the role that owns the tables; returns the names of new roles.

    Raises:
        DatabaseRoleError: a URL names no role, the owner, or the role of the other URL; or a new role's password is not ASCII.
    """
    if owner.is_sqlite:
        raise DatabaseRoleError("SQLite has no roles")
    new = []
    app, jobs = served.url, served.for_jobs.url if served.for_jobs is not served else None
    async with owner.writer.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        migrator = (await connection.execute(_ROLE)).one().name
        for setting, url in (("SAASBASE_DB_URL", app), ("SAASBASE_DATABASE__JOBS_URL", jobs)):
            if url is None:
                continue
            taken = {migrator} if url is app else {migrator, app.username}
            if not url.username or url.username in taken:
                raise DatabaseRoleError(f"{setting} must name a role of its own; the tables are SAASBASE_DATABASE__MIGRATION_URL's")
            if await _create(connection, setting, url):
                new.append(url.username)
            await _grant(connection, url.username, is_for_jobs=url is jobs)
            await _keep(connection, url.username, session_settings(served.limits))
    return new


async def _create(connection: AsyncConnection, setting: str, url: URL) -> bool:
    exists = await connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": url.username})
    if exists.one_or_none() is not None:
        return False
    statement = f"CREATE ROLE {_quoted(connection, str(url.username))} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE"
    if url.password:
        if not url.password.isascii():
            raise DatabaseRoleError(f"{setting}: a password made here must be ASCII; create the role yourself to have another")
        statement += f" PASSWORD '{scram_verifier(url.password, os.urandom(16))}'"
    await connection.exec_driver_sql(statement)
    return True


async def _grant(connection: AsyncConnection, name: str, *, is_for_jobs: bool) -> None:
    role = _quoted(connection, name)
    tables = (await connection.execute(_TABLES, {"names": sorted(tenant_tables()), "read_only": []})).all()
    if is_for_jobs:
        for table in [table.name for table in tables if not await _has_policy(connection, table.name, name)]:
            await connection.exec_driver_sql(f"DROP POLICY IF EXISTS jobs ON {table}")
            await connection.exec_driver_sql(f"CREATE POLICY jobs ON {table} TO {role} USING (true) WITH CHECK (true)")
    database = (await connection.execute(text("SELECT quote_ident(current_database()), quote_ident(current_schema())"))).one()
    await connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {database[0]} TO {role}")
    await connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {database[1]} TO {role}")
    await connection.exec_driver_sql(f"GRANT SELECT ON alembic_version TO {role}")
    for statement in _table_grants([*(table.name for table in tables), *_SHARED_RIGHTS], role, is_for_jobs=is_for_jobs):
        await connection.exec_driver_sql(statement)
    if not is_for_jobs:  # who sees every row need not ask whose it is
        for function in (await connection.execute(_FUNCTIONS)).scalars().all():
            await connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {function} TO {role}")


async def _keep(connection: AsyncConnection, name: str, settings: Mapping[str, str]) -> None:
    kept = set((await connection.execute(_KEPT, {"name": name})).scalars())
    missing = {setting: value for setting, value in settings.items() if f"{setting}={value}" not in kept}
    if not missing:
        return
    database = (await connection.execute(text("SELECT quote_ident(current_database())"))).scalar_one()
    try:
        async with connection.begin_nested():
            for setting, value in missing.items():
                statement = f"ALTER ROLE {_quoted(connection, name)} IN DATABASE {database} SET {setting} = '{value}'"
                await connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _MAY_NOT:
            raise
        _log.warning(
            "the role %s, which this one may not alter, keeps its own %s: that matters behind PgBouncer only", name, ", ".join(missing)
        )


def _table_grants(tables: list[str], role: str, *, is_for_jobs: bool) -> Iterator[str]:
    for table in tables:
        granted = _SHARED_RIGHTS.get(table) or (_RIGHTS if is_for_jobs else _RIGHTS_ON.get(table, _RIGHTS))
        yield f"GRANT {', '.join(granted)} ON {table} TO {role}"
        if withheld := _RIGHTS[len(granted) :]:
            yield f"REVOKE {', '.join(withheld)}, TRUNCATE ON {table} FROM {role}"


async def _has_policy(connection: AsyncConnection, table: str, role: str) -> bool:
    found = await connection.execute(
        text(
            "SELECT 1 FROM pg_policies WHERE schemaname = current_schema() AND tablename = :t AND policyname = 'jobs' AND :r = ANY(roles)"
        ),
        {"t": table, "r": role},
    )
    return found.one_or_none() is not None


def _quoted(connection: AsyncConnection, name: str) -> str:
    preparer: IdentifierPreparer = connection.dialect.identifier_preparer
    return preparer.quote_identifier(name)


def scram_verifier(password: str, salt: bytes) -> str:
    """What PostgreSQL stores of an ASCII password (RFC 5803). Made here, so that the password is in no statement and in no log."""
    salted = pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    coded = [b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{coded[0]}${coded[1]}:{coded[2]}"
