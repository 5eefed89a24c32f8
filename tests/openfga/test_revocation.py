"""What is given counts at once, and what is taken away is gone at once: with a sender, without one, and at the very moment it ends."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Caller, Service
from tests.openfga.copy import ask, client_of, outbox_of, send_all, stop_sender, stored_tuples, unsent
from tests.resources.groups.test_api import member, new_group
from tests.resources.memberships.test_api import revoke
from tests.support.keys import change_key, key_of
from tests.support.moments import LAPSES, wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


@pytest.mark.parametrize("is_sent", [False, True], ids=["the sender stands still", "what was written down is sent"])
async def test_every_change_counts_from_the_next_request_on(service: Service, alice: Caller, org: str, *, is_sent: bool) -> None:
    await stop_sender()
    path = f"/organizations/{org}"

    async def settle() -> None:
        if is_sent:
            await send_all(service)
        assert (await unsent(service) == 0) is is_sent

    bob, carol = service.as_("user:bob"), service.as_("user:carol")
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER")
    await settle()
    await bob.get(path)
    await bob.patch(path, {"name": "taken"}, 403)
    await revoke(alice, 204, "ORGANIZATION", org, "user:bob", "ORG_MEMBER")
    await settle()
    await bob.get(path, 404)
    group = await new_group(alice, org, "devs", "user:carol")
    await alice.grant("ORGANIZATION", org, "group:devs", "ORG_ADMIN")
    await settle()
    await carol.patch(path, {"name": "changed"})
    await alice.delete(f"{group}/members", params=member("user:carol"))
    await settle()
    await carol.get(path, 404)
    key, described = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER")
    await settle()
    await key.get(path)
    await alice.post(f"/api-keys/{described['id']}/revoke", expect=200)
    await change_key(service, described["id"], revoked_at=None)  # so that the grant alone decides
    await settle()
    await key.get(path, 404)


async def test_requests_right_after_one_another_never_see_the_past(service: Service, alice: Caller, org: str) -> None:
    """With the sender running: whichever engine decides, it decides by what was answered last."""
    bob = service.as_("user:bob")
    for _ in range(15):
        await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER")
        await bob.get(f"/organizations/{org}", 200)
        await revoke(alice, 204, "ORGANIZATION", org, "user:bob", "ORG_MEMBER")
        await bob.get(f"/organizations/{org}", 404)


async def test_the_store_decides_once_everything_is_sent(service: Service, alice: Caller, org: str) -> None:
    """Else all of this would show SQL only."""
    await send_all(service)
    (owner,) = [one async for one in client_of(service).read_all()]
    await client_of(service).delete([owner.key])
    await alice.get(f"/organizations/{org}", 404)
    await client_of(service).write([owner])
    await alice.get(f"/organizations/{org}")


async def test_a_grant_and_a_membership_end_at_their_moment(service: Service, alice: Caller, org: str) -> None:
    group = await new_group(alice, org, "devs")
    await alice.grant("ORGANIZATION", org, "group:devs", "ORG_MEMBER")
    callers = [service.as_("user:bob"), service.as_("user:carol")]
    for seconds in LAPSES:
        ends = datetime.now(UTC) + timedelta(seconds=seconds)
        await alice.grant("ORGANIZATION", org, "user:bob", "ORG_MEMBER", None, expires_at=ends.isoformat())
        await alice.post(f"{group}/members", member("user:carol", expires_at=ends.isoformat()), None)
        await send_all(service)
        seen = [(await caller.get(f"/organizations/{org}", None)).status_code for caller in callers]
        if datetime.now(UTC) < ends:
            break
    assert seen == [200, 200]
    await wait_for(ends)
    for caller in callers:
        await caller.get(f"/organizations/{org}", 404)


async def test_a_key_that_gets_another_end_keeps_one_tuple(service: Service, alice: Caller, org: str) -> None:
    key, described = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER")
    for days in (5, 3, None):
        end = (datetime.now(UTC) + timedelta(days=days)).isoformat() if days else None
        await alice.patch(f"/api-keys/{described['id']}", {"expires_at": end})
        await send_all(service)
        ends = [one[3] for one in await stored_tuples(service) if one[0] == f"api_key:{described['id']}"]
        assert [datetime.fromisoformat(found) if found else None for found in ends] == [datetime.fromisoformat(end) if end else None]
        await key.get(f"/organizations/{org}")


async def test_a_new_group_of_an_old_name_has_no_old_members(service: Service, alice: Caller, org: str) -> None:
    outer = await new_group(alice, org, "outer")
    await alice.grant("ORGANIZATION", org, "group:outer", "ORG_MEMBER")
    for _ in range(2):
        group = await new_group(alice, org, "devs", "user:bob")
        await alice.post(f"{outer}/members", member("group:devs"))
        await alice.grant("ORGANIZATION", org, "group:devs", "ORG_ADMIN")
        await send_all(service)
        await service.as_("user:bob").get(f"/organizations/{org}")
        await alice.delete(group)
        await send_all(service)
        assert not [one for one in await stored_tuples(service) if "devs" in one[0] + one[2]]
        await new_group(alice, org, "devs")
        await send_all(service)
        await service.as_("user:bob").get(f"/organizations/{org}", 404)
        await alice.delete(group)


@pytest.mark.parametrize("name", ["*", "a b", "a:b#c@d%e", "ü€𐀀" * 60, "x" * 250])
async def test_any_id_can_hold_and_lose_a_grant(service: Service, alice: Caller, org: str, name: str) -> None:
    somebody = service.as_("user:bob")
    somebody.headers["X-SaaSBase-Actor"] = f"user:{name}".encode()  # type: ignore[assignment] # as it is sent
    await alice.grant("ORGANIZATION", org, f"user:{name}", "ORG_MEMBER")
    await send_all(service)
    await somebody.get(f"/organizations/{org}")
    await service.as_("user:bob").get(f"/organizations/{org}", 404)
    await revoke(alice, 204, "ORGANIZATION", org, f"user:{name}", "ORG_MEMBER")
    await send_all(service)
    await somebody.get(f"/organizations/{org}", 404)


async def test_a_caller_that_is_a_group_has_what_the_group_has(service: Service, alice: Caller, org: str) -> None:
    outer = await new_group(alice, org, "outer")
    await new_group(alice, org, "inner")
    await alice.post(f"{outer}/members", member("group:inner"))
    await alice.grant("ORGANIZATION", org, "group:outer", "ORG_MEMBER")
    other = str((await alice.new_organization())["id"])
    await send_all(service)
    for name, expected in (("outer", 200), ("inner", 200), ("another", 404)):
        await service.as_(f"group:{name}").get(f"/organizations/{org}", expected)
        await service.as_(f"group:{name}").get(f"/organizations/{other}", 404)


async def test_groups_deeper_than_the_server_follows_are_decided_by_sql(service: Service, alice: Caller, org: str) -> None:
    inner = await new_group(alice, org, "g0", "user:bob")
    for number in range(1, 35):
        await new_group(alice, org, f"g{number}", f"group:g{number - 1}")
    await alice.grant("ORGANIZATION", org, "group:g34", "ORG_MEMBER")
    await send_all(service)
    bob = service.as_("user:bob")
    await bob.get(f"/organizations/{org}")
    await alice.delete(f"{inner}/members", params=member("user:bob"))
    await send_all(service)
    await bob.get(f"/organizations/{org}", 404)


async def test_twenty_at_once_end_as_the_rows_say(service: Service, alice: Caller, org: str) -> None:
    group = await new_group(alice, org, "devs")

    async def flicker(number: int) -> None:
        subject = f"user:u{number % 5}"
        for _ in range(3):
            await alice.grant("ORGANIZATION", org, subject, "ORG_MEMBER", expect=None)  # 201 or 409
            await alice.post(f"{group}/members", member(subject), None)
            await revoke(alice, None, "ORGANIZATION", org, subject, "ORG_MEMBER")
            if number % 2:
                await alice.delete(f"{group}/members", None, params=member(subject))

    await asyncio.gather(*(flicker(number) for number in range(20)), *(outbox_of(service).send() for _ in range(10)))
    left: list[Any] = await ask(service.runtime.context.database, "SELECT member_id FROM group_members")
    assert len(left) <= 5  # that the store agrees is seen when the service ends
