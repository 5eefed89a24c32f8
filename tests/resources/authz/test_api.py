"""Questions about authorization: who may ask, and that the answers are what requests really get."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from tests.conftest import Caller, Service
from tests.support.answers import read_problem
from tests.support.database import behind
from tests.support.keys import GRANTS, key_of

pytestmark = pytest.mark.anyio

QUESTIONS = ("check", "explain", "effective-roles")


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


@pytest.fixture
async def project(alice: Caller, org: str) -> str:
    return str((await alice.new_project(org))["id"])


async def ask(caller: Caller, question: str, subject: str, action: str, kind: str, where: str, expect: int = 200, **options: Any) -> Any:
    """The answer to one of the questions about an actor."""
    actor_type, _, actor_id = subject.partition(":")
    body = {"actor_type": actor_type.upper(), "actor_id": actor_id, "resource_type": kind, "resource_id": where}
    if question == "effective-roles":
        return (await caller.get("/authz/effective-roles", expect, params=body, **options)).json()
    return (await caller.post(f"/authz/{question}", {**body, "action": action}, expect, **options)).json()


async def may(caller: Caller, subject: str, action: str, kind: str, where: str) -> bool:
    """What all questions about one actor agree on."""
    verdict = (await ask(caller, "check", subject, action, kind, where))["allowed"]
    explained = await ask(caller, "explain", subject, action, kind, where)
    roles = await ask(caller, "effective-roles", subject, action, kind, where)
    assert explained["allowed"] == verdict == any(action in role["actions"] for role in roles)
    assert explained["effective_roles"] == roles
    assert explained["matching_roles"] == [role for role in roles if action in role["actions"]]
    assert explained["source"] == ("EFFECTIVE_ROLE" if verdict else "NONE")
    return bool(verdict)


async def who_can(caller: Caller, action: str, kind: str, where: str, **options: Any) -> list[str]:
    """Who may, as both questions about everybody say it."""
    asked = {"action": action, "resource_type": kind, "resource_id": where, **options}
    actors = (await caller.get("/authz/who-can", params=asked)).json()
    explained = (await caller.get("/authz/who-can-explain", params=asked)).json()
    assert [one["actor"] for one in explained] == actors
    assert all(one["allowed"] and one["matching_roles"] for one in explained)
    assert actors == sorted(actors, key=lambda actor: (actor["type"], actor["id"]))
    return [f"{actor['type'].lower()}:{actor['id']}" for actor in actors]


async def test_everybody_may_ask_about_himself(alice: Caller, bob: Caller, mallory: Caller, org: str, project: str) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_VIEWER")
    assert await may(alice, "user:alice", "ORGANIZATION_DELETE", "PROJECT", project)
    assert await may(bob, "user:bob", "PROJECT_READ", "PROJECT", project)
    assert not await may(bob, "user:bob", "PROJECT_UPDATE", "PROJECT", project)
    assert not await may(bob, "user:bob", "ORGANIZATION_READ", "ORGANIZATION", org)
    assert not await may(mallory, "user:mallory", "PROJECT_READ", "PROJECT", project)


async def test_what_is_invisible_is_answered_like_what_is_absent(alice: Caller, mallory: Caller, org: str, project: str) -> None:
    document = (await alice.new_document(project))["id"]
    for kind, where in (("ORGANIZATION", org), ("PROJECT", project), ("DOCUMENT", document), ("API_CALL", str(uuid4()))):
        for question in QUESTIONS:
            invisible = await ask(mallory, question, "user:mallory", "DOCUMENT_READ", kind, where)
            absent = str(uuid4())
            unknown = await ask(mallory, question, "user:mallory", "DOCUMENT_READ", kind, absent)
            assert str(invisible).replace(where, absent) == str(unknown)


async def test_about_others_only_who_manages_members_learns_anything(
    service: Service, alice: Caller, bob: Caller, mallory: Caller, org: str, project: str
) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_EDITOR")
    await alice.grant("PROJECT", project, "user:carol", "PROJECT_OWNER")
    same = {"headers": {"X-Request-ID": "same"}}
    for question in QUESTIONS:
        for caller in (bob, mallory):
            refused = [
                await ask(caller, question, "user:alice", "PROJECT_READ", kind, where, 404, **same)
                for kind, where in (("PROJECT", project), ("ORGANIZATION", org), ("PROJECT", str(uuid4())))
            ]
            assert refused[0] == refused[1] == refused[2]
        await ask(service.as_("user:carol"), question, "user:bob", "PROJECT_READ", "PROJECT", project, 200)
        await ask(service.as_("user:carol"), question, "user:bob", "PROJECT_READ", "ORGANIZATION", org, 404)
        await ask(service.as_(None), question, "service:anonymous", "PROJECT_READ", "PROJECT", project, 401)
        await ask(alice, question, "user:bob", "PROJECT_READ", "PROJECT", str(uuid4()), 404)


async def test_who_can_is_for_who_manages_members(service: Service, alice: Caller, bob: Caller, mallory: Caller, project: str) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_EDITOR")
    asked = {"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": project}
    for path in ("/authz/who-can", "/authz/who-can-explain"):
        same = {"X-Request-ID": "same"}
        absent = await mallory.get(path, 404, params={**asked, "resource_id": str(uuid4())}, headers=same)
        for caller in (bob, mallory):
            assert (await caller.get(path, 404, params=asked, headers=same)).content == absent.content
        await service.as_(None).get(path, 401, params=asked)


async def test_answers_are_what_requests_get(service: Service, alice: Caller, org: str, project: str) -> None:
    roles = ("ORG_OWNER", "ORG_ADMIN", "ORG_MEMBER", "PROJECT_OWNER", "PROJECT_EDITOR", "PROJECT_VIEWER", None)
    document = (await alice.new_document(project))["id"]
    for role in roles:
        subject = f"user:{role}"
        where = ("ORGANIZATION", org) if str(role).startswith("ORG") else ("PROJECT", project)
        if role is not None:
            await alice.grant(*where, subject, role)
    for role in roles:
        caller, subject = service.as_(f"user:{role}"), f"user:{role}"
        asked: list[tuple[str, str, str, str, str, dict[str, Any]]] = [
            ("ORGANIZATION_READ", "ORGANIZATION", org, "GET", f"/organizations/{org}", {}),
            ("ORGANIZATION_UPDATE", "ORGANIZATION", org, "PATCH", f"/organizations/{org}", {"json": {}}),
            ("PROJECT_READ", "PROJECT", project, "GET", f"/projects/{project}", {}),
            ("PROJECT_UPDATE", "PROJECT", project, "PATCH", f"/projects/{project}", {"json": {}}),
            ("DOCUMENT_READ", "DOCUMENT", document, "GET", f"/documents/{document}", {}),
            ("DOCUMENT_WRITE", "DOCUMENT", document, "PATCH", f"/documents/{document}", {"json": {}}),
        ]
        for action, kind, where_id, method, path, options in asked:
            is_let_in = (await caller.request(method, path, **options)).status_code == 200
            assert await may(caller, subject, action, kind, where_id) == is_let_in, (role, action)
            assert await may(alice, subject, action, kind, where_id) == is_let_in
            assert (subject in await who_can(alice, action, kind, where_id)) == is_let_in


async def test_groups_count_and_are_named_in_the_reason(alice: Caller, bob: Caller, org: str, project: str) -> None:
    for group, inside in (("low", "USER:bob"), ("top", "GROUP:low")):
        kind, _, name = inside.partition(":")
        await alice.post(f"/organizations/{org}/groups", {"group_id": group})
        await alice.post(f"/organizations/{org}/groups/{group}/members", {"member_type": kind, "member_id": name})
    await alice.grant("PROJECT", project, "group:top", "PROJECT_EDITOR")
    assert await may(bob, "user:bob", "PROJECT_UPDATE", "PROJECT", project)
    assert await may(alice, "user:bob", "PROJECT_UPDATE", "PROJECT", project)
    assert "group:top" in (await ask(bob, "explain", "user:bob", "PROJECT_UPDATE", "PROJECT", project))["reason"]
    assert await who_can(alice, "PROJECT_UPDATE", "PROJECT", project) == ["group:low", "group:top", "user:alice", "user:bob"]
    assert await who_can(alice, "PROJECT_UPDATE", "PROJECT", project, expand=False) == ["group:top", "user:alice"]
    await alice.delete(f"/organizations/{org}/groups/low/members", params={"member_type": "USER", "member_id": "bob"})
    assert not await may(alice, "user:bob", "PROJECT_UPDATE", "PROJECT", project)


async def test_a_group_of_another_tenant_does_not_count(alice: Caller, mallory: Caller, org: str, project: str) -> None:
    theirs = (await mallory.new_organization())["id"]
    await mallory.post(f"/organizations/{theirs}/groups", {"group_id": "devs"})
    await mallory.post(f"/organizations/{theirs}/groups/devs/members", {"member_type": "USER", "member_id": "mallory"})
    await alice.grant("PROJECT", project, "group:devs", "PROJECT_OWNER")
    assert not await may(mallory, "user:mallory", "PROJECT_READ", "PROJECT", project)
    assert not await may(alice, "user:mallory", "PROJECT_READ", "PROJECT", project)


async def test_grants_that_have_ended_do_not_count(service: Service, alice: Caller, bob: Caller, org: str, project: str) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_EDITOR")
    assert await may(bob, "user:bob", "PROJECT_READ", "PROJECT", project)
    async with behind(service.runtime.context.database) as connection:
        ended = datetime.now(UTC) - timedelta(seconds=1)
        await connection.execute(update(GRANTS).where(GRANTS.c.actor_id == "bob").values(expires_at=ended))
    assert not await may(bob, "user:bob", "PROJECT_READ", "PROJECT", project)
    assert not await may(alice, "user:bob", "PROJECT_READ", "PROJECT", project)
    assert await who_can(alice, "PROJECT_READ", "PROJECT", project) == ["user:alice"]
    await bob.get(f"/projects/{project}", 404)


async def test_a_denial_says_what_is_held_and_what_would_do(alice: Caller, bob: Caller, org: str, project: str) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_VIEWER")
    denied = await ask(bob, "explain", "user:bob", "PROJECT_DELETE", "PROJECT", project)
    assert denied["reason"] == "roles held: PROJECT_VIEWER; roles that would do: ORG_OWNER, PROJECT_OWNER"
    assert denied["evaluated_scopes"] == [{"type": "PROJECT", "id": project}, {"type": "ORGANIZATION", "id": org}]
    (role,) = await ask(alice, "effective-roles", "user:alice", "PROJECT_READ", "PROJECT", project)
    assert (role["granted_on"]["type"], role["effective_on"]["type"], role["inherited"]) == ("ORGANIZATION", "PROJECT", True)


async def test_a_narrowed_key_is_answered_as_it_is_served(service: Service, alice: Caller, org: str, project: str) -> None:
    bearer, key = await key_of(service, alice, "ORGANIZATION", org, "ORG_OWNER", actions=["PROJECT_READ"])
    subject = f"api_key:{key['id']}"
    for caller in (bearer, alice):
        assert await may(caller, subject, "PROJECT_READ", "PROJECT", project)
        assert not await may(caller, subject, "PROJECT_UPDATE", "PROJECT", project)
        (role,) = await ask(caller, "effective-roles", subject, "PROJECT_READ", "PROJECT", project)
        assert role["actions"] == ["PROJECT_READ"]
    assert subject in await who_can(alice, "PROJECT_READ", "PROJECT", project)
    assert subject not in await who_can(alice, "PROJECT_UPDATE", "PROJECT", project)
    for question in QUESTIONS:  # its role could, the key cannot
        await ask(bearer, question, "user:alice", "PROJECT_READ", "PROJECT", project, 404)
    await bearer.get("/authz/who-can", 404, params={"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": project})


async def test_a_key_counts_until_it_ends_or_is_revoked(service: Service, alice: Caller, org: str, project: str) -> None:
    _, key = await key_of(service, alice, "PROJECT", project, "PROJECT_VIEWER")
    subject = f"api_key:{key['id']}"
    assert await may(alice, subject, "PROJECT_READ", "PROJECT", project)
    await alice.post(f"/api-keys/{key['id']}/revoke", expect=200)
    assert not await may(alice, subject, "PROJECT_READ", "PROJECT", project)
    assert subject not in await who_can(alice, "PROJECT_READ", "PROJECT", project)


async def test_questions_that_make_no_sense_are_refused(alice: Caller, org: str) -> None:
    good = {"actor_type": "USER", "actor_id": "bob", "action": "PROJECT_READ", "resource_type": "ORGANIZATION", "resource_id": org}
    for wrong in (
        {"action": "FLY"},
        {"actor_type": "ROBOT"},
        {"actor_id": " "},
        {"resource_type": "KEY"},
        {"resource_id": "x"},
        {"extra": 1},
    ):
        for question in ("check", "explain"):
            read_problem(await alice.post(f"/authz/{question}", {**good, **wrong}, 422), 422, "invalid")
        if "extra" not in wrong and "action" not in wrong:
            query = {name: value for name, value in {**good, **wrong}.items() if name != "action"}
            await alice.get("/authz/effective-roles", 422, params=query)
    for odd in ("not-a-uuid", str(uuid4())):
        assert await may(alice, f"api_key:{odd}", "PROJECT_READ", "ORGANIZATION", org) is False
