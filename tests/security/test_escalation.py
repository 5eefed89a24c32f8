"""Nobody gives or takes more than he holds, and an organization keeps an owner (AUTHORIZATION.md 2.5, rules 1 to 5)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.core.clock import now
from app.core.permissions import ROLE_ACTIONS, Action, Role
from app.core.resources import ResourceType
from app.db.base import Base
from app.db.engine import Database
from app.models import Membership
from tests.conftest import Caller, Service, make_settings, open_service
from tests.support.database import behind

pytestmark = pytest.mark.anyio

MANAGING = {
    ResourceType.ORGANIZATION: Action.MEMBER_MANAGE,
    ResourceType.PROJECT: Action.MEMBER_MANAGE,
    ResourceType.DOCUMENT: Action.DOCUMENT_SHARE,
}
LEVELS = tuple(MANAGING)
ROUNDS = 12
ANY_STATUS: Any = None


@dataclass(frozen=True)
class World:
    service: Service
    owner: Caller
    ids: dict[ResourceType, str]

    def as_(self, name: str) -> Caller:
        return self.service.as_(f"user:{name}")

    async def give(self, level: ResourceType, name: str, role: Role, expect: int = 201, **body: Any) -> str:
        """The owner gives a user a role; tells the user's name."""
        await self.owner.grant(level.value, self.ids[level], f"user:{name}", role.value, expect, **body)
        return name

    async def revoke(self, caller: Caller, level: ResourceType, subject: str, role: Role, expect: int | None = 204) -> int:
        kind, _, identifier = subject.partition(":")
        grant = {"resource_type": level.value, "resource_id": self.ids[level], "actor_type": kind.upper(), "actor_id": identifier}
        return (await caller.delete("/memberships", expect, params={**grant, "role": role.value})).status_code

    async def holders(self, level: ResourceType = ResourceType.ORGANIZATION) -> set[tuple[str, str]]:
        found = await self.owner.get("/memberships", params={"resource_type": level.value, "resource_id": self.ids[level]})
        return {(grant["actor"]["id"], grant["role"]) for grant in found.json()}


async def make_world(service: Service) -> World:
    owner = service.as_("user:owner")
    organization = await owner.new_organization()
    project = await owner.new_project(organization["id"])
    document = await owner.new_document(project["id"])
    return World(service, owner, dict(zip(LEVELS, (organization["id"], project["id"], document["id"]), strict=True)))


@pytest.fixture
async def world(service: Service) -> World:
    return await make_world(service)


def may_hand_out(held: Role, level: ResourceType, role: Role) -> bool:
    """Rules 1 and 2."""
    return MANAGING[level] in ROLE_ACTIONS[held] and ROLE_ACTIONS[role] <= ROLE_ACTIONS[held]


def refusal(held: Role, level: ResourceType) -> int:
    """403 for who can see the resource, or manages it without seeing it (PROJECT_OWNER on an organization); else 404."""
    return 403 if ROLE_ACTIONS[held] & {Action[f"{level.value}_READ"], MANAGING[level]} else 404


async def test_a_role_is_given_only_by_who_manages_and_holds_all_of_it(world: World) -> None:
    wrong = []
    for level in LEVELS:
        fitting = [role for role in Role if role.fits(level)]
        for held in fitting:
            name = await world.give(level, f"holder-{held.value.lower()}", held)
            for role in fitting:
                grantee = f"user:{held.value}-{role.value}"
                response = await world.as_(name).grant(level.value, world.ids[level], grantee, role.value, ANY_STATUS)
                expected = 201 if may_hand_out(held, level, role) else refusal(held, level)
                if response.status_code != expected:
                    wrong.append((level.value, held.value, role.value, response.status_code, expected))
    assert wrong == []


