"""The store in OpenFGA made, and compared with the database: what is missing is written, what is too much is deleted."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from sqlalchemy import Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.authz.model import is_same_model, make_model
from app.authz.openfga_client import OpenFGAClient
from app.authz.openfga_terms import MAX_WRITES
from app.authz.outbox import DELETE, WRITE, Outbox, unsent_rows
from app.authz.tree import KEYS
from app.authz.tuples import GROUP, TUPLE_OF, RelationshipTuple, TupleKey
from app.core.resources import ResourceType
from app.db.engine import Database
from app.models import Organization, UnsentTuple

_UNSENT: Final = cast("Table", UnsentTuple.__table__)
_ORGANIZATIONS: Final = cast("Table", Organization.__table__)
_BATCH: Final = 500


class _Held(NamedTuple):
    organization_id: UUID
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How many tuples were compared and differed, and how many changes still wait to be sent."""

    compared: int
    missing: int
    excess: int
    different: int
    unsent: int


async def set_up(client: OpenFGAClient, name: str) -> tuple[str, str]:
    """Make the store, unless the client has one or there is one of that name, and the model, unless the newest says the same.

    Returns the ids of both.

    Raises:
        OpenFGAError: the server does not answer, or refuses.
    """
    client.store_id = client.store_id or await client.find_store(name) or await client.add_store(name)
    found, wanted = await client.find_model(), make_model()
    if found is not None and is_same_model(found, wanted):
        return client.store_id, str(found["id"])
    return client.store_id, await client.add_model(wanted)


async def reconcile(database: Database, client: OpenFGAClient, outbox: Outbox, *, is_dry_run: bool) -> Reconciliation:
    """Bring the store to what the database holds; safe while the service runs.

    Repairs go through the outbox, in a transaction that sees every change of the organization, so no repair undoes a change
    made meanwhile. Holds all tuples in memory.

    Raises:
        OpenFGAError: the server does not answer, or refuses.
    """
    database = database.for_jobs
    if not is_dry_run:
        await outbox.send()
    stored = {one.key: one.expires_at async for one in client.read_all()}
    async with database.open_read() as connection:  # after the store: what it holds and nothing stands for will never come back
        on_their_way = {TupleKey(*row) for row in await connection.execute(_unsent_keys())}
        rows = await _tuples_of(connection)
        excess = [key for key in stored.keys() - rows.keys() if key not in on_their_way]
        tenants = await _tenants_of(connection, excess)
    missing = [key for key in rows.keys() - stored.keys() if key not in on_their_way]
    different = [key for key in rows.keys() & stored.keys() if rows[key].expires_at != stored[key] and key not in on_their_way]
    if not is_dry_run:
        suspects: dict[UUID, list[TupleKey]] = {}
        for key in chain(missing, different, excess):
            if (tenant := rows[key].organization_id if key in rows else tenants.get(key)) is not None:
                suspects.setdefault(tenant, []).append(key)
        for tenant, keys in suspects.items():
            await _repair(database, tenant, keys)
        await _delete(client, [key for key in excess if key not in tenants])
        await outbox.send()
    unsent = 0 if is_dry_run else await _count_unsent(database)
    return Reconciliation(len(stored.keys() | rows.keys()), len(missing), len(excess), len(different), unsent)


async def _repair(database: Database, organization_id: UUID, keys: list[TupleKey]) -> None:
    """Let the outbox say how each of the tuples is now.

    The lock waits for the changes that are under way: each refers to the organization.
    """
    async with database.writer.begin() as connection:
        locked = select(_ORGANIZATIONS.c.id).where(_ORGANIZATIONS.c.id == organization_id).with_for_update()
        if (await connection.execute(locked)).one_or_none() is None:
            return  # deleted at this moment: nothing will ask for its tuples again
        held = await _tuples_of(connection, organization_id)
        staying = [RelationshipTuple(key, held[key].expires_at) for key in keys if key in held]
        going = [RelationshipTuple(key) for key in keys if key not in held]
        await connection.execute(
            insert(_UNSENT), unsent_rows(organization_id, WRITE, staying) + unsent_rows(organization_id, DELETE, going)
        )


async def _delete(client: OpenFGAClient, keys: list[TupleKey]) -> None:
    """Delete what belongs to no organization any more."""
    for start in range(0, len(keys), MAX_WRITES):
        await client.delete(keys[start : start + MAX_WRITES])


async def _tuples_of(connection: AsyncConnection, organization_id: UUID | None = None) -> dict[TupleKey, _Held]:
    """Every tuple that a row stands for; those of one organization when it is given."""
    found = {}
    for model, read in TUPLE_OF.items():
        table = cast("Table", model.__table__)
        statement = select(table)
        if organization_id is not None:
            statement = statement.where(table.c.organization_id == organization_id)
        for row in (await connection.execute(statement)).mappings():
            one = read(cast("Any", row))
            if one is not None:
                found[one.key] = _Held(row["organization_id"], one.expires_at)
    return found


async def _tenants_of(connection: AsyncConnection, keys: Iterable[TupleKey]) -> dict[TupleKey, UUID]:
    """To which organization the object of each tuple belongs; those of none are left out."""
    places: dict[ResourceType, dict[UUID, list[TupleKey]]] = {}
    groups: dict[UUID, list[TupleKey]] = {}
    for key in keys:
        kind, _, name = key.object.partition(":")
        try:
            named = UUID(name.partition("/")[0])
            wanted = groups if kind == GROUP else places.setdefault(ResourceType(kind.upper()), {})
        except ValueError:
            continue  # nothing this service has written
        wanted.setdefault(named, []).append(key)
    found: dict[TupleKey, UUID] = {}
    for level, wanted in [(ResourceType.ORGANIZATION, groups), *places.items()]:
        table = cast("Table", KEYS[level].class_.__table__)
        tenant = table.c.id if level is ResourceType.ORGANIZATION else table.c.organization_id
        ids = list(wanted)
        for start in range(0, len(ids), _BATCH):
            for id_, tenant_id in await connection.execute(select(table.c.id, tenant).where(table.c.id.in_(ids[start : start + _BATCH]))):
                found |= dict.fromkeys(wanted[id_], tenant_id)
    return found


def _unsent_keys() -> Any:
    return select(_UNSENT.c.subject, _UNSENT.c.relation, _UNSENT.c.resource)


async def _count_unsent(database: Database) -> int:
    async with database.open_read() as connection:
        return int((await connection.execute(select(func.count()).select_from(_UNSENT))).scalar_one())
