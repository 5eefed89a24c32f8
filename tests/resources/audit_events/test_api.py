"""The audit trail over HTTP: who did what, from where, and who was refused."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from app.audit.trail import Origin, Subject, make_event
from app.core.actors import Actor, ActorType, Identity
from app.core.events import AuditAction, Outcome
from app.core.resources import ResourceRef, ResourceType
from app.jobs import write_denials
from app.unit_of_work import UnitOfWork
from tests.conftest import Caller, Service
from tests.support.answers import count_rows, denied_events_of, events_of, pointers_of, read_problem

pytestmark = pytest.mark.anyio

FIELDS = {
    *("id", "occurred_at", "actor", "on_behalf_of", "auth_method", "action", "outcome", "resource", "organization_id", "project_id"),
    *("ip", "user_agent", "request_id", "correlation_id", "details"),
}


async def refuse_update(caller: Caller, organization_id: str, times: int = 1, headers: dict[str, str] | None = None) -> None:
    for _ in range(times):
        response = await caller.patch(f"/organizations/{organization_id}", {"name": "x"}, None, headers=headers or {})
        assert response.status_code in {401, 403, 404}


async def test_an_event_tells_who_from_where_and_under_which_ids(alice: Caller) -> None:
    headers: dict[str, Any] = {
        "User-Agent": "curl/8\t é".encode(),
        "X-Request-ID": "req-1",
        "X-Correlation-ID": "order 7",
        "X-Forwarded-For": "203.0.113.9",
    }
    response = await alice.post("/organizations", {"slug": "acme"}, headers=headers)
    created, granted = await events_of(alice)
    for event in (created, granted):
        assert set(event) == FIELDS
        assert event["actor"] == {"type": "USER", "id": "alice"}
        assert (event["auth_method"], event["on_behalf_of"], event["outcome"]) == ("header", None, "SUCCESS")
        assert (event["request_id"], event["correlation_id"]) == ("req-1", "order 7")
        assert event["ip"] == "203.0.113.9"
        assert event["user_agent"].startswith("curl/8")
        assert "\t" not in event["user_agent"]
        assert event["occurred_at"] >= response.json()["created_at"]
    assert created["id"] < granted["id"]


async def test_a_refused_attempt_of_a_member_is_recorded(service: Service, alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    await alice.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
    await refuse_update(bob, organization["id"], headers={"X-Request-ID": "refused", "X-Correlation-ID": "c-1", "User-Agent": "evil"})
    (denied,) = await denied_events_of(service, alice)
    assert (denied["action"], denied["outcome"]) == ("ACCESS_DENIED", "DENIED")
    assert denied["actor"] == {"type": "USER", "id": "bob"}
    assert denied["resource"] == {"type": "ORGANIZATION", "id": organization["id"]}
    assert (denied["organization_id"], denied["project_id"]) == (organization["id"], None)
    assert denied["details"] == {"asked_action": "ORGANIZATION_UPDATE", "attempts": 1}
    assert (denied["request_id"], denied["correlation_id"]) == ("refused", "c-1")
    assert (denied["user_agent"], denied["ip"], denied["auth_method"]) == ("evil", "127.0.0.1", "header")


async def test_attempts_of_strangers_and_anonymous_callers_are_recorded(service: Service, alice: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization()
    project = await alice.new_project(organization["id"])
    await mallory.get(f"/projects/{project['id']}", 404)
    await service.as_(None).delete(f"/projects/{project['id']}", 401)
    stranger, nobody = await denied_events_of(service, alice, project_id=project["id"])
    assert (stranger["actor"]["id"], stranger["details"]["asked_action"]) == ("mallory", "PROJECT_READ")
    assert (nobody["actor"], nobody["auth_method"]) == ({"type": "SERVICE", "id": "anonymous"}, "anonymous")
    assert nobody["details"]["asked_action"] == "PROJECT_DELETE"


async def test_attempts_on_what_does_not_exist_leave_nothing(service: Service, mallory: Caller) -> None:
    await refuse_update(mallory, str(uuid4()))
    assert await write_denials(service.runtime.context, all_of_them=True) == 0
    assert await count_rows(service, "audit_events") == 0


async def test_repeated_attempts_are_one_row_a_minute_with_a_count(service: Service, alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    await alice.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
    context = service.runtime.context
    await refuse_update(bob, organization["id"], 5)
    await write_denials(context)
    await refuse_update(bob, organization["id"], 3)
    assert await write_denials(context) == 0
    assert sum(event["details"]["attempts"] for event in await events_of(alice, outcome="DENIED")) <= 5
    await refuse_update(bob, organization["id"], 1)
    denied = await denied_events_of(service, alice)
    assert sum(event["details"]["attempts"] for event in denied) == 9
    assert len(denied) <= 3
    await bob.delete(f"/organizations/{organization['id']}", 403)
    others = [event for event in await denied_events_of(service, alice) if event["details"]["asked_action"] == "ORGANIZATION_DELETE"]
    assert [event["details"]["attempts"] for event in others] == [1]


async def test_a_refusal_by_a_rule_is_recorded_like_any_other(service: Service, alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    await alice.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_ADMIN")
    await bob.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_OWNER", 403)
    (denied,) = await denied_events_of(service, alice)
    assert (denied["actor"]["id"], denied["action"], denied["details"]["asked_action"]) == ("bob", "ACCESS_DENIED", "escalation")
    assert denied["resource"] == {"type": "ORGANIZATION", "id": organization["id"]}


async def test_a_batch_of_refusals_that_cannot_be_written_is_written_later(
    service: Service, alice: Caller, bob: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    organization = await alice.new_organization()
    await alice.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
    context = service.runtime.context
    with monkeypatch.context() as fault:
        fault.setattr(UnitOfWork, "commit", _broken)
        context.denials.add(*_refusal(organization["id"]))
        with pytest.raises(ConnectionError):
            await write_denials(context)
    await write_denials(context, all_of_them=True)
    (denied,) = await events_of(alice, outcome="DENIED")
    assert denied["details"]["attempts"] == 1


async def _broken(_work: UnitOfWork) -> None:
    raise ConnectionError("the database is away")


def _refusal(organization_id: str) -> tuple[Identity, dict[str, Any], str]:
    subject = Subject(ResourceRef(ResourceType.ORGANIZATION, UUID(organization_id)), UUID(organization_id))
    carl = Identity(Actor(ActorType.USER, "carl"), "header")
    event = make_event(carl, Origin(), AuditAction.ACCESS_DENIED, subject, {"asked_action": "x"}, outcome=Outcome.DENIED)
    return carl, event, "x"


async def test_a_job_writes_refused_attempts_about_once_a_second(service: Service, alice: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization()
    await refuse_update(mallory, organization["id"])
    deadline = datetime.now().astimezone() + timedelta(seconds=60)
    while not (seen := await events_of(alice, outcome="DENIED")):
        assert datetime.now().astimezone() < deadline
    assert seen[0]["actor"]["id"] == "mallory"


async def test_the_trail_is_for_those_who_manage_members(service: Service, alice: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization()
    project, other = await alice.new_project(organization["id"]), await alice.new_project(organization["id"])
    for name, role in (("admin", "ORG_ADMIN"), ("member", "ORG_MEMBER"), ("editor", "PROJECT_EDITOR")):
        await alice.grant("ORGANIZATION", organization["id"], f"user:{name}", role)
    await alice.grant("PROJECT", project["id"], "user:lead", "PROJECT_OWNER")
    await refuse_update(mallory, organization["id"])
    whole = await denied_events_of(service, alice)
    assert len(whole) == 1
    everything = await events_of(alice)
    assert await events_of(service.as_("user:admin")) == everything
    for name in ("member", "editor", "mallory"):
        assert await events_of(service.as_(f"user:{name}")) == []
        path = f"/audit-events/by-resource?resource_type=ORGANIZATION&resource_id={organization['id']}"
        assert (await service.as_(f"user:{name}").get(path)).json() == []
    assert await events_of(service.as_("user:lead")) == [event for event in everything if event["project_id"] == project["id"]]
    assert await events_of(service.as_("user:lead"), project_id=other["id"]) == []
    read_problem(await service.as_(None).get("/audit-events", 401), 401, "unauthenticated")


async def test_no_event_crosses_to_another_tenant(alice: Caller, bob: Caller) -> None:
    both = {"X-Correlation-ID": "shared"}
    mine = (await alice.post("/organizations", {"slug": "mine"}, headers=both)).json()
    theirs = (await bob.post("/organizations", {"slug": "theirs"}, headers=both)).json()
    for caller, own, foreign in ((alice, mine, theirs), (bob, theirs, mine)):
        assert {event["organization_id"] for event in await events_of(caller)} == {own["id"]}
        assert {event["organization_id"] for event in (await caller.get("/audit-events/by-correlation/shared")).json()} == {own["id"]}
        assert await events_of(caller, organization_id=foreign["id"]) == []


async def test_filters_are_exact_and_combine(service: Service, alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    project = await alice.new_project(organization["id"])
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_OWNER")
    await bob.patch(f"/projects/{project['id']}", {"name": "new"}, headers={"X-Correlation-ID": "Case"})
    everything = await events_of(alice)
    assert len(everything) == 5
    expected: list[tuple[dict[str, Any], list[int]]] = [
        ({"organization_id": organization["id"]}, [0, 1, 2, 3, 4]),
        ({"project_id": project["id"]}, [2, 3, 4]),
        ({"action": "MEMBERSHIP_GRANTED"}, [1, 3]),
        ({"action": "MEMBERSHIP_GRANTED", "project_id": project["id"]}, [3]),
        ({"actor_type": "USER", "actor_id": "bob"}, [4]),
        ({"actor_type": "SERVICE", "actor_id": "bob"}, []),
        ({"actor_type": "USER", "actor_id": "BOB"}, []),
        ({"resource_type": "PROJECT"}, [2, 3, 4]),
        ({"resource_type": "PROJECT", "resource_id": project["id"], "action": "PROJECT_UPDATED"}, [4]),
        ({"correlation_id": "Case"}, [4]),
        ({"correlation_id": "case"}, []),
        ({"outcome": "SUCCESS"}, [0, 1, 2, 3, 4]),
        ({"outcome": "DENIED"}, []),
        ({"organization_id": str(uuid4())}, []),
    ]
    for filters, places in expected:
        assert await events_of(alice, **filters) == [everything[place] for place in places], filters
    backwards = await events_of(alice, sort="OCCURRED_AT", direction="Desc")
    assert backwards == everything[::-1]
    actions = [event["action"] for event in await events_of(alice, sort="action")]
    assert actions == sorted(event["action"] for event in everything)


async def test_by_resource_and_by_correlation_list_what_the_filters_do(alice: Caller) -> None:
    correlation = "Bestellung 7 ü?&%"
    await alice.post("/organizations", {"slug": "noise"})
    headers = {"X-Correlation-ID": correlation.encode()}
    organization = (await alice.post("/organizations", {"slug": "acme"}, headers=headers)).json()
    wanted = await events_of(alice, resource_type="ORGANIZATION", resource_id=organization["id"])
    assert len(wanted) == 2
    assert wanted[0]["correlation_id"] == correlation
    resource = {"resource_type": "ORGANIZATION", "resource_id": organization["id"]}
    assert (await alice.get("/audit-events/by-resource", params=resource)).json() == wanted
    assert (await alice.get(f"/audit-events/by-correlation/{quote(correlation, safe='')}")).json() == wanted
    assert (await alice.get("/audit-events/by-correlation/absent")).json() == []
    assert (await alice.get("/audit-events/by-resource", params={**resource, "resource_type": "PROJECT"})).json() == []
    for name in resource:
        missing = {key: value for key, value in resource.items() if key != name}
        assert pointers_of(await alice.get("/audit-events/by-resource", 422, params=missing)) == [f"query.{name}"]
    assert pointers_of(await alice.get("/audit-events/by-correlation/%00", 422)) == ["path.correlation_id"]


async def test_bounds_of_time_are_compared_as_times(alice: Caller) -> None:
    await alice.new_organization()
    await alice.new_organization()
    everything = await events_of(alice)
    for place, event in enumerate(everything):
        moment = datetime.fromisoformat(event["occurred_at"])
        spellings = (event["occurred_at"], moment.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo).isoformat())
        for spelling in spellings:
            assert await events_of(alice, occurred_from=spelling) == everything[place:]
            assert await events_of(alice, occurred_to=spelling) == everything[: place + 1]
            assert await events_of(alice, occurred_from=spelling, occurred_to=spelling) == [event]
    first = datetime.fromisoformat(everything[0]["occurred_at"])
    whole_second = first.replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert await events_of(alice, occurred_from=whole_second) == everything
    assert await events_of(alice, occurred_to=whole_second) == ([everything[0]] if first.microsecond == 0 else [])


async def test_half_pairs_and_bad_values_are_refused(alice: Caller) -> None:
    refused: list[tuple[dict[str, str], str]] = [
        ({"actor_type": "USER"}, "query"),
        ({"actor_id": "alice"}, "query"),
        ({"actor_type": "USER", "actor_id": "  "}, "query"),
        ({"actor_type": "ROBOT", "actor_id": "x"}, "query.actor_type"),
        ({"action": "project_created"}, "query.action"),
        ({"outcome": "denied"}, "query.outcome"),
        ({"resource_type": "EXECUTION"}, "query.resource_type"),
        ({"resource_id": "x"}, "query.resource_id"),
        ({"organization_id": "x"}, "query.organization_id"),
        ({"project_id": ""}, "query.project_id"),
        ({"occurred_from": "2026-01-01T00:00:00"}, "query.occurred_from"),
        ({"occurred_to": "yesterday"}, "query.occurred_to"),
        ({"occurred_to": "0001-01-01T00:00:00Z"}, "query.occurred_to"),
        ({"sort": "actor_id"}, "query.sort"),
        ({"direction": "sideways"}, "query.direction"),
        ({"correlation_id": "a\x00"}, "query.correlation_id"),
    ]
    for query, pointer in refused:
        assert pointers_of(await alice.get("/audit-events", 422, params=query)) == [pointer], query


async def test_nobody_can_change_or_remove_events_over_http(alice: Caller) -> None:
    await alice.new_organization()
    (event, _) = await events_of(alice)
    for method in ("POST", "PATCH", "DELETE"):
        await alice.request(method, f"/audit-events/{event['id']}", 404, json={})
    await alice.request("PATCH", "/audit-events", 405, json={})
    await alice.request("DELETE", "/audit-events", 422)  # what may be pruned, and by whom, is told in test_prune
    assert len(await events_of(alice)) == 2
