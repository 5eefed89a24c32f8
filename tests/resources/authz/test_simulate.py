"""What-if questions at their limits; that their answers are right for any story is shown against the oracle."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from app.core.actors import Actor, ActorType
from app.core.resources import ResourceRef, ResourceType
from tests.conftest import Caller, Service
from tests.support import rows
from tests.support.answers import count_rows, pointers_of, read_problem
from tests.support.keys import key_of
from tests.support.rows import Place

pytestmark = pytest.mark.anyio

SAME = {"X-Request-ID": "the-same"}


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


@pytest.fixture
async def project(alice: Caller, org: str) -> str:
    return str((await alice.new_project(org))["id"])


def change(where: str, subject: str, role: str = "PROJECT_VIEWER", kind: str = "PROJECT") -> dict[str, str]:
    actor_type, _, actor_id = subject.partition(":")
    return {"resource_type": kind, "resource_id": where, "actor_type": actor_type.upper(), "actor_id": actor_id, "role": role}


def check(where: str, subject: str, action: str = "PROJECT_READ", kind: str = "PROJECT") -> dict[str, str]:
    asked = change(where, subject, kind=kind)
    del asked["role"]
    return {**asked, "action": action}


async def simulate(caller: Caller, **body: Any) -> Any:
    return (await caller.post("/authz/simulate", body, 200)).json()


async def test_fifty_of_each_are_answered_and_51_are_too_many(service: Service, alice: Caller, project: str) -> None:
    for number in range(50):
        await alice.grant("PROJECT", project, f"user:old{number}", "PROJECT_VIEWER")
    rows_before = [await count_rows(service, table) for table in ("memberships", "audit_events")]
    grants = [change(project, f"user:new{number}") for number in range(50)]
    revocations = [change(project, f"user:old{number}") for number in range(50)]
    checks = [check(project, f"user:{'new' if number % 2 else 'old'}{number}") for number in range(50)]
    told = await simulate(alice, grants=grants, revocations=revocations, checks=checks)
    assert [(one["before"], one["after"]) for one in told["checks"]] == [(True, False), (False, True)] * 25
    assert [one["actor"]["id"] for one in told["checks"]] == [one["actor_id"] for one in checks]
    assert len(told["effects"]) == 100
    assert all(bool(effect["gained"]) != bool(effect["lost"]) for effect in told["effects"])
    assert told["is_complete"] is True
    for name, many in (("grants", grants), ("revocations", revocations), ("checks", checks)):
        assert pointers_of(await alice.post("/authz/simulate", {name: [*many, many[0]]}, 422)) == [f"/{name}"]
    assert [await count_rows(service, table) for table in ("memberships", "audit_events")] == rows_before
    assert (await alice.post("/authz/check", check(project, "user:new1"), 200)).json() == {"allowed": False}
    assert await simulate(alice) == {"checks": [], "effects": [], "is_complete": True}


async def test_the_same_change_twice_is_one_and_what_is_taken_and_given_is_held(alice: Caller, project: str) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_VIEWER")
    new, old, idle = change(project, "user:carol"), change(project, "user:bob"), change(project, "user:nobody")
    told = await simulate(alice, grants=[new, new], revocations=[old, old, idle])
    assert [(effect["actor"]["id"], bool(effect["gained"])) for effect in told["effects"]] == [("bob", False), ("carol", True)]
    both = await simulate(
        alice, grants=[new, old], revocations=[new, old], checks=[check(project, "user:bob"), check(project, "user:carol")]
    )
    assert [effect["actor"]["id"] for effect in both["effects"]] == ["carol"]
    assert [(one["before"], one["after"]) for one in both["checks"]] == [(True, True), (False, True)]


async def test_what_is_held_another_way_is_not_lost(alice: Caller, org: str, project: str) -> None:
    await alice.post(f"/organizations/{org}/groups", {"group_id": "team"})
    await alice.post(f"/organizations/{org}/groups/team/members", {"member_type": "USER", "member_id": "bob"})
    for subject in ("user:bob", "group:team"):
        await alice.grant("PROJECT", project, subject, "PROJECT_VIEWER")
    for taken, losers in (
        (["user:bob"], []),
        (["group:team"], ["team"]),
        (["user:bob", "group:team"], ["team", "bob"]),
    ):
        told = await simulate(alice, revocations=[change(project, subject) for subject in taken])
        assert [effect["actor"]["id"] for effect in told["effects"]] == losers


async def test_more_than_a_thousand_concerned_are_not_all_told(service: Service, alice: Caller, org: str, project: str) -> None:
    home = Place(ResourceRef(ResourceType.ORGANIZATION, UUID(org)), UUID(org))
    told = rows.group(home, "many")
    for number in range(1000):
        told += rows.member(home, "many", Actor(ActorType.USER, f"m{number:04}"))
    await rows.write(service.runtime.context.database, told)
    body: dict[str, Any] = {"grants": [change(project, "group:many")], "checks": [check(project, "user:m0999")]}
    answer = await simulate(alice, **body)
    assert (len(answer["effects"]), answer["is_complete"]) == (1000, False)
    assert answer["checks"][0]["after"] is True  # what is asked is answered all the same
    await alice.delete(f"/organizations/{org}/groups/many/members", params={"member_type": "USER", "member_id": "m0000"})
    answer = await simulate(alice, **body)
    assert (len(answer["effects"]), answer["is_complete"]) == (1000, True)


async def test_a_role_that_does_not_fit_is_named(alice: Caller, org: str, project: str) -> None:
    for name in ("grants", "revocations"):
        wrong = {name: [change(project, "user:bob"), change(project, "user:bob", "ORG_MEMBER")]}
        assert pointers_of(await alice.post("/authz/simulate", wrong, 422)) == [f"/{name}/1/role"]
    assert pointers_of(await alice.post("/authz/simulate", {"grants": [change("x", "user:bob")]}, 422)) == ["/grants/0/resource_id"]
    assert pointers_of(await alice.post("/authz/simulate", {"grants": [change(project, "user:bob", kind="KEY")]}, 422)) == [
        "/grants/0/resource_type"
    ]
    await simulate(alice, grants=[change(org, "user:bob", "PROJECT_EDITOR", "ORGANIZATION")])


async def test_what_one_does_not_manage_is_answered_like_what_is_absent(
    alice: Caller, bob: Caller, mallory: Caller, org: str, project: str
) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_EDITOR")
    await alice.grant("PROJECT", project, "user:carol", "PROJECT_OWNER")
    absent = str(uuid4())
    for caller in (bob, mallory):
        answers = []
        for where in (project, absent):
            for body in (
                {"grants": [change(where, "user:x")]},
                {"revocations": [change(where, "user:x")]},
                {"checks": [check(where, "user:x")]},
            ):
                refused = await caller.post("/authz/simulate", body, 404, headers=SAME)
                read_problem(refused, 404, "not_found")
                answers.append((refused.content, sorted(refused.headers.multi_items())))
        assert all(answer == answers[0] for answer in answers)
    mixed = {"grants": [change(project, "user:x"), change(org, "user:x", kind="ORGANIZATION")]}
    carol = Caller(alice.client, {"X-SaaSBase-Actor": "user:carol"})
    await carol.post("/authz/simulate", mixed, 404)
    await carol.post("/authz/simulate", {"grants": mixed["grants"][:1]}, 200)


async def test_what_the_caller_itself_would_be_told_is_within_its_own_limits(service: Service, alice: Caller, project: str) -> None:
    """The what-if of a narrow key about itself is what its requests would get, not what its role would."""
    narrow, key = await key_of(service, alice, "PROJECT", project, "PROJECT_OWNER", actions=["PROJECT_READ", "MEMBER_MANAGE"])
    itself = f"api_key:{key['id']}"
    actions = ("PROJECT_READ", "PROJECT_UPDATE", "MEMBER_MANAGE")
    for caller in (narrow, alice):
        told = await simulate(
            caller,
            revocations=[change(project, itself, "PROJECT_OWNER")],
            checks=[check(project, itself, action) for action in actions],
        )
        assert [(one["before"], one["after"]) for one in told["checks"]] == [(True, False), (False, False), (True, False)]
        assert [effect["lost"] for effect in told["effects"]] == [["MEMBER_MANAGE", "PROJECT_READ"]]
    for_bob = {"X-SaaSBase-On-Behalf-Of": "user:bob"}
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_OWNER")
    told = await simulate(
        Caller(alice.client, {**alice.headers, **for_bob}),
        revocations=[change(project, "user:bob", "PROJECT_OWNER")],
        checks=[check(project, "user:alice"), check(project, "user:bob")],
    )
    assert [(one["before"], one["after"]) for one in told["checks"]] == [(True, False), (True, False)]