async def test_a_role_is_taken_only_by_who_could_give_it(world: World) -> None:
    wrong = []
    for level in (ResourceType.ORGANIZATION, ResourceType.DOCUMENT):
        fitting = [role for role in Role if role.fits(level) and role.level is not ResourceType.API_CALL]
        for role in fitting:
            await world.give(level, "victim", role)
        for held in fitting:
            taker = world.as_(await world.give(level, f"taker-{held.value}", held))
            for role in fitting:
                expected = 204 if may_hand_out(held, level, role) else refusal(held, level)
                status = await world.revoke(taker, level, "user:victim", role, None)
                if status != expected:
                    wrong.append((level.value, held.value, role.value, status, expected))
                if status == 204:  # it is gone: it can be given again
                    await world.give(level, "victim", role)
            assert {role for name, role in await world.holders(level) if name == "victim"} == set(fitting)
    assert wrong == []


async def test_what_an_admin_may_give_is_named_by_the_design(world: World) -> None:
    admin = world.as_(await world.give(ResourceType.ORGANIZATION, "admin", Role.ORG_ADMIN))
    organization = world.ids[ResourceType.ORGANIZATION]
    given = {
        role
        for role in (*Role,)
        if role.level in {ResourceType.ORGANIZATION, ResourceType.PROJECT}
        and (await admin.grant("ORGANIZATION", organization, "user:new", role.value, ANY_STATUS)).status_code == 201
    }
    assert given == {Role.ORG_ADMIN, Role.ORG_MEMBER, Role.PROJECT_EDITOR, Role.PROJECT_VIEWER}
    await admin.grant("DOCUMENT", world.ids[ResourceType.DOCUMENT], "user:new", "DOCUMENT_VIEWER", 403)


async def test_nobody_raises_himself(world: World) -> None:
    admin = world.as_(await world.give(ResourceType.ORGANIZATION, "admin", Role.ORG_ADMIN))
    refused = await admin.grant("ORGANIZATION", world.ids[ResourceType.ORGANIZATION], "user:admin", "ORG_OWNER", 403)
    assert refused.json()["code"] == "escalation"
    await admin.grant("PROJECT", world.ids[ResourceType.PROJECT], "user:admin", "PROJECT_OWNER", 403)


async def test_creating_a_project_gives_its_creator_no_more_than_he_held(world: World) -> None:
    admin = world.as_(await world.give(ResourceType.ORGANIZATION, "admin", Role.ORG_ADMIN))
    project = await admin.new_project(world.ids[ResourceType.ORGANIZATION])
    await admin.delete(f"/projects/{project['id']}", 403)


async def test_a_document_owner_shares_his_document_and_nothing_above(world: World) -> None:
    sharer = world.as_(await world.give(ResourceType.DOCUMENT, "sharer", Role.DOCUMENT_OWNER))
    await sharer.grant("DOCUMENT", world.ids[ResourceType.DOCUMENT], "user:friend", "DOCUMENT_OWNER")
    await sharer.grant("PROJECT", world.ids[ResourceType.PROJECT], "user:friend", "DOCUMENT_VIEWER", 404)
    await sharer.grant("ORGANIZATION", world.ids[ResourceType.ORGANIZATION], "user:friend", "DOCUMENT_VIEWER", 404)


async def test_a_role_of_a_higher_level_fits_no_lower_resource(world: World) -> None:
    for level, role in product(LEVELS, Role):
        response = await world.owner.grant(level.value, world.ids[level], f"user:{role.value}", role.value, ANY_STATUS)
        assert response.status_code == (201 if role.fits(level) else 422), (level, role)
        if not role.fits(level):
            assert response.json()["errors"][0]["pointer"] == "/role"


async def test_leaving_is_always_allowed(world: World) -> None:
    for level in LEVELS:
        for role in (role for role in Role if role.fits(level)):
            name = await world.give(level, "leaver", role)
            await world.revoke(world.as_(name), level, f"user:{name}", role)
            assert ("leaver", role.value) not in await world.holders(level)


