"""Questions about authorization at their limits: many, odd, repeated, tampered with, and while the answer grows."""

import asyncio
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from app.core.actors import Actor, ActorType
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from tests.conftest import Caller, Service
from tests.support import rows
from tests.support.answers import next_link_of, pointers_of, read_problem
from tests.support.oracle import PAST
from tests.support.rows import Place

pytestmark = pytest.mark.anyio

ODD: Final = (
    *("'", '"', "\\", "\\'; DROP TABLE memberships; --", "%", "_", "a%b_c", "$1", ":name", "?", "{}", "[]", "null", "0", "a,b", "a b"),
    *("\\u0041", "\\ud800", "a:b:c", "Zoë 日本", "e\u0301", "é", "🦊", "\u200b", "\U0010ffff", "İ", "ﬀ", "x" * 256, "🦊" * 256),
)
NOBODY: Final = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


@pytest.fixture
async def project(alice: Caller, org: str) -> str:
    return str((await alice.new_project(org))["id"])


def check(actor: str, where: str, kind: str = "PROJECT", action: str = "PROJECT_READ", actor_type: str = "USER") -> dict[str, str]:
    return {"actor_type": actor_type, "actor_id": actor, "action": action, "resource_type": kind, "resource_id": where}


async def ask(caller: Caller, checks: list[dict[str, str]]) -> list[bool | None]:
    answered = (await caller.post("/authz/batch-check", {"checks": checks}, 200)).json()["results"]
    assert all((one["error"] is None) is (one["allowed"] is not None) for one in answered)
    return [one["allowed"] for one in answered]


def places(org: str, project: str) -> tuple[Place, Place]:
    home = Place(ResourceRef(ResourceType.ORGANIZATION, UUID(org)), UUID(org))
    return home, Place(ResourceRef(ResourceType.PROJECT, UUID(project)), UUID(org), UUID(project))


async def test_200_checks_are_answered_in_order_and_201_are_too_many(alice: Caller, org: str, project: str) -> None:
    await alice.grant("PROJECT", project, "user:u7", "PROJECT_VIEWER")
    checks = [check(f"u{number}", project) for number in range(200)]
    assert await ask(alice, checks) == [number == 7 for number in range(200)]
    assert await ask(alice, [checks[7], checks[8]] * 100) == [True, False] * 100
    for refused in ([], [*checks, checks[0]]):
        assert pointers_of(await alice.post("/authz/batch-check", {"checks": refused}, 422)) == ["/checks"]
    wrong = await alice.post("/authz/batch-check", {"checks": [checks[0], {**checks[0], "action": "FLY"}]}, 422)
    assert pointers_of(wrong) == ["/checks/1/action"]


async def test_a_batch_answers_each_question_as_it_would_be_answered_alone(alice: Caller, bob: Caller, org: str, project: str) -> None:
    await alice.grant("PROJECT", project, "user:bob", "PROJECT_EDITOR")
    checks = [
        check(actor, where, kind, action)
        for actor in ("bob", "alice")
        for kind, where in (("PROJECT", project), ("ORGANIZATION", org), ("PROJECT", NOBODY), ("DOCUMENT", project), ("API_CALL", NOBODY))
        for action in ("PROJECT_READ", "PROJECT_DELETE")
    ]
    for caller in (alice, bob):
        alone: list[bool | None] = []
        for one in checks:
            answer = await caller.post("/authz/check", one, None)
            assert answer.status_code in {200, 404}
            alone.append(answer.json()["allowed"] if answer.status_code == 200 else None)
        assert await ask(caller, checks) == alone
        told = (await caller.post("/authz/batch-check", {"checks": checks}, 200)).json()["results"]
        refusals = [one["error"] for one in told if one["allowed"] is None]
        refused = (await caller.post("/authz/check", check("carol", NOBODY), 404)).json()
        assert refusals
        assert all(one == {name: refused[name] for name in ("status", "code", "detail")} for one in refusals)


