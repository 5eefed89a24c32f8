"""Pruning the audit trail: by owners alone, exactly what was chosen, and never without a trace."""

from itertools import product
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Caller, Service
from tests.resources.audit_events.test_verify import sealed
from tests.support.answers import events_of, pointers_of, read_problem, run_sql

pytestmark = pytest.mark.anyio


class World:
    """Two organizations of alice and one of mallory, each with two projects that were renamed twice."""

    def __init__(self, alice: Caller, mallory: Caller) -> None:
        self.alice = alice
        self.mallory = mallory
        self.ids: dict[str, str] = {}

    async def make(self) -> "World":
        for name, caller in (("own", self.alice), ("other", self.alice), ("foreign", self.mallory)):
            self.ids[name] = (await caller.new_organization())["id"]
            for project in ("first", "second"):
                made = await caller.new_project(self.ids[name])
                self.ids[f"{name}.{project}"] = made["id"]
                for number in range(2):
                    await caller.patch(f"/projects/{made['id']}", {"name": f"{project} {number}"})
        return self

    async def events(self) -> list[dict[str, Any]]:
        """All events of all three organizations, oldest first."""
        return [event for caller in (self.alice, self.mallory) for event in await events_of(caller)]


async def _prune(caller: Caller, organization_id: str, expect: int = 200, **chosen: Any) -> Any:
    return (await caller.delete("/audit-events", expect, params={"organization_id": organization_id, **chosen})).json()


async def test_exactly_the_chosen_events_go_and_one_that_says_so_stays(alice: Caller, mallory: Caller) -> None:
    for by_project, by_action, by_time in product((False, True), repeat=3):
        world = await World(alice, mallory).make()
        before = await world.events()
        own = [event for event in before if event["organization_id"] == world.ids["own"] and event["action"] != "AUDIT_PRUNED"]
        project = world.ids["own.first"]
        bound = [event for event in own if event["project_id"] == project][1]["occurred_at"]
        chosen = {
            **({"project_id": project} if by_project else {}),
            **({"action": "PROJECT_UPDATED"} if by_action else {}),
            **({"occurred_to": bound} if by_time else {}),
        }
        gone = [
            event["id"]
            for event in own
            if (not by_project or event["project_id"] == project)
            and (not by_action or event["action"] == "PROJECT_UPDATED")
            and (not by_time or event["occurred_at"] <= bound)
        ]
        assert gone
        assert await _prune(alice, world.ids["own"], **chosen) == {"pruned": len(gone)}
        known = {event["id"] for event in before}
        after = await world.events()
        assert [event for event in after if event["id"] in known] == [event for event in before if event["id"] not in gone]
        (told,) = [event for event in after if event["id"] not in known]
        assert (told["action"], told["actor"]) == ("AUDIT_PRUNED", {"type": "USER", "id": "alice"})
        assert told["details"] == {"pruned": len(gone), "chosen": chosen}
        assert told["resource"] == {"type": "ORGANIZATION", "id": world.ids["own"]}
        assert (told["organization_id"], told["project_id"]) == (world.ids["own"], None)


async def test_pruning_leaves_a_trace_even_of_nothing_and_each_time_again(alice: Caller) -> None:
    organization = await alice.new_organization()
    assert await _prune(alice, organization["id"], action="DOCUMENT_DELETED") == {"pruned": 0}
    assert [event["action"] for event in await events_of(alice)] == ["ORGANIZATION_CREATED", "MEMBERSHIP_GRANTED", "AUDIT_PRUNED"]
    for count, expected in enumerate((2, 0, 0), 2):
        assert await _prune(alice, organization["id"]) == {"pruned": expected}
        left = await events_of(alice)
        assert [event["action"] for event in left] == ["AUDIT_PRUNED"] * count, "what tells of prunes is never pruned"
        assert left[-1]["details"]["pruned"] == expected


async def test_the_project_of_another_organization_selects_nothing(alice: Caller, mallory: Caller) -> None:
    world = await World(alice, mallory).make()
    before = await world.events()
    for name in ("other.first", "foreign.first"):
        assert await _prune(alice, world.ids["own"], project_id=world.ids[name]) == {"pruned": 0}
    assert [event for event in await world.events() if event["action"] != "AUDIT_PRUNED"] == before


