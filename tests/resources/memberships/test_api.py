"""Memberships over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.conftest import Caller, Service
from tests.support.answers import at_once, count_rows, denied_events_of, events_of, next_link_of, pointers_of, read_problem
from tests.support.keys import key_of
from tests.support.moments import made_for_a_moment, wait_for

pytestmark = pytest.mark.anyio

FIELDS = {"id", "actor", "role", "resource", "inherited", "granted_at", "granted_by_subject", "expires_at"}


def grant_of(resource_type: str, resource_id: str, subject: str, role: str) -> dict[str, Any]:
    """The five names of a grant."""
    kind, _, identifier = subject.partition(":")
    return {"resource_type": resource_type, "resource_id": resource_id, "actor_type": kind.upper(), "actor_id": identifier, "role": role}


async def revoke(caller: Caller, expect: int | None, *grant: str) -> httpx.Response:
    return await caller.delete("/memberships", expect, params=grant_of(*grant))


async def roles_on(caller: Caller, resource_type: str, resource_id: str, **options: Any) -> list[tuple[str, str, bool]]:
    query = {"resource_type": resource_type, "resource_id": resource_id, **options}
    return [(grant["actor"]["id"], grant["role"], grant["inherited"]) for grant in (await caller.get("/memberships", params=query)).json()]


async def test_a_grant_answers_what_was_given(alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    grant = (await alice.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")).json()
    assert set(grant) == FIELDS
    assert UUID(grant["id"]).version == 7
    assert grant["actor"] == {"type": "USER", "id": "bob"}
    assert grant["resource"] == {"type": "ORGANIZATION", "id": organization["id"]}
    assert (grant["role"], grant["inherited"], grant["expires_at"]) == ("ORG_MEMBER", False, None)
    assert grant["granted_by_subject"] == "user:alice"
    assert grant["granted_at"].endswith("Z")
    listed = (await alice.get("/memberships", params={"resource_type": "ORGANIZATION", "resource_id": organization["id"]})).json()
    assert listed[1] == grant
    assert (await bob.get(f"/organizations/{organization['id']}")).json() == organization


async def test_a_body_that_is_not_acceptable_is_refused_with_its_place(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    good = grant_of("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
    changes: list[tuple[dict[str, Any], str]] = [
        ({"resource_type": "organization"}, "/resource_type"),
        ({"resource_type": "EXECUTION"}, "/resource_type"),
        ({"resource_id": "x"}, "/resource_id"),
        ({"actor_type": "ROBOT"}, "/actor_type"),
        ({"actor_type": "API_KEY"}, "/actor_type"),
        ({"actor_id": ""}, "/actor_id"),
        ({"actor_id": "   "}, "/actor_id"),
        ({"actor_id": "a" * 257}, "/actor_id"),
        ({"actor_id": "a\u0000"}, "/actor_id"),
        ({"actor_id": 5}, "/actor_id"),
        ({"role": "OWNER"}, "/role"),
        ({"role": None}, "/role"),
        ({"expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "soon"}, "/expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "/expires_at"),
        ({"granted_by_subject": "user:root"}, "/granted_by_subject"),
        ({"inherited": True}, "/inherited"),
    ]
    for change, pointer in changes:
        assert pointers_of(await alice.post("/memberships", {**good, **change}, None)) == [pointer], change
    assert sorted(pointers_of(await alice.post("/memberships", {}, None))) == sorted(f"/{name}" for name in good)
    assert await count_rows(service, "memberships") == 1


async def test_a_role_fits_its_level_or_above(alice: Caller) -> None:
    organization = await alice.new_organization()
    project = await alice.new_project(organization["id"])
    document = await alice.new_document(project["id"])
    for level, resource, role in (
        ("PROJECT", project, "ORG_MEMBER"),
        ("PROJECT", project, "ORG_OWNER"),
        ("DOCUMENT", document, "PROJECT_VIEWER"),
        ("DOCUMENT", document, "API_CALL_VIEWER"),
    ):
        assert pointers_of(await alice.grant(level, resource["id"], "user:bob", role, 422)) == ["/role"]
    for level, resource, role in (
        ("ORGANIZATION", organization, "PROJECT_EDITOR"),
        ("ORGANIZATION", organization, "DOCUMENT_VIEWER"),
        ("PROJECT", project, "API_CALL_OWNER"),
        ("DOCUMENT", document, "DOCUMENT_EDITOR"),
    ):
        await alice.grant(level, resource["id"], "user:bob", role)


async def test_a_resource_that_is_absent_or_invisible_is_not_found(service: Service, alice: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization()
    for level in ("ORGANIZATION", "PROJECT", "DOCUMENT", "API_CALL"):
        role = "API_CALL_VIEWER" if level == "API_CALL" else "DOCUMENT_VIEWER"
        read_problem(await alice.grant(level, str(uuid4()), "user:bob", role, 404), 404, "not_found")
    target = ("ORGANIZATION", organization["id"])
    read_problem(await mallory.grant(*target, "user:mallory", "ORG_OWNER", 404), 404, "not_found")
    read_problem(await revoke(mallory, 404, *target, "user:alice", "ORG_OWNER"), 404, "not_found")
    query = {"resource_type": "ORGANIZATION", "resource_id": organization["id"]}
    read_problem(await mallory.get("/memberships", 404, params=query), 404, "not_found")
    read_problem(await service.as_(None).get("/memberships", 401, params=query), 401, "unauthenticated")
    assert await count_rows(service, "memberships") == 1


async def test_a_repeated_grant_is_a_conflict_also_at_once(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    body = grant_of("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
    answers = await at_once(*(alice.post("/memberships", body, None) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    for refused in (answer for answer in answers if answer.status_code == 409):
        read_problem(refused, 409, "already_granted")
    assert await count_rows(service, "memberships") == 2
    assert len(await events_of(alice, action="MEMBERSHIP_GRANTED")) == 2


async def test_a_grant_that_has_ended_is_given_anew_also_at_once(service: Service, alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    grant = ("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
    given, ends = await made_for_a_moment(lambda end: alice.grant(*grant, None, expires_at=end))
    old = given.json()
    await wait_for(ends)
    await bob.get(f"/organizations/{organization['id']}", 404)
    body = grant_of(*grant)
    answers = await at_once(*(alice.post("/memberships", body, None) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    new = next(answer.json() for answer in answers if answer.status_code == 201)
    assert new["expires_at"] is None
    assert new["id"] != old["id"]
    assert new["granted_at"] > old["granted_at"]
    await bob.get(f"/organizations/{organization['id']}")
    assert await roles_on(alice, "ORGANIZATION", organization["id"]) == [("alice", "ORG_OWNER", False), ("bob", "ORG_MEMBER", False)]
    assert len(await events_of(alice, action="MEMBERSHIP_GRANTED")) == 3


async def test_nobody_gives_or_takes_what_he_does_not_hold(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    target = ("ORGANIZATION", organization["id"])
    await alice.grant(*target, "user:admin", "ORG_ADMIN")
    admin = service.as_("user:admin")
    for role in ("ORG_OWNER", "PROJECT_OWNER", "DOCUMENT_OWNER", "API_CALL_OWNER"):
        for grantee in ("user:admin", "user:eve"):
            read_problem(await admin.grant(*target, grantee, role, 403), 403, "escalation")
    for role in ("ORG_ADMIN", "ORG_MEMBER", "PROJECT_EDITOR", "PROJECT_VIEWER"):
        await admin.grant(*target, "user:eve", role)
        await revoke(admin, 204, *target, "user:eve", role)
    read_problem(await revoke(admin, 403, *target, "user:alice", "ORG_OWNER"), 403, "escalation")
    assert await roles_on(alice, *target) == [("alice", "ORG_OWNER", False), ("admin", "ORG_ADMIN", False)]


async def test_managing_needs_the_right_of_the_level(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    project = await alice.new_project(organization["id"])
    document = await alice.new_document(project["id"])
    await alice.grant("ORGANIZATION", organization["id"], "user:admin", "ORG_ADMIN")
    await alice.grant("DOCUMENT", document["id"], "user:sharer", "DOCUMENT_OWNER")
    await alice.grant("PROJECT", project["id"], "user:viewer", "PROJECT_VIEWER")
    admin, sharer, viewer = (service.as_(f"user:{name}") for name in ("admin", "sharer", "viewer"))
    read_problem(await admin.grant("DOCUMENT", document["id"], "user:eve", "DOCUMENT_VIEWER", 403), 403, "forbidden")
    await sharer.grant("DOCUMENT", document["id"], "user:eve", "DOCUMENT_VIEWER")
    read_problem(await sharer.grant("PROJECT", project["id"], "user:eve", "DOCUMENT_VIEWER", 404), 404, "not_found")
    read_problem(await viewer.grant("PROJECT", project["id"], "user:eve", "PROJECT_VIEWER", 403), 403, "forbidden")
    read_problem(await viewer.get("/memberships", 403, params={"resource_type": "PROJECT", "resource_id": project["id"]}), 403, "forbidden")
    denied = await denied_events_of(service, alice)
    assert [(event["actor"]["id"], event["resource"]["type"], event["details"]["asked_action"]) for event in denied] == [
        ("admin", "DOCUMENT", "DOCUMENT_SHARE"),
        ("sharer", "PROJECT", "MEMBER_MANAGE"),
        ("viewer", "PROJECT", "MEMBER_MANAGE"),
    ]


async def test_a_revoked_role_is_gone_with_the_next_request(alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    grant = ("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
    await alice.grant(*grant)
    await bob.get(f"/organizations/{organization['id']}")
    await revoke(alice, 204, *grant)
    read_problem(await bob.get(f"/organizations/{organization['id']}", 404), 404, "not_found")
    assert (await bob.get("/organizations")).json()["total_items"] == 0
    await alice.grant(*grant)
    await bob.get(f"/organizations/{organization['id']}")


async def test_revoking_what_is_not_held_succeeds_and_records_nothing(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    before = await count_rows(service, "audit_events")
    await revoke(alice, 204, "ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
    await revoke(alice, 204, "ORGANIZATION", organization["id"], "api_key:x", "ORG_MEMBER")
    assert await count_rows(service, "audit_events") == before


async def test_the_grant_of_a_key_goes_with_the_key_only(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    bearer, key = await key_of(service, alice, "ORGANIZATION", organization["id"], "ORG_OWNER")
    grant = ("ORGANIZATION", organization["id"], f"api_key:{key['id']}", "ORG_OWNER")
    before = await count_rows(service, "audit_events")
    for caller in (alice, bearer):
        read_problem(await revoke(caller, 409, *grant), 409, "key_grant")
    assert await count_rows(service, "audit_events") == before
    await bearer.get(f"/organizations/{organization['id']}")
    await alice.post(f"/api-keys/{key['id']}/revoke", expect=200)
    await revoke(alice, 204, *grant)


async def test_of_revocations_at_once_one_is_recorded(alice: Caller) -> None:
    organization = await alice.new_organization()
    grant = ("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
    await alice.grant(*grant)
    assert {answer.status_code for answer in await at_once(*(revoke(alice, None, *grant) for _ in range(5)))} == {204}
    assert len(await events_of(alice, action="MEMBERSHIP_REVOKED")) == 1


async def test_every_change_is_recorded_with_its_details(alice: Caller) -> None:
    organization = await alice.new_organization()
    project = await alice.new_project(organization["id"])
    grant = ("PROJECT", project["id"], "group:team", "PROJECT_EDITOR")
    await alice.grant(*grant, expires_at="2099-01-01T02:00:00+02:00")
    await revoke(alice, 204, *grant)
    _created, granted, revoked = await events_of(alice, resource_type="PROJECT", resource_id=project["id"])
    details = {"actor": "group:team", "role": "PROJECT_EDITOR"}
    assert (granted["action"], granted["details"]) == ("MEMBERSHIP_GRANTED", {**details, "expires_at": "2099-01-01T00:00:00+00:00"})
    assert (revoked["action"], revoked["details"]) == ("MEMBERSHIP_REVOKED", details)
    for event in (granted, revoked):
        assert (event["organization_id"], event["project_id"]) == (organization["id"], project["id"])
        assert (event["actor"]["id"], event["outcome"]) == ("alice", "SUCCESS")


async def test_everybody_may_give_up_his_own_role_but_not_the_last_ownership(service: Service, alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    target = ("ORGANIZATION", organization["id"])
    await alice.grant(*target, "user:bob", "ORG_MEMBER")
    await revoke(bob, 204, *target, "user:bob", "ORG_MEMBER")
    read_problem(await revoke(alice, 409, *target, "user:alice", "ORG_OWNER"), 409, "last_owner")
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await alice.grant(*target, "user:eve", "ORG_OWNER", expires_at=soon)
    await alice.grant(*target, "group:owners", "ORG_OWNER")
    await alice.grant(*target, "agent:bot", "ORG_OWNER")
    read_problem(await revoke(alice, 409, *target, "user:alice", "ORG_OWNER"), 409, "last_owner")
    await alice.grant(*target, "user:bob", "ORG_OWNER")
    await revoke(alice, 204, *target, "user:alice", "ORG_OWNER")
    read_problem(await alice.get(f"/organizations/{organization['id']}", 404), 404, "not_found")
    read_problem(await revoke(bob, 409, *target, "user:bob", "ORG_OWNER"), 409, "last_owner")
    assert await count_rows(service, "memberships") == 4


async def test_of_two_owners_who_leave_at_once_one_stays(service: Service, alice: Caller, bob: Caller) -> None:
    for _ in range(5):
        organization = await alice.new_organization()
        target = ("ORGANIZATION", organization["id"])
        await alice.grant(*target, "user:bob", "ORG_OWNER")
        answers = await at_once(
            revoke(alice, None, *target, "user:alice", "ORG_OWNER"), revoke(bob, None, *target, "user:bob", "ORG_OWNER")
        )
        assert sorted(answer.status_code for answer in answers) == [204, 409]


async def test_a_grant_ends_by_itself(alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    statuses = set[int]()
    for seconds in (0.6, 15, 60):  # a busy machine may show nothing in the first
        ends = datetime.now(UTC) + timedelta(seconds=seconds)
        given = await alice.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER", None, expires_at=ends.isoformat())
        if given.status_code == 422:
            continue
        assert datetime.fromisoformat(given.json()["expires_at"]) == ends
        while datetime.now(UTC) < ends + timedelta(seconds=0.1):
            started = datetime.now(UTC)
            status = (await bob.get(f"/organizations/{organization['id']}", None)).status_code
            if datetime.now(UTC) < ends:
                assert status == 200
            if started > ends:
                assert status == 404
            statuses.add(status)
        read_problem(await bob.get(f"/organizations/{organization['id']}", 404), 404, "not_found")
        if 200 in statuses:
            break
    assert 200 in statuses


async def test_times_are_answered_in_utc(alice: Caller) -> None:
    organization = await alice.new_organization()
    grant = await alice.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER", expires_at="2099-06-01T12:00:00+02:00")
    assert grant.json()["expires_at"] == "2099-06-01T10:00:00Z"
    listed = (await alice.get("/memberships", params={"resource_type": "ORGANIZATION", "resource_id": organization["id"]})).json()
    assert listed[1] == grant.json()


async def test_effective_shows_the_grants_above_as_inherited(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    project = await alice.new_project(organization["id"])
    document = await alice.new_document(project["id"])
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_VIEWER")
    await alice.grant("DOCUMENT", document["id"], "user:eve", "DOCUMENT_OWNER")
    own = [("eve", "DOCUMENT_OWNER", False)]
    assert await roles_on(alice, "DOCUMENT", document["id"]) == own
    above = [("alice", "ORG_OWNER", True), ("bob", "PROJECT_VIEWER", True)]
    assert await roles_on(alice, "DOCUMENT", document["id"], effective=True) == above + own
    query = {"resource_type": "DOCUMENT", "resource_id": document["id"], "effective": True}
    assert {grant["resource"]["id"] for grant in (await alice.get("/memberships", params=query)).json()} == {document["id"]}
    eve = service.as_("user:eve")
    assert await roles_on(eve, "DOCUMENT", document["id"]) == own
    read_problem(await eve.get("/memberships", 403, params=query), 403, "forbidden")


async def test_the_list_is_bounded_and_leads_to_the_rest(alice: Caller) -> None:
    organization = await alice.new_organization()
    target = ("ORGANIZATION", organization["id"])
    for number in range(4):
        await alice.grant(*target, f"user:u{number}", "ORG_MEMBER")
    query: dict[str, Any] = {"resource_type": "ORGANIZATION", "resource_id": organization["id"]}
    whole = await alice.get("/memberships", params=query)
    assert "link" not in whole.headers
    walked, page = [], await alice.get("/memberships", params={**query, "limit": 2})
    walked += page.json()
    while "link" in page.headers:
        page = await alice.get(next_link_of(page))
        assert len(page.json()) <= 2
        walked += page.json()
        assert len(walked) <= 5
    assert walked == whole.json()
    other = await alice.new_organization()
    cursor = httpx.URL(next_link_of(await alice.get("/memberships", params={**query, "limit": 2}))).params["cursor"]
    assert pointers_of(await alice.get("/memberships", 422, params={**query, "resource_id": other["id"], "cursor": cursor})) == [
        "query.cursor"
    ]
    for name, bad in (
        ("limit", "0"),
        ("limit", "1001"),
        ("cursor", "x"),
        ("effective", "maybe"),
        ("resource_type", "X"),
        ("resource_id", "x"),
    ):
        assert pointers_of(await alice.get("/memberships", 422, params={**query, name: bad})) == [f"query.{name}"]


async def test_revoking_names_all_five_parts(alice: Caller) -> None:
    organization = await alice.new_organization()
    whole = grant_of("ORGANIZATION", organization["id"], "user:alice", "ORG_OWNER")
    for name in whole:
        partial = {key: value for key, value in whole.items() if key != name}
        assert pointers_of(await alice.delete("/memberships", 422, params=partial)) == [f"query.{name}"]
        assert pointers_of(await alice.delete("/memberships", 422, params={**whole, name: " "})) == [f"query.{name}"]
    await alice.get(f"/organizations/{organization['id']}")
