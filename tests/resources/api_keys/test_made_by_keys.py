"""Keys that keys make: never more than their maker, never longer, and they die with it."""

from datetime import datetime
from typing import Any

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import at_once, events_of, read_problem
from tests.support.keys import after, end_of_grant, key_of, make_key, shows

pytestmark = pytest.mark.anyio


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


def wanted(org: str, role: str = "ORG_MEMBER", **body: Any) -> dict[str, Any]:
    return {"name": "child", "scope_type": "ORGANIZATION", "scope_id": org, "role": role, **body}


async def family_of(service: Service, alice: Caller, org: str, **body: Any) -> list[tuple[Caller, dict[str, Any]]]:
    """A key, the key it made, and the key that one made."""
    family = [await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN", **body)]
    for _ in range(2):
        family.append(await key_of(service, family[-1][0], "ORGANIZATION", org, "ORG_ADMIN", **body))
    return family


async def test_a_key_makes_no_key_for_more_than_it_holds(service: Service, alice: Caller, org: str) -> None:
    admin, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN")
    read_problem(await admin.post("/api-keys", wanted(org, "ORG_OWNER"), 403), 403, "escalation")
    made = (await admin.post("/api-keys", wanted(org, "ORG_ADMIN"), 201)).json()["api_key"]
    assert made["created_by_subject"] == f"api_key:{key['id']}"
    member, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_MEMBER")
    await member.post("/api-keys", wanted(org), 403)


async def test_a_narrowed_key_makes_no_key_that_is_wider(service: Service, alice: Caller, org: str) -> None:
    narrow, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_OWNER", actions=["MEMBER_MANAGE", "ORGANIZATION_READ"])
    for role in ("ORG_MEMBER", "ORG_ADMIN", "ORG_OWNER"):
        read_problem(await narrow.post("/api-keys", wanted(org, role), 403), 403, "escalation")
        await narrow.grant("ORGANIZATION", org, "user:mallory", role, 403)


async def test_a_key_makes_no_key_that_outlives_it(service: Service, alice: Caller, org: str) -> None:
    end = after(days=2)
    maker, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN", expires_at=end)
    for body in ({}, {"expires_at": None}, {"expires_at": after(days=3)}):
        read_problem(await maker.post("/api-keys", wanted(org, **body), 403), 403, "escalation")
    for until in (end, after(days=1)):
        await maker.post("/api-keys", wanted(org, expires_at=until), 201)


async def test_a_key_makes_no_key_that_works_from_elsewhere(service: Service, alice: Caller, org: str) -> None:
    made = await make_key(alice, "ORGANIZATION", org, "ORG_ADMIN", allowed_cidrs=["10.0.0.0/8"])
    maker = shows(service, made["token"], **{"X-Forwarded-For": "10.1.1.1"})
    for networks in (None, ["0.0.0.0/0"], ["10.0.0.0/7"], ["10.1.0.0/16", "192.0.2.0/24"], ["::/0"]):
        read_problem(await maker.post("/api-keys", wanted(org, allowed_cidrs=networks), 403), 403, "escalation")
    await maker.post("/api-keys", wanted(org, allowed_cidrs=["10.1.0.0/16", "10.0.0.0/8"]), 201)


async def test_narrower_networks_hold_for_all_it_made(service: Service, alice: Caller, org: str) -> None:
    maker, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN")
    expected: list[tuple[list[str] | None, list[str] | None]] = [
        (None, ["10.0.0.0/8", "2001:db8::/32"]),
        (["0.0.0.0/0"], ["10.0.0.0/8"]),
        (["10.1.0.0/16", "192.0.2.0/24", "2001::/16"], ["10.1.0.0/16", "2001:db8::/32"]),
        (["10.2.0.0/16"], ["10.2.0.0/16"]),
        (["192.0.2.0/24"], None),
    ]
    made = [(await maker.post("/api-keys", wanted(org, allowed_cidrs=networks), 201)).json()["api_key"]["id"] for networks, _ in expected]
    await alice.patch(f"/api-keys/{key['id']}", {"allowed_cidrs": ["10.0.0.0/8", "2001:db8::/32"]})
    told = [event["details"] for event in await events_of(alice, organization_id=org, action="API_KEY_UPDATED")]
    changes = {details["api_key_id"]: (details["before"]["allowed_cidrs"], details["after"]["allowed_cidrs"]) for details in told}
    assert changes == {key["id"]: (None, expected[0][1]), **dict(zip(made[:3], expected[:3], strict=True))}
    for made_id, (networks, left) in zip(made, expected, strict=True):
        now = (await alice.get(f"/api-keys/{made_id}")).json()
        assert (now["allowed_cidrs"], now["is_active"]) == (left or networks, left is not None)


async def test_revoking_or_deleting_a_key_ends_all_it_made(service: Service, alice: Caller, org: str) -> None:
    for is_deleted in (False, True):
        family = await family_of(service, alice, org)
        other, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN")
        top = family[0][1]["id"]
        await (alice.delete(f"/api-keys/{top}") if is_deleted else alice.post(f"/api-keys/{top}/revoke", expect=200))
        for bearer, _ in family:
            await bearer.get(f"/organizations/{org}", 401)
        await other.get(f"/organizations/{org}")
        ids = {key["id"] for _, key in family}
        for action in ("API_KEY_REVOKED", "MEMBERSHIP_REVOKED"):
            told = [event["details"]["api_key_id"] for event in await events_of(alice, organization_id=org, action=action)]
            assert sorted(one for one in told if one in ids) == sorted(ids)
        assert [(await alice.get(f"/api-keys/{key['id']}")).json()["is_active"] for _, key in family[1:]] == [False, False]


async def test_a_child_ends_without_its_parent(service: Service, alice: Caller, org: str) -> None:
    (top, _), (middle, key), (low, _) = await family_of(service, alice, org)
    await alice.post(f"/api-keys/{key['id']}/revoke", expect=200)
    await top.get(f"/organizations/{org}")
    for bearer in (middle, low):
        await bearer.get(f"/organizations/{org}", 401)


async def test_an_earlier_end_of_a_key_is_the_end_of_all_it_made(service: Service, alice: Caller, org: str) -> None:
    (_, top), (_, middle), (_, low) = await family_of(service, alice, org)
    soon, sooner = after(days=5), after(days=1)
    tag = (await alice.get(f"/api-keys/{middle['id']}")).headers["etag"]
    await alice.patch(f"/api-keys/{low['id']}", {"expires_at": sooner})
    await alice.patch(f"/api-keys/{top['id']}", {"expires_at": soon})
    for key, end in ((top, soon), (middle, soon), (low, sooner)):
        shown = (await alice.get(f"/api-keys/{key['id']}")).json()["expires_at"]
        assert datetime.fromisoformat(shown) == datetime.fromisoformat(end) == await end_of_grant(service, key["id"])
    assert (await alice.get(f"/api-keys/{middle['id']}")).headers["etag"] != tag
    told = [event["details"]["api_key_id"] for event in await events_of(alice, organization_id=org, action="API_KEY_UPDATED")]
    assert sorted(told) == sorted([low["id"], middle["id"], top["id"]])


async def test_a_later_end_of_a_key_lengthens_no_key_it_made(service: Service, alice: Caller, org: str) -> None:
    (_, top), (_, middle), (low_bearer, low) = await family_of(service, alice, org, expires_at=after(days=1))
    for end in (after(days=2), None):
        await alice.patch(f"/api-keys/{top['id']}", {"expires_at": end})
        for key in (middle, low):
            assert (await alice.get(f"/api-keys/{key['id']}")).json()["expires_at"] == key["expires_at"]
            assert await end_of_grant(service, key["id"]) == datetime.fromisoformat(key["expires_at"])
    await low_bearer.get(f"/organizations/{org}")


async def test_a_child_is_lengthened_up_to_the_end_of_its_maker_by_a_person_only(service: Service, alice: Caller, org: str) -> None:
    end = after(days=9)
    maker, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN", expires_at=end)
    _, child = await key_of(service, maker, "ORGANIZATION", org, "ORG_MEMBER", expires_at=after(days=1))
    for later in (None, after(days=10)):
        read_problem(await alice.patch(f"/api-keys/{child['id']}", {"expires_at": later}, 403), 403, "escalation")
    read_problem(await maker.patch(f"/api-keys/{child['id']}", {"expires_at": end}, 403), 403, "escalation")
    await alice.patch(f"/api-keys/{child['id']}", {"expires_at": end})
    await maker.patch(f"/api-keys/{child['id']}", {"expires_at": after(hours=1)})


async def test_a_key_gives_neither_itself_nor_another_more_time_or_networks(service: Service, alice: Caller, org: str) -> None:
    body = {"expires_at": after(days=1), "allowed_cidrs": ["10.0.0.0/8"]}
    made = await make_key(alice, "ORGANIZATION", org, "ORG_ADMIN", **body)
    other = (await make_key(alice, "ORGANIZATION", org, "ORG_ADMIN", **body))["api_key"]
    bearer = shows(service, made["token"], **{"X-Forwarded-For": "10.0.0.1"})
    for key in (made["api_key"], other):
        for wider in ({"expires_at": None}, {"expires_at": after(days=2)}, {"allowed_cidrs": None}, {"allowed_cidrs": ["10.0.0.0/7"]}):
            read_problem(await bearer.patch(f"/api-keys/{key['id']}", wider, 403), 403, "escalation")
        await bearer.patch(f"/api-keys/{key['id']}", {"name": "new", "allowed_cidrs": ["10.0.0.0/16"], "expires_at": after(hours=1)})


async def test_a_key_gets_no_secret_of_a_key_that_would_not_die_with_it(service: Service, alice: Caller, org: str) -> None:
    stranger = (await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER"))["api_key"]
    (_, top), (middle, mine), (_, low) = await family_of(service, alice, org)
    for key in (stranger, top):
        read_problem(await middle.post(f"/api-keys/{key['id']}/rotate", {}, 403), 403, "escalation")
    for key in (mine, low):
        await middle.post(f"/api-keys/{key['id']}/rotate", {}, 200)


async def test_a_key_that_is_being_revoked_leaves_no_child_behind(service: Service, alice: Caller, org: str) -> None:
    for _ in range(3):
        bearer, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN")
        mints = [bearer.post("/api-keys", wanted(org), None) for _ in range(6)]
        answers = await at_once(*mints[:3], alice.post(f"/api-keys/{key['id']}/revoke", expect=200), *mints[3:])
        made = [answer.json() for answer in answers if answer.status_code == 201]
        assert {answer.status_code for answer in answers} <= {200, 201, 401, 404, 403}
        for child in made:
            await shows(service, child["token"]).get(f"/organizations/{org}", 401)
    assert [one for one in (await alice.get("/api-keys", params={"organization_id": org})).json() if one["is_active"]] == []


async def test_rotations_at_the_same_time_leave_two_live_secrets(service: Service, alice: Caller, org: str) -> None:
    made = await make_key(alice, "ORGANIZATION", org, "ORG_MEMBER")
    answers = await at_once(*(alice.post(f"/api-keys/{made['api_key']['id']}/rotate", {}, 200) for _ in range(6)))
    tokens = [made["token"], *(answer.json()["token"] for answer in answers)]
    shown = [(await shows(service, token).get(f"/organizations/{org}", None)).status_code for token in tokens]
    assert (shown.count(200), shown.count(401)) == (2, 5)
    again = (await alice.post(f"/api-keys/{made['api_key']['id']}/rotate", {"overlap_seconds": 0}, 200)).json()
    shown = [(await shows(service, token).get(f"/organizations/{org}", None)).status_code for token in [*tokens, again["token"]]]
    assert shown.count(200) == 1
