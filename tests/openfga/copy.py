"""The copy in the store beside the rows it stands for, read past the service."""

import asyncio
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app.authz.openfga_client import OpenFGAClient
from app.authz.outbox import Outbox
from app.db.engine import Database
from tests.conftest import Service

Tuples = set[tuple[str, str, str, str | None]]


def client_of(service: Service) -> OpenFGAClient:
    outbox = outbox_of(service)
    return outbox._client


def outbox_of(service: Service) -> Outbox:
    outbox = service.runtime.context.outbox
    assert outbox is not None
    return outbox


async def stop_sender() -> None:
    """From here on nothing is sent but by hand."""
    (sender,) = [task for task in asyncio.all_tasks() if task.get_name() == "authorization outbox"]
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)


async def ask(database: Database, statement: str) -> list[Any]:
    async with database.for_jobs.open_read() as connection:
        return list((await connection.execute(text(statement))).all())


async def unsent(service: Service) -> int:
    """How many changes wait."""
    return int((await ask(service.runtime.context.database, "SELECT count(*) FROM authz_outbox"))[0][0])


async def send_all(service: Service) -> None:
    """Send what waits; another sender may be at it."""
    for _ in range(1200):
        await outbox_of(service).send()
        if not await unsent(service):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the outbox does not empty")


async def stored_tuples(service: Service) -> Tuples:
    found = [one async for one in client_of(service).read_all()]
    return {(one.key.user, one.key.relation, one.key.object, one.expires_at.isoformat() if one.expires_at else None) for one in found}


async def expected_tuples(service: Service) -> Tuples:
    """By rules written down a second time: ids here are plain, or encoded by hand."""
    database = service.runtime.context.database
    grants = await ask(
        database, "SELECT organization_id, actor_type, actor_id, role, resource_type, resource_id, expires_at FROM memberships"
    )
    members = await ask(
        database, "SELECT organization_id, member_type, member_id, 'member', 'GROUP', group_id, expires_at FROM group_members"
    )
    found: Tuples = set()
    for tenant, kind, name, relation, place, place_id, ends in [*grants, *members]:
        organization = UUID(str(tenant))
        holder = f"group:{organization}/{plain(name)}#member" if kind == "GROUP" else f"{kind.lower()}:{plain(name)}"
        target = f"group:{organization}/{plain(place_id)}" if place == "GROUP" else f"{place.lower()}:{UUID(str(place_id))}"
        if holder != f"{target}#member":
            found.add((holder, relation.lower(), target, _moment(ends)))
    return found


def plain(name: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-._~") else _escaped(letter) for letter in name)


def _escaped(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())


def _moment(ends: Any) -> str | None:
    if ends is None:
        return None
    return str(ends).replace(" ", "T").removesuffix("+00:00") + "+00:00"


def _without_fraction_zeros(tuples: Tuples) -> Tuples:
    """SQLite writes .000000, Python leaves it out."""
    return {(user, relation, target, ends.replace(".000000", "") if ends else None) for user, relation, target, ends in tuples}


async def assert_copy_is_true(service: Service) -> None:
    """No tuple is missing, none has another end, and none is too much but for what was deleted with its organization or project.

    Nothing asks for those again: their ids never come back, and SQL looks first.
    """
    await send_all(service)
    stored, expected = await stored_tuples(service), _without_fraction_zeros(await expected_tuples(service))
    assert expected - stored == set()
    database = service.runtime.context.database
    living = set()
    for kind in ("organization", "project", "document", "api_call"):
        living |= {f"{kind}:{UUID(str(row[0]))}" for row in await ask(database, f"SELECT id FROM {kind}s")}
    excess = {one for one in stored - expected if _place(one[2]) in living}
    assert excess == set()


def _place(target: str) -> str:
    """The resource of a tuple; of a group its organization."""
    kind, _, name = target.partition(":")
    return f"organization:{name.partition('/')[0]}" if kind == "group" else target
