"""Which tenants a transaction sees: told to PostgreSQL in the very message that begins it, and read there by row-level security."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

import asyncpg
from sqlalchemy import Connection
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
    """Tenants as an SQL expression, so that finding them costs no message of its own. Values stand in it as hexadecimal digits only.

    It is written when it is asked for: without row-level security nobody does.
    """

    write: Callable[[], str]

    @property
    def sql(self) -> str:
        """The expression."""
        return self.write()

    @classmethod
    def exactly(cls, organization_id: UUID) -> Self:
        """One tenant."""
        return cls(lambda: f"'{{{organization_id.hex}}}'")

    @classmethod
    def of_row(cls, key: InstrumentedAttribute[Any], value: UUID | str) -> Self:
        """The tenant of the row whose unique ``key`` has this value; none when there is no such row."""
        if _is_tenant(key) and isinstance(value, UUID):
            return cls.exactly(value)
        return cls(lambda: f"format('{{%s}}', {_tenant_of(key, value)})")

    @classmethod
    def of_rows(cls, *rows: tuple[InstrumentedAttribute[Any], UUID | str]) -> Self:
        """The tenants of several rows, each by a unique key and its value; a row that does not exist adds none."""
        return cls(lambda: f"array_remove(ARRAY[{', '.join(_tenant_of(key, value) for key, value in rows)}], NULL)::text")

    @classmethod
    def of_subjects(cls, subjects: Sequence[tuple[str, str]], known: UUID | None = None) -> Self:
        """The tenants in which an actor, given by type and id, holds a grant or is in a group; and one that is known to concern him."""

        def write() -> str:
            types, names = zip(*subjects, strict=True)
            lists = (", ".join(map(_quote, values)) for values in (types, names))
            found = "{}({})".format(OF_SUBJECTS, ", ".join(f"ARRAY[{quoted}]" for quoted in lists))
            return f"{found}::text" if known is None else f"array_append({found}, '{known.hex}')::text"

        return cls(write)


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


def confine(connection: Connection, tenants: Tenants | None) -> None:
    """Say which tenants a transaction sees whose first statement is still to come. Without row-level security nobody listens."""
    confine_next(connection.connection.driver_connection, tenants)


def confine_next(driver: Any, tenants: Tenants | None) -> None:
    """The same to the driver's connection itself."""
    if type(driver) is ConfinableConnection:  # to the driver's metaclass every connection is an instance
        driver.next_tenants = tenants


def forget(connection: Any, _entry: ConnectionPoolEntry, _lent: Any) -> None:
    """Let nothing that was said to a connection reach the next one who takes it from the pool."""
    connection.driver_connection.next_tenants = None


def _is_tenant(key: InstrumentedAttribute[Any]) -> bool:
    model: Any = key.class_
    return bool(key.key == model.tenant_column().key)


def _tenant_of(key: InstrumentedAttribute[Any], value: UUID | str) -> str:
    given = f"'{value.hex}'" if isinstance(value, UUID) else _quote(value)
    model: Any = key.class_
    return f"{given}::uuid" if _is_tenant(key) else f"{lookup_name(model.__tablename__, key.key)}({given})"


def _quote(text: str) -> str:
    # Six hexadecimal digits for each character. What convert_from(decode()) answers is no constant: each call would plan anew.
    return "U&'{}'".format("".join(f"\\+{ord(character):06X}" for character in text))
