"""Row-level security as DDL: a migration that adds a tenant's table calls ``protect``.

What stands here is history, like the migrations that call it: a change would need a migration of its own.
"""

from collections.abc import Iterator
from typing import Final

from app.db.confinement import OF_SUBJECTS, SETTING, lookup_name

# The sub-select is evaluated once for a statement, not once for a row. After a transaction that used it the setting is '', not NULL.
_NAMED: Final = f"ANY ((SELECT nullif(current_setting('{SETTING}', true), ''))::uuid[])"


def protect(table: str, tenant_column: str = "organization_id") -> Iterator[str]:
    """Show rows of the table to transactions of their tenant only, and to the role that owns it, which is the one that migrates."""
    yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
    yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"
    yield f"CREATE POLICY tenant ON {table} USING ({tenant_column} = {_NAMED}) WITH CHECK ({tenant_column} = {_NAMED})"
    yield f"CREATE POLICY service ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)"


def unprotect(table: str) -> Iterator[str]:
    """The way back. A policy for jobs is not made by migrations, but may be there."""
    for policy in ("tenant", "service", "jobs"):
        yield f"DROP POLICY IF EXISTS {policy} ON {table}"
    yield f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"
    yield f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"


def tell_tenant_by(table: str, column: str, kind: str, schema: str) -> Iterator[str]:
    """Let whoever knows the unique key of a row learn its tenant, and nothing else: a request has to find out whom it concerns."""
    tenant = "id" if table == "organizations" else "organization_id"
    query = f"SELECT found.{tenant} FROM {table} AS found WHERE found.{column} = key"  # noqa: S608 - names come from migrations
    yield from _definer(f"{lookup_name(table, column)}(key {kind})", "uuid", query, schema)


def tell_tenants_of_subjects(schema: str) -> Iterator[str]:
    """Tell in which tenants an actor holds a grant or is in a group: ids, and nothing of what is there."""
    yield from _definer(
        f"{OF_SUBJECTS}(types text[], names text[])",
        "uuid[]",
        # OFFSET 0 keeps the planner from reading both tables: it takes the arrays for long ones, and each subject has an index entry.
        "SELECT coalesce(array_agg(DISTINCT found.organization_id), '{}') FROM unnest(types, names) AS subject (type, name)"
        " CROSS JOIN LATERAL (SELECT held.organization_id FROM memberships AS held"
        " WHERE held.actor_type = subject.type AND held.actor_id = subject.name"
        " UNION ALL SELECT inside.organization_id FROM group_members AS inside"
        " WHERE inside.member_type = subject.type AND inside.member_id = subject.name OFFSET 0) AS found",
        schema,
    )


def _definer(signature: str, answer: str, query: str, schema: str) -> Iterator[str]:
    """A function that runs as its owner. In PL/pgSQL, which keeps its plan; with a fixed path, so that nobody can put a table in front."""
    yield (
        f"CREATE OR REPLACE FUNCTION {signature} RETURNS {answer} LANGUAGE plpgsql STABLE SECURITY DEFINER"
        f" SET search_path = pg_catalog, {schema}, pg_temp AS $$ BEGIN RETURN ({query}); END $$"
    )
    yield f"REVOKE EXECUTE ON FUNCTION {signature} FROM PUBLIC"