async def test_a_prune_without_one_organization_or_with_a_doubtful_choice_removes_nothing(
    service: Service, alice: Caller, mallory: Caller
) -> None:
    world = await World(alice, mallory).make()
    before = await world.events()
    own = {"organization_id": world.ids["own"]}
    for params, pointer in (
        ({}, "organization_id"),
        ({"project_id": world.ids["own.first"]}, "organization_id"),
        ({"organization_id": ""}, "organization_id"),
        ({"organization_id": "all"}, "organization_id"),
        ({**own, "actor_id": "zzz"}, "actor_id"),
        ({**own, "occured_to": "2000-01-01T00:00:00Z"}, "occured_to"),
        ({**own, "occurred_from": "2000-01-01T00:00:00Z"}, "occurred_from"),
        ({**own, "action": "project_updated"}, "action"),
        ({**own, "action": ""}, "action"),
        ({**own, "project_id": ""}, "project_id"),
        ({**own, "occurred_to": "2000-01-01T00:00:00"}, "occurred_to"),
        ({**own, "occurred_to": "yesterday"}, "occurred_to"),
    ):
        refused = await alice.delete("/audit-events", 422, params=params)
        assert set(pointers_of(refused)) == {f"query.{pointer}"}, params
    assert await _prune(alice, world.ids["own"], occurred_to="2000-01-01T00:00:00Z") == {"pruned": 0}
    assert [event for event in await world.events() if event["action"] != "AUDIT_PRUNED"] == before


async def test_only_owners_of_the_organization_prune(service: Service, alice: Caller, mallory: Caller) -> None:
    world = await World(alice, mallory).make()
    own, project = world.ids["own"], world.ids["own.first"]
    for who, role in (("admin", "ORG_ADMIN"), ("member", "ORG_MEMBER"), ("heir", "ORG_OWNER")):
        await alice.grant("ORGANIZATION", own, f"user:{who}", role)
    await alice.grant("PROJECT", project, "user:lead", "PROJECT_OWNER")
    rows = await run_sql(service, "SELECT id FROM audit_events WHERE outcome = 'SUCCESS' ORDER BY id")
    for who, status in (("admin", 403), ("member", 403), ("lead", 404), ("mallory", 404)):
        for chosen in ({}, {"project_id": project}):
            params = {"organization_id": own, **chosen}
            read_problem(await service.as_(f"user:{who}").delete("/audit-events", status, params=params), status)
    read_problem(await service.as_(None).delete("/audit-events", 401, params={"organization_id": own}), 401)
    read_problem(await alice.delete("/audit-events", 404, params={"organization_id": str(uuid4())}), 404)
    assert await run_sql(service, "SELECT id FROM audit_events WHERE outcome = 'SUCCESS' ORDER BY id") == rows
    assert (await _prune(service.as_("user:heir"), own))["pruned"] > 0
    (told,) = await events_of(alice, organization_id=own, outcome="SUCCESS")
    assert (told["action"], told["actor"]["id"]) == ("AUDIT_PRUNED", "heir")


@pytest.mark.parametrize("change", ["occurred_at = '2001-01-01 00:00:00'", "action = 'PROJECT_UPDATED'"])
async def test_what_was_changed_behind_the_services_back_cannot_be_pruned_away(change: str, service: Service, alice: Caller) -> None:
    organization = (await alice.new_organization())["id"]
    await alice.new_project(organization)
    await _prune(alice, organization, action="DOCUMENT_DELETED")
    assert (await sealed(alice, organization))["ok"]
    chosen = {"action": "PROJECT_UPDATED"} if "action" in change else {"occurred_to": "2002-01-01T00:00:00Z"}
    for position in (4, 3, 1) if "action" in change else (3, 1):  # the fourth tells of the prune
        await run_sql(service, f"UPDATE audit_events SET {change} WHERE position = {position}")
        before = await events_of(alice)
        refused = await alice.delete("/audit-events", 409, params={"organization_id": organization, **chosen})
        assert f"broken at position {position}," in read_problem(refused, 409, "chain_broken")["detail"]
        assert await events_of(alice) == before
        assert (await sealed(alice, organization))["first_break"]["position"] == position
