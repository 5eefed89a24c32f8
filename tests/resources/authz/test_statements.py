"""How many statements an answer costs: a constant, whatever is asked about and however many there are."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from app.core.actors import Actor, ActorType
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from tests.conftest import Caller, Service
from tests.support import rows
from tests.support.keys import key_of
from tests.support.rows import Place
from tests.support.statements import Statements

pytestmark = pytest.mark.anyio

MANY = 300


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


@pytest.fixture
async def project(alice: Caller, org: str) -> str:
    return str((await alice.new_project(org))["id"])


@pytest.fixture
async def statements(service: Service) -> Statements:
    return Statements(service.runtime.context.database)


async def cost(statements: Statements, request: Callable[[], Awaitable[Any]]) -> int:
    statements.take()
    await request()
    return len([one for one in statements.take() if not one.startswith(("BEGIN", "PRAGMA", "SAVEPOINT"))])


def about(kind: str, where: str, actor: str = "alice", actor_type: str = "USER", action: str = "PROJECT_READ") -> dict[str, str]:
    return {"actor_type": actor_type, "actor_id": actor, "action": action, "resource_type": kind, "resource_id": where}


async def fill(service: Service, org: str, project: str) -> None:
    """Many members of the project, as many in a group in a group, and many documents."""
    home = Place(ResourceRef(ResourceType.ORGANIZATION, UUID(org)), UUID(org))
    place = Place(ResourceRef(ResourceType.PROJECT, UUID(project)), UUID(org), UUID(project))
    told = [*rows.group(home, "outer"), *rows.group(home, "inner")]
    told += rows.member(home, "outer", Actor(ActorType.GROUP, "inner")) + rows.grant(
        place, Actor(ActorType.GROUP, "outer"), Role.PROJECT_EDITOR
    )
    for number in range(MANY):
        told += rows.grant(place, Actor(ActorType.USER, f"direct-{number}"), Role.PROJECT_VIEWER)
        told += rows.member(home, "inner", Actor(ActorType.USER, f"grouped-{number}")) + rows.document(place)[1]
    await rows.write(service.runtime.context.database, told)


async def test_a_request_locates_and_authorizes_in_one_statement(
    service: Service, alice: Caller, org: str, project: str, statements: Statements
) -> None:
    document = (await alice.new_document(project))["id"]
    bearer, _ = await key_of(service, alice, "PROJECT", project, "PROJECT_VIEWER", may_act_for_others=True)
    for path in (f"/organizations/{org}", f"/projects/{project}", f"/documents/{document}"):
        assert await cost(statements, lambda path=path: alice.get(path)) == 1  # type: ignore[misc]
    path = f"/documents/{document}"
    assert await cost(statements, lambda: bearer.get(path)) == 1  # with the key
    principal = {"X-SaaSBase-On-Behalf-Of": "user:alice"}
    assert await cost(statements, lambda: bearer.get(path, headers=principal)) == 2  # and what the principal holds
    assert await cost(statements, lambda: service.as_("user:mallory").get(path, 404)) == 1


async def test_a_verdict_is_one_statement_and_a_batch_one_for_each_type(
    service: Service, alice: Caller, org: str, project: str, statements: Statements
) -> None:
    _, key = await key_of(service, alice, "PROJECT", project, "PROJECT_VIEWER")
    document = (await alice.new_document(project))["id"]
    for who in ("alice", "bob"):
        for question in ("check", "list-actions"):
            asked = about("PROJECT", project, who)
            if question == "list-actions":
                del asked["action"]
            assert await cost(statements, lambda a=asked, q=question: alice.post(f"/authz/{q}", a, 200)) == 1  # type: ignore[misc]
    places = [("ORGANIZATION", org), ("PROJECT", project), ("DOCUMENT", document)]
    checks = [about(kind, where, f"u{number}") for number in range(60) for kind, where in places]
    assert await cost(statements, lambda: alice.post("/authz/batch-check", {"checks": checks}, 200)) == 3
    checks.append(about("PROJECT", project, key["id"], "API_KEY"))
    assert await cost(statements, lambda: alice.post("/authz/batch-check", {"checks": checks}, 200)) == 4  # what the key was made for


async def test_reasons_cost_the_same_for_one_member_and_for_many(
    service: Service, alice: Caller, org: str, project: str, statements: Statements
) -> None:
    await alice.post(f"/organizations/{org}/groups", {"group_id": "g"})
    await alice.grant("PROJECT", project, "group:g", "PROJECT_VIEWER")
    query = {"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": project}

    async def costs() -> list[int]:
        return [
            await cost(statements, lambda: alice.post("/authz/explain", about("PROJECT", project, "grouped-1"), 200)),
            await cost(statements, lambda: alice.get("/authz/effective-roles", params=about("PROJECT", project, "grouped-1"))),
            await cost(statements, lambda: alice.get("/authz/who-can", params=query)),
            await cost(statements, lambda: alice.get("/authz/who-can-explain", params=query)),
            await cost(statements, lambda: alice.post("/authz/simulate", {"grants": [grant]}, 200)),
        ]

    grant = {**about("PROJECT", project, "g", "GROUP"), "role": "PROJECT_OWNER"}
    del grant["action"]
    few = await costs()
    await fill(service, org, project)
    grant["actor_id"] = "outer"
    assert await costs() == few == [3, 3, 3, 3, 4]


async def test_a_page_and_its_total_are_one_statement(
    service: Service, alice: Caller, org: str, project: str, statements: Statements
) -> None:
    await fill(service, org, project)
    for actor in ("alice", "direct-1"):
        asked = {"actor_type": "USER", "actor_id": actor, "action": "DOCUMENT_READ", "resource_type": "DOCUMENT"}
        assert await cost(statements, lambda a=asked: alice.post("/authz/list-objects", a, 200)) == 2  # type: ignore[misc]
    assert await cost(statements, lambda: alice.get("/documents", params={"limit": 20})) == 1
    assert await cost(statements, lambda: alice.get("/documents", params={"page": 0})) == 1
    for_bob = {"X-SaaSBase-On-Behalf-Of": "user:bob"}
    assert await cost(statements, lambda: alice.get("/documents", params={"limit": 20}, headers=for_bob)) == 1