async def test_an_actor_is_compared_exactly_whatever_it_is_called(service: Service, alice: Caller, org: str, project: str) -> None:
    granted = ODD[::2]
    for name in granted:
        await alice.grant("PROJECT", project, f"user:{name}", "PROJECT_VIEWER")
    assert await ask(alice, [check(name, project) for name in ODD]) == [name in granted for name in ODD]
    query = {"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": project, "limit": 3}
    response, found = await alice.get("/authz/who-can", params=query), []
    while True:
        found += [actor["id"] for actor in response.json()]
        if "link" not in response.headers:
            break
        response = await alice.get(next_link_of(response))
    assert found == sorted([*granted, "alice"])
    objects = {"action": "PROJECT_READ", "resource_type": "PROJECT", "actor_type": "USER"}
    change = {"resource_type": "PROJECT", "resource_id": project, "actor_type": "USER", "role": "PROJECT_OWNER"}
    told = (await alice.post("/authz/simulate", {"grants": [{**change, "actor_id": name} for name in ODD]}, 200)).json()
    assert {effect["actor"]["id"] for effect in told["effects"]} == set(ODD)
    for name in ODD:
        listed = (await alice.post("/authz/list-objects", {**objects, "actor_id": name}, 200)).json()
        assert [item["id"] for item in listed["items"]] == ([project] if name in granted else [])
        explained = (await alice.post("/authz/explain", check(name, project), 200)).json()
        assert explained["allowed"] is (name in granted)
        roles = (await alice.get("/authz/effective-roles", params=check(name, project))).json()
        assert bool(roles) is (name in granted)
    for name in granted[:6]:
        assert (await service.as_(f"user:{name}").get(f"/projects/{project}")).json()["id"] == project


async def test_a_key_that_cannot_exist_may_nothing(alice: Caller, org: str, project: str) -> None:
    odd = ("not-a-uuid", "0", str(uuid4()), str(uuid4()).upper(), "{" + str(uuid4()) + "}", "urn:uuid:" + str(uuid4()), *ODD[:12])
    assert await ask(alice, [check(name, project, actor_type="API_KEY") for name in odd]) == [False] * len(odd)
    change = {"resource_type": "PROJECT", "resource_id": project, "actor_type": "API_KEY", "role": "PROJECT_VIEWER"}
    body = {
        "revocations": [{**change, "actor_id": name} for name in odd],
        "checks": [check(name, project, actor_type="API_KEY") for name in odd],
    }
    told = (await alice.post("/authz/simulate", body, 200)).json()
    assert {(one["before"], one["after"]) for one in told["checks"]} == {(False, False)}
    assert told["effects"] == []
    for name in odd:
        asked = {"action": "PROJECT_READ", "resource_type": "PROJECT", "actor_type": "API_KEY", "actor_id": name}
        assert (await alice.post("/authz/list-objects", asked, 200)).json()["items"] == []
        await alice.post("/authz/explain", check(name, project, actor_type="API_KEY"), 200)


async def test_a_cursor_continues_the_question_it_came_from(alice: Caller, org: str) -> None:
    for _ in range(3):
        await alice.new_project(org)
    asked: dict[str, Any] = {"action": "PROJECT_READ", "resource_type": "PROJECT", "limit": 1}
    cursor = (await alice.post("/authz/list-objects", asked, 200)).json()["next_cursor"]
    second = (await alice.post("/authz/list-objects", {**asked, "cursor": cursor}, 200)).json()
    assert (len(second["items"]), second["total_items"], second["has_more"]) == (1, 3, True)
    for other in ({"action": "PROJECT_UPDATE"}, {"resource_type": "DOCUMENT"}, {"actor_type": "USER", "actor_id": "bob"}):
        refused = await alice.post("/authz/list-objects", {**asked, **other, "cursor": cursor}, 422)
        assert [(error["pointer"], error["code"]) for error in refused.json()["errors"]] == [("/cursor", "invalid_cursor")]
    for tampered in ("", "x", "é", cursor[:-3], cursor + "AA", cursor[::-1], "bnVsbA", "W10", "x" * 512, "W1tbW1tbW1tbW1tbW10="):
        refused = await alice.post("/authz/list-objects", {**asked, "cursor": tampered}, 422)
        assert refused.json()["errors"][0]["pointer"] == "/cursor", tampered
    assert pointers_of(await alice.post("/authz/list-objects", {**asked, "cursor": "x" * 513}, 422)) == ["/cursor"]
    query = {"action": "ORGANIZATION_READ", "resource_type": "ORGANIZATION", "resource_id": org}
    for tampered in ("", "robot:r2", "user:", "user:" + "x" * 257, "user:a\x00b"):
        refused = await alice.get("/authz/who-can", 422, params={**query, "cursor": tampered})
        read_problem(refused, 422)
    assert (await alice.get("/authz/who-can", params={**query, "cursor": "user:zoe"})).json() == []