async def test_leaving_something_one_does_not_hold_tells_nothing(world: World) -> None:
    await world.revoke(world.as_("mallory"), ResourceType.PROJECT, "user:mallory", Role.PROJECT_VIEWER, 404)
    name = await world.give(ResourceType.PROJECT, "viewer", Role.PROJECT_VIEWER)
    await world.revoke(world.as_(name), ResourceType.PROJECT, "user:viewer", Role.PROJECT_EDITOR, 403)


async def test_a_member_cannot_make_his_group_leave(world: World) -> None:
    """Leaving is for what the caller was given himself."""
    project = world.ids[ResourceType.PROJECT]
    await world.owner.grant("PROJECT", project, "group:team", "PROJECT_VIEWER")
    name = await world.give(ResourceType.PROJECT, "viewer", Role.PROJECT_VIEWER)
    await world.revoke(world.as_(name), ResourceType.PROJECT, "group:team", Role.PROJECT_VIEWER, 403)


async def test_revoking_what_is_not_held_is_a_success_and_records_nothing(world: World) -> None:
    organization = world.ids[ResourceType.ORGANIZATION]
    before = (await world.owner.get("/audit-events", params={"organization_id": organization})).json()["total_items"]
    for level in LEVELS:
        await world.revoke(world.owner, level, "user:nobody", Role.DOCUMENT_VIEWER)
    after = (await world.owner.get("/audit-events", params={"organization_id": organization})).json()["total_items"]
    assert after == before


async def test_the_last_owner_stays(world: World) -> None:
    level = ResourceType.ORGANIZATION
    await world.give(level, "admin", Role.ORG_ADMIN)
    await world.owner.grant(level.value, world.ids[level], "group:owners", "ORG_OWNER")
    await world.owner.grant(level.value, world.ids[level], "agent:robot", "ORG_OWNER")
    refused = await world.service.as_("agent:robot").delete(
        "/memberships",
        409,
        params={
            "resource_type": "ORGANIZATION",
            "resource_id": world.ids[level],
            "actor_type": "USER",
            "actor_id": "owner",
            "role": "ORG_OWNER",
        },
    )
    assert refused.json()["code"] == "last_owner"
    await world.revoke(world.owner, level, "user:owner", Role.ORG_OWNER, 409)
    assert ("owner", "ORG_OWNER") in await world.holders()
    await world.owner.grant(level.value, world.ids[level], "service:billing", "ORG_OWNER")
    await world.revoke(world.owner, level, "user:owner", Role.ORG_OWNER)
    await world.owner.get(f"/organizations/{world.ids[level]}", 404)


async def test_a_temporary_owner_does_not_count_as_the_last_one(world: World) -> None:
    level = ResourceType.ORGANIZATION
    until = (now() + timedelta(days=1)).isoformat()
    name = await world.give(level, "temporary", Role.ORG_OWNER, expires_at=until)
    await world.revoke(world.owner, level, "user:owner", Role.ORG_OWNER, 409)
    await world.revoke(world.as_(name), level, "user:owner", Role.ORG_OWNER, 409)
    await world.revoke(world.as_(name), level, "user:temporary", Role.ORG_OWNER)
    assert await world.holders() == {("owner", "ORG_OWNER")}


async def test_an_owner_of_another_organization_is_no_owner_here(world: World) -> None:
    await world.as_("second").new_organization()
    await world.revoke(world.owner, ResourceType.ORGANIZATION, "user:owner", Role.ORG_OWNER, 409)


async def test_an_api_key_receives_no_role(world: World) -> None:
    for level in LEVELS:
        refused = await world.owner.grant(level.value, world.ids[level], "api_key:k", "DOCUMENT_VIEWER", 422)
        assert refused.json()["errors"][0]["pointer"] == "/actor_type"


