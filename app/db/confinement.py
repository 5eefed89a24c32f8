"""Which tenants a transaction sees: told to PostgreSQL in the very message that begins it, and read there by row-level security.

A statement that is a transaction by itself tells them itself, see ``confined``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Self
from uuid import UUID

import asyncpg
from sqlalchemy import Connection, Uuid
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.pool import ConnectionPoolEntry

from app.db.silence import BoundedConnection

SETTING: Final = "saasbase.organizations"
OF_SUBJECTS: Final = "saasbase_tenants_of_subjects"


def lookup_name(table: str, column: str) -> str:
    """The database function that tells the tenant of a row by a unique column."""
    return f"saasbase_tenant_of_{table}_by_{column}"


@dataclass(frozen=True, slots=True)
class Tenants:
    """Tenants as an SQL expression with a place, ``{}``, for each of its values: so finding them costs no message of its own."""

    expression: str
    given: tuple[UUID | str, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """What stands in the places, as text."""
        return tuple(value.hex if isinstance(value, UUID) else value for value in self.given)

    @property
    def sql(self) -> str:
        """The expression with its values in it, which are hexadecimal digits there: for a message that takes no parameters."""
        return self.expression.format(*map(_quote, self.values))

    @classmethod
    def exactly(cls, organization_id: UUID) -> Self:
        """One tenant."""
        return cls(_EXACTLY, (organization_id,))

    @classmethod
    def of_row(cls, key: InstrumentedAttribute[Any], value: UUID | str) -> Self:
        """The tenant of the row whose unique ``key`` has this value; none when there is no such row."""
        return cls(_of_rows((key,)), (value,))

    @classmethod
    def of_rows(cls, keys: tuple[InstrumentedAttribute[Any], ...], values: tuple[UUID | str, ...]) -> Self:
        """The tenants of several rows, each by a unique key and its value; a row that does not exist adds none."""
        return cls(_of_rows(keys), values)

    @classmethod
    def of_subjects(cls, subjects: Sequence[tuple[str, str]], known: UUID | None = None) -> Self:
        """The tenants in which an actor, given by type and id, holds a grant or is in a group; and one that is known to concern him."""
        types, names = zip(*subjects, strict=True)
        last = () if known is None else (known,)
        return cls(_of_subjects(len(subjects), has_known=known is not None), (*types, *names, *last))


class ConfinableConnection(BoundedConnection):
    """A connection whose next transaction can be confined without a further round trip."""

    next_tenants: Tenants | None = None

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the driver's signature
        """Let the message that begins a transaction say for whom. PostgreSQL forgets it when the transaction ends."""
        if self.next_tenants is None or not query.startswith("BEGIN"):
            return await super().execute(query, *args, timeout=timeout)
        tenants, self.next_tenants = self.next_tenants, None
        try:
            return await super().execute(f"{query} SELECT set_config('{SETTING}', {tenants.sql}, true)", timeout=timeout)
        except asyncpg.PostgresError:
            self.terminate()  # it has begun and then failed: the driver would take what follows for a part of that transaction
            raise


def confined(select: str, places: int, tenants: Tenants) -> str:
    """A select of PostgreSQL's that tells the tenants itself. The values of these come after the ``places`` that it has already.

    They are told before anything of the select runs: it is joined to the answer of telling them (LATERAL). Were that ever otherwise, it
    would see nothing, for outside of the statement nothing is told.
    """
    values = (f"CAST(${place} AS text)" for place in range(places + 1, places + 1 + len(tenants.values)))
    return (
        f"SELECT seen.* FROM (SELECT set_config('{SETTING}', {tenants.expression.format(*values)}, true) OFFSET 0) AS told (tenants)"  # noqa: S608
        f" CROSS JOIN LATERAL (SELECT * FROM ({select}) AS inside WHERE told.tenants IS NOT NULL OFFSET 0) AS seen"
    )


def confine(connection: Connection, tenants: Tenants | None) -> None:
    """Say which tenants a transaction sees whose first statement is still to come. Without row-level security nobody listens."""
    driver = connection.connection.driver_connection
    if type(driver) is ConfinableConnection:  # to the driver's metaclass every connection is an instance
        driver.next_tenants = tenants


def forget(connection: Any, _entry: ConnectionPoolEntry) -> None:
    """Let nothing that was said to a connection, if there is one still, reach the next one who takes it from the pool."""
    if connection is not None:
        connection.driver_connection.next_tenants = None


_EXACTLY: Final = "CAST(ARRAY[CAST({} AS uuid)] AS text)"


@cache
def _of_rows(keys: tuple[InstrumentedAttribute[Any], ...]) -> str:
    return f"CAST(array_remove(ARRAY[{', '.join(map(_tenant_of, keys))}], NULL) AS text)"


@cache
def _of_subjects(count: int, *, has_known: bool) -> str:
    subjects = f"ARRAY[{', '.join(['{}'] * count)}]"
    found = f"{OF_SUBJECTS}({subjects}, {subjects})"
    return f"CAST({f'array_append({found}, CAST({{}} AS uuid))' if has_known else found} AS text)"


def _tenant_of(key: InstrumentedAttribute[Any]) -> str:
    model: Any = key.class_
    if key.key == model.tenant_column().key:
        return "CAST({} AS uuid)"
    return f"{lookup_name(model.__tablename__, key.key)}(CAST({{}} AS {'uuid' if isinstance(key.type, Uuid) else 'text'}))"


def _quote(text: str) -> str:
    # Six hexadecimal digits for each character. What convert_from(decode()) answers is no constant: each call would plan anew.
    return "U&'{}'".format("".join(f"\\+{ord(character):06X}" for character in text))