async def test_pages_of_objects_miss_and_repeat_nothing_while_others_write(alice: Caller, org: str) -> None:
    before = [(await alice.new_project(org))["id"] for _ in range(20)]
    found: list[str] = []
    asked: dict[str, Any] = {"action": "PROJECT_READ", "resource_type": "PROJECT", "limit": 6}
    for cursor_number in range(50):
        page, *_ = await asyncio.gather(alice.post("/authz/list-objects", asked, 200), *(alice.new_project(org) for _ in range(2)))
        told = page.json()
        found += [item["id"] for item in told["items"]]
        if told["next_cursor"] is None:
            break
        asked["cursor"] = told["next_cursor"]
        if cursor_number > 3:
            await asyncio.sleep(0)
            asked["limit"] = 1000
    assert len(found) == len(set(found))
    assert found == sorted(found)
    assert found[:20] == before


async def test_who_can_is_complete_in_pages(service: Service, alice: Caller, org: str, project: str) -> None:
    home, place = places(org, project)
    told = rows.group(home, "many")
    told += rows.grant(place, Actor(ActorType.GROUP, "many"), Role.PROJECT_VIEWER)
    for number in range(1250):
        told += rows.grant(place, Actor(ActorType.USER, f"direct-{number}"), Role.PROJECT_VIEWER)
        told += rows.member(home, "many", Actor(ActorType.SERVICE, f"grouped-{number}"))
    await rows.write(service.runtime.context.database, told)
    query = {"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": project}
    expected = sorted(
        [("GROUP", "many"), ("USER", "alice")]
        + [("USER", f"direct-{number}") for number in range(1250)]
        + [("SERVICE", f"grouped-{number}") for number in range(1250)]
    )
    for path in ("/authz/who-can", "/authz/who-can-explain"):
        pages = [await alice.get(path, params=query)]
        while "link" in pages[-1].headers:
            pages.append(await alice.get(next_link_of(pages[-1])))
        actors = [one["actor"] if "explain" in path else one for page in pages for one in page.json()]
        assert [len(page.json()) for page in pages] == [1000, 1000, 502]
        assert [(actor["type"], actor["id"]) for actor in actors] == expected
    alone = (await alice.get("/authz/who-can", params={**query, "expand": False, "limit": 2})).json()
    assert [actor["id"] for actor in alone] == ["many", "alice"]


async def test_groups_in_circles_and_deep_ones_are_walked_to_their_end(service: Service, alice: Caller, org: str, project: str) -> None:
    depth = 200
    home, place = places(org, project)
    groups = [Actor(ActorType.GROUP, f"g{number}") for number in range(depth)]
    told = [row for group in groups for row in rows.group(home, group.id)]
    for number, group in enumerate(groups):  # each in the next, and the last in the first
        told += rows.member(home, groups[(number + 1) % depth].id, group)
    told += rows.member(home, "g0", Actor(ActorType.USER, "deep")) + rows.grant(place, groups[-1], Role.PROJECT_VIEWER)
    told += rows.member(home, "g0", Actor(ActorType.USER, "gone"), PAST)
    await rows.write(service.runtime.context.database, told)
    assert await ask(alice, [check("deep", project), check("gone", project)]) == [True, False]
    deep = service.as_("user:deep")
    assert (await deep.get(f"/projects/{project}")).json()["id"] == project
    assert (await deep.get("/projects")).json()["total_items"] == 1
    path = (await deep.post("/authz/explain", check("deep", project), 200)).json()["path"]
    assert [step["group"] for step in path[1:-1]] == [group.id for group in groups]
    query = {"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": project}
    able = {actor["id"] for actor in (await alice.get("/authz/who-can", params=query)).json()}
    assert able == {"alice", "deep", *(group.id for group in groups)}
    change = {"resource_type": "PROJECT", "resource_id": project, "actor_type": "GROUP", "actor_id": "g199", "role": "PROJECT_VIEWER"}
    lost = (await alice.post("/authz/simulate", {"revocations": [change]}, 200)).json()
    assert {effect["actor"]["id"] for effect in lost["effects"]} == able - {"alice"}