async def test_a_grant_that_has_ended_gives_nothing(world: World) -> None:
    level = ResourceType.PROJECT
    past = (now() - timedelta(seconds=1)).isoformat()
    await world.give(level, "late", Role.PROJECT_OWNER, 422, expires_at=past)
    name = await world.give(level, "late", Role.PROJECT_OWNER, expires_at=(now() + timedelta(hours=1)).isoformat())
    late, path = world.as_(name), f"/projects/{world.ids[level]}"
    await late.get(path)
    memberships = Base.metadata.tables[Membership.__tablename__]
    async with behind(world.service.runtime.context.database) as connection:
        await connection.execute(
            update(memberships).where(memberships.c.actor_id == "late").values(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
        )
    await late.get(path, 404)
    await late.delete(path, 404)
    await late.grant("PROJECT", world.ids[level], "user:late", "PROJECT_VIEWER", 404)
    assert (await late.get("/projects")).json()["total_items"] == 0


async def test_a_revoked_role_ends_with_the_next_request(world: World) -> None:
    level = ResourceType.PROJECT
    name = await world.give(level, "viewer", Role.PROJECT_VIEWER)
    await world.as_(name).get(f"/projects/{world.ids[level]}")
    await world.revoke(world.owner, level, "user:viewer", Role.PROJECT_VIEWER)
    await world.as_(name).get(f"/projects/{world.ids[level]}", 404)


@pytest.fixture
async def two_services(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Service, Service]]:
    """Two instances of the service, each with its own pool, on one database: what two server processes are to it."""
    settings = make_settings(database_url, tmp_path)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_service(settings))
        yield first, await stack.enter_async_context(open_service(settings))


async def race_to_leave(first: Service, second: Service, *, swap: bool, barrier: Any) -> list[int]:
    """Two owners remove themselves (or, with ``swap``, each the other) at once; the statuses, sorted."""
    world = await make_world(first)
    other = World(second, second.as_("user:other"), world.ids)
    await world.give(ResourceType.ORGANIZATION, "other", Role.ORG_OWNER)
    leaving = ("user:other", "user:owner") if swap else ("user:owner", "user:other")
    level = ResourceType.ORGANIZATION
    async with barrier(first.runtime.context.database, UUID(world.ids[level])):
        requests = asyncio.gather(
            world.revoke(world.owner, level, leaving[0], Role.ORG_OWNER, None),
            other.revoke(other.owner, level, leaving[1], Role.ORG_OWNER, None),
        )
        await asyncio.sleep(0.1 if barrier is rows_held else 0)
    statuses = sorted(await requests)
    memberships = Base.metadata.tables[Membership.__tablename__]
    async with behind(first.runtime.context.database) as connection:
        owners = (await connection.execute(select(memberships.c.actor_id).where(memberships.c.resource_id == UUID(world.ids[level])))).all()
    assert len(owners) == 1
    return statuses


@asynccontextmanager
async def rows_held(database: Database, organization_id: UUID) -> AsyncIterator[None]:
    """Holds the grants, so that both requests have looked before either may remove (on SQLite: before either may begin)."""
    memberships = Base.metadata.tables[Membership.__tablename__]
    async with behind(database) as connection:
        await connection.execute(select(memberships.c.id).where(memberships.c.resource_id == organization_id).with_for_update())
        yield


@asynccontextmanager
async def nothing_held(_database: Database, _organization_id: UUID) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("barrier", [rows_held, nothing_held], ids=["both look first", "as it comes"])
async def test_of_two_owners_who_leave_at_once_one_stays(two_services: tuple[Service, Service], barrier: Any) -> None:
    for _ in range(ROUNDS):
        assert await race_to_leave(*two_services, swap=False, barrier=barrier) == [204, 409]


async def test_of_two_owners_who_remove_each_other_one_stays(two_services: tuple[Service, Service]) -> None:
    for _ in range(ROUNDS):
        statuses = await race_to_leave(*two_services, swap=True, barrier=rows_held)
        assert statuses == [204, 409]
