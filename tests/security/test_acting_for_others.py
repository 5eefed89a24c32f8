"""Acting for others (AUTHORIZATION.md 2.5, rule 8): what both may do and no more, never by accident, and both names stand everywhere."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from app.jobs import write_denials
from tests.conftest import Caller, Service, make_settings, open_service
from tests.support.answers import denied_events_of, events_of, next_link_of, read_problem
from tests.support.keys import make_key, shows

pytestmark = pytest.mark.anyio

FOR: Final = "X-SaaSBase-On-Behalf-Of"
ACTOR: Final = "X-SaaSBase-Actor"
SAME: Final = {"X-Request-ID": "the-same"}


@dataclass(frozen=True)
class World:
    """A project that bob may view, carol edit and the agent own; and one beside it that bob owns and the agent does not know."""

    service: Service
    alice: Caller
    org: str
    shared: str
    foreign: str

    async def key(self, role: str = "PROJECT_OWNER", **body: Any) -> dict[str, Any]:
        """A key of the shared project; with the right to act for others unless ``body`` says no."""
        return await make_key(self.alice, "PROJECT", self.shared, role, **{"may_act_for_others": True, **body})


@pytest.fixture
async def world(service: Service, alice: Caller) -> World:
    org = (await alice.new_organization())["id"]
    shared, foreign = [(await alice.new_project(org))["id"] for _ in range(2)]
    for project, subject, role in (
        (shared, "user:bob", "PROJECT_VIEWER"),
        (shared, "user:carol", "PROJECT_EDITOR"),
        (shared, "agent:helper", "PROJECT_OWNER"),
        (foreign, "user:bob", "PROJECT_OWNER"),
    ):
        await alice.grant("PROJECT", project, subject, role)
    return World(service, alice, org, shared, foreign)


def acting(service: Service, actor: str, principal: str) -> Caller:
    """Who a trusted proxy says is acting, and for whom."""
    return Caller(service.client, {ACTOR: actor, FOR: principal})


async def test_what_both_may_do_is_done_and_no_more(world: World) -> None:
    token = (await world.key())["token"]
    for for_bob, for_carol, for_nobody in (
        [acting(world.service, "agent:helper", f"user:{name}") for name in ("bob", "carol", "mallory")],
        [shows(world.service, token, **{FOR: f"user:{name}"}) for name in ("bob", "carol", "mallory")],
    ):
        path = f"/projects/{world.shared}"
        await for_bob.get(path)
        read_problem(await for_bob.patch(path, {"name": "x"}, 403), 403)
        await for_carol.patch(path, {"name": "x"})
        await for_carol.delete(path, 403)
        for caller in (for_nobody, for_bob):  # what one of the two does not see is not there
            hidden = path if caller is for_nobody else f"/projects/{world.foreign}"
            invisible = await caller.get(hidden, 404, headers=SAME)
            absent = await caller.get("/projects/00000000-0000-0000-0000-000000000000", 404, headers=SAME)
            assert invisible.json() | {"instance": ""} == absent.json() | {"instance": ""}


async def test_lists_hold_what_both_may_see(world: World) -> None:
    for_bob = acting(world.service, "agent:helper", "user:bob")
    for path, paging in (("/projects", {"page": 0}), ("/projects", {"limit": 5})):
        assert [item["id"] for item in (await for_bob.get(path, params=paging)).json()["items"]] == [world.shared]
    assert (await for_bob.get("/projects")).json()["total_items"] == 1
    assert (await acting(world.service, "agent:helper", "user:mallory").get("/projects")).json()["items"] == []
    assert (await acting(world.service, "user:alice", "user:bob").get("/organizations")).json()["items"] == []
    objects = (await for_bob.post("/authz/list-objects", {"action": "PROJECT_READ", "resource_type": "PROJECT"}, 200)).json()
    assert ([item["id"] for item in objects["items"]], objects["total_items"]) == ([world.shared], 1)
    me = (await for_bob.get("/me")).json()
    assert (me["actor"], me["on_behalf_of"]) == ({"type": "AGENT", "id": "helper"}, "user:bob")


async def test_questions_tell_what_both_may_do(world: World) -> None:
    for_bob = acting(world.service, "agent:helper", "user:bob")
    asked = {"actor_type": "AGENT", "actor_id": "helper", "resource_type": "PROJECT", "resource_id": world.shared}
    for action, expected in (("PROJECT_READ", True), ("PROJECT_DELETE", False)):
        assert (await for_bob.post("/authz/check", {**asked, "action": action}, 200)).json()["allowed"] is expected
        told = (await for_bob.post("/authz/explain", {**asked, "action": action}, 200)).json()
        assert told["allowed"] is expected
        assert ("does not reach that far" in told["reason"]) is not expected
    actions = (await for_bob.post("/authz/list-actions", asked, 200)).json()["actions"]
    (role,) = (await for_bob.get("/authz/effective-roles", params=asked)).json()
    assert (role["role"], role["actions"]) == ("PROJECT_OWNER", actions)
    assert "PROJECT_READ" in actions
    assert "PROJECT_UPDATE" not in actions
    hidden = acting(world.service, "agent:helper", "user:mallory")
    assert (await hidden.get("/authz/effective-roles", params=asked)).json() == []
    query = {"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": world.shared}
    await for_bob.get("/authz/who-can", 404, params=query)
    await hidden.get("/authz/who-can", 404, params=query)
    changes = {"grants": [{**asked, "role": "PROJECT_VIEWER"}]}
    await for_bob.post("/authz/simulate", changes, 404)
    await world.service.as_("agent:helper").post("/authz/simulate", changes, 200)


async def test_the_access_line_of_a_refusal_says_who_wanted_to_act_for_whom(world: World, caplog: pytest.LogCaptureFixture) -> None:
    key = await world.key(may_act_for_others=False)
    caplog.set_level(logging.INFO, "app.access")
    caplog.clear()
    read_problem(await shows(world.service, key["token"], **{FOR: "user:bob"}).get("/me", 403), 403, "may_not_act_for_others")
    (line,) = [vars(record) for record in caplog.records if record.name == "app.access"]
    assert (line["actor"], line["on_behalf_of"]) == (f"api_key:{key['api_key']['id']}", "user:bob")


async def test_who_may_not_act_for_others_is_refused_and_not_heard(world: World) -> None:
    plain = (await world.key(may_act_for_others=False))["token"]
    for method, path in (
        ("GET", f"/projects/{world.shared}"),
        ("GET", "/projects"),
        ("GET", "/me"),
        ("DELETE", f"/projects/{world.shared}"),
    ):
        for principal in ("user:bob", "user:alice", "service:any"):
            refused = await shows(world.service, plain, **{FOR: principal}).request(method, path)
            read_problem(refused, 403, "may_not_act_for_others")
    await world.alice.get(f"/projects/{world.shared}")
    # The actor header is no such wish: sent by a proxy beside everybody's key, it says nothing about who may not act for others.
    me = (await shows(world.service, plain, **{ACTOR: "user:alice"}).get("/me")).json()
    assert (me["actor"]["type"], me["on_behalf_of"]) == ("API_KEY", None)


async def test_the_actor_header_names_who_a_key_acts_for_if_it_may(world: World) -> None:
    token = (await world.key())["token"]
    for_bob = shows(world.service, token, **{ACTOR: "user:bob"})
    me = (await for_bob.get("/me")).json()
    assert (me["actor"]["type"], me["on_behalf_of"]) == ("API_KEY", "user:bob")
    await for_bob.patch(f"/projects/{world.shared}", {"name": "x"}, 403)
    twice = shows(world.service, token, **{ACTOR: "user:bob", FOR: "bob"})
    assert (await twice.get("/me")).json()["on_behalf_of"] == "user:bob"
    two = shows(world.service, token, **{ACTOR: "user:alice", FOR: "user:bob"})
    read_problem(await two.get("/me", 400), 400, "ambiguous_actor")
    alone = (await shows(world.service, token).get("/me")).json()
    assert (alone["on_behalf_of"], alone["api_key"]["may_act_for_others"]) == (None, True)


async def test_only_a_believed_proxy_names_for_whom(database_url: str, tmp_path: Path) -> None:
    headers = {ACTOR: "user:alice", FOR: "user:bob"}
    async with open_service(make_settings(database_url, tmp_path), peer="192.0.2.1") as service:
        read_problem(await Caller(service.client, headers).get("/me", 401), 401)
        read_problem(await Caller(service.client, {FOR: "user:bob"}).get("/me", 401), 401)
    settings = make_settings(database_url, tmp_path, actor={"proxy_secret": "s3cret-of-the-proxy-0123456789abcdef"})
    async with open_service(settings) as service:
        read_problem(await Caller(service.client, headers).get("/me", 401), 401)
        believed = {**headers, "X-SaaSBase-Proxy-Secret": "s3cret-of-the-proxy-0123456789abcdef"}
        assert (await Caller(service.client, believed).get("/me")).json()["on_behalf_of"] == "user:bob"


async def test_nobody_acts_for_another_without_a_name_of_his_own(world: World) -> None:
    await world.alice.grant("PROJECT", world.shared, "service:anonymous", "PROJECT_VIEWER")
    refused = await Caller(world.service.client, {FOR: "user:alice"}).get(f"/projects/{world.shared}", 401)
    read_problem(refused, 401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    for bad in ("Bearer sbk_abc.def", "Basic x"):
        read_problem(await Caller(world.service.client, {"Authorization": bad, FOR: "user:alice"}).get("/me", 401), 401)


async def test_a_principal_that_cannot_be_read_is_refused(world: World) -> None:
    token = (await world.key())["token"]
    bearer: tuple[tuple[str, Any], ...] = (("Authorization", f"Bearer {token}"),)
    for proof, header in (((("X-SaaSBase-Actor", "agent:helper"),), FOR), (bearer, FOR), (bearer, ACTOR)):
        expected: tuple[tuple[Any, int], ...] = (
            ("group:devs", 400),
            ("api_key:01890000-0000-7000-8000-000000000000", 401),
            ("robot:r2", 400),
            ("user:", 400),
            ("", 400),
            ("  ", 400),
            ("user:" + "x" * 257, 400),
            (b"user:\xff", 400),
        )
        for named, status in expected:
            got = await world.service.client.get("/api/me", headers=[*proof, (header, named)])
            assert got.status_code == status, (header, named, got.text)
        twice = await world.service.client.get("/api/me", headers=[*proof, (header, "user:bob"), (header, "user:bob")])
        read_problem(twice, 400, "ambiguous_actor")


async def test_nobody_creates_an_organization_for_another(world: World) -> None:
    for caller in (acting(world.service, "user:alice", "user:bob"), acting(world.service, "user:alice", "user:alice")):
        read_problem(await caller.post("/organizations", {"slug": "of-two"}, 403), 403)


async def test_what_is_handed_out_is_held_by_both(world: World) -> None:
    await world.alice.grant("ORGANIZATION", world.org, "user:dora", "ORG_ADMIN")
    for_dora = acting(world.service, "user:alice", "user:dora")
    await for_dora.grant("ORGANIZATION", world.org, "user:new", "ORG_ADMIN")
    read_problem(await for_dora.grant("ORGANIZATION", world.org, "user:new", "ORG_OWNER", 403), 403, "escalation")
    for_alice = acting(world.service, "user:dora", "user:alice")
    read_problem(await for_alice.grant("ORGANIZATION", world.org, "user:new", "ORG_OWNER", 403), 403, "escalation")
    await for_alice.grant("PROJECT", world.shared, "user:dora", "PROJECT_OWNER", 403)
    owner = {"resource_type": "ORGANIZATION", "resource_id": world.org, "actor_type": "USER", "actor_id": "alice", "role": "ORG_OWNER"}
    read_problem(await for_dora.delete("/memberships", 403, params=owner), 403, "escalation")
    await for_dora.post(f"/organizations/{world.org}/groups", {"group_id": "owners"})
    await world.alice.grant("ORGANIZATION", world.org, "group:owners", "ORG_OWNER")
    members = f"/organizations/{world.org}/groups/owners/members"
    read_problem(await for_dora.post(members, {"member_type": "USER", "member_id": "x"}, 403), 403, "escalation")
    (granted,) = [grant for grant in (await world.alice.get("/memberships", params={**owner})).json() if grant["actor"]["id"] == "new"]
    assert granted["granted_by_subject"] == "user:alice"


async def test_giving_up_is_for_oneself_alone(world: World) -> None:
    """Who acts for another is not "oneself": neither the actor nor the principal loses what it holds by a word of both."""
    await world.alice.grant("PROJECT", world.shared, "user:bob", "PROJECT_EDITOR")
    held = {"resource_type": "PROJECT", "resource_id": world.shared, "actor_type": "USER", "actor_id": "bob", "role": "PROJECT_EDITOR"}
    members = f"/organizations/{world.org}/groups/team/members"
    member = {"member_type": "USER", "member_id": "bob"}
    await world.alice.post(f"/organizations/{world.org}/groups", {"group_id": "team"})
    await world.alice.grant("ORGANIZATION", world.org, "group:team", "ORG_MEMBER")
    await world.alice.post(members, member)
    for actor, principal in (
        ("user:bob", "user:carol"),
        ("user:bob", "user:bob"),
        ("user:carol", "user:bob"),
        ("agent:helper", "user:bob"),
    ):
        caller = acting(world.service, actor, principal)
        await caller.delete("/memberships", 403, params=held)
        refused = await caller.delete(members, None, params=member)
        assert refused.status_code in {403, 404}, (actor, principal)
    bob = world.service.as_("user:bob")
    await bob.delete("/memberships", params=held)
    assert [one["member"]["id"] for one in (await world.alice.get(members)).json()] == ["bob"]


async def test_a_key_made_for_another_holds_what_both_hold(world: World) -> None:
    await world.alice.grant("PROJECT", world.shared, "user:erin", "PROJECT_OWNER")
    wanted = {"name": "k", "scope_type": "PROJECT", "scope_id": world.shared, "role": "PROJECT_VIEWER"}
    read_problem(await acting(world.service, "agent:helper", "user:bob").post("/api-keys", wanted, 403), 403)
    for_erin = acting(world.service, "agent:helper", "user:erin")
    made = await make_key(for_erin, "PROJECT", world.shared, "PROJECT_OWNER")
    assert made["api_key"]["created_by_subject"] == "agent:helper"
    for action in ("API_KEY_CREATED", "MEMBERSHIP_GRANTED"):
        told = await events_of(world.alice, organization_id=world.org, action=action)
        assert told[-1]["on_behalf_of"] == "user:erin"
    parent = await world.key()
    by_key = shows(world.service, parent["token"], **{FOR: "user:erin"})
    child = await make_key(by_key, "PROJECT", world.shared, "PROJECT_VIEWER")
    await world.alice.post(f"/api-keys/{parent['api_key']['id']}/revoke", expect=200)
    read_problem(await shows(world.service, child["token"]).get("/me", 401), 401)


async def test_both_names_stand_in_every_event(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.access")
    for_carol, path = acting(world.service, "agent:helper", "user:carol"), f"/projects/{world.shared}"
    await for_carol.patch(path, {"name": "x"})
    document = await for_carol.new_document(world.shared)
    await for_carol.delete(f"/documents/{document['id']}", 403)
    started = {"organization_id": world.org, "project_id": world.shared, "operation": "op"}
    execution = (await for_carol.post("/executions", started)).json()
    assert (execution["actor"]["id"], execution["on_behalf_of"]) == ("helper", "user:carol")
    await for_carol.post(f"/executions/{execution['id']}/complete", {}, 200)
    await write_denials(world.service.runtime.context, all_of_them=True)
    told = [event for event in await events_of(world.alice, organization_id=world.org) if event["actor"]["id"] == "helper"]
    actions = {"PROJECT_UPDATED", "DOCUMENT_CREATED", "ACCESS_DENIED", "EXECUTION_STARTED", "EXECUTION_COMPLETED"}
    assert {event["action"] for event in told} == actions
    assert {(event["actor"]["type"], event["on_behalf_of"], event["auth_method"]) for event in told} == {("AGENT", "user:carol", "header")}
    lines = [vars(record) for record in caplog.records if record.name == "app.access"]
    shown = {(line["actor"], line["on_behalf_of"]) for line in lines if line["method"] in {"PATCH", "DELETE"}}
    assert shown == {("agent:helper", "user:carol")}


async def test_refusals_are_told_apart_by_who_they_are_for(world: World) -> None:
    path = f"/projects/{world.shared}"
    for _ in range(2):
        for name in ("bob", "carol"):
            await acting(world.service, "agent:helper", f"user:{name}").delete(path, 403)
    await acting(world.service, "user:bob", "agent:helper").delete(path, 403)
    told = await denied_events_of(world.service, world.alice, organization_id=world.org)
    found = sorted((event["actor"]["id"], event["on_behalf_of"], event["details"]["attempts"]) for event in told)
    assert found == [("bob", "agent:helper", 1), ("helper", "user:bob", 2), ("helper", "user:carol", 2)]


async def test_a_narrow_key_for_another_may_the_least_of_three(world: World) -> None:
    narrow = (await world.key(actions=["PROJECT_READ", "DOCUMENT_CREATE", "DOCUMENT_DELETE"]))["token"]
    for_bob, for_carol = [shows(world.service, narrow, **{FOR: f"user:{name}"}) for name in ("bob", "carol")]
    for caller in (for_bob, for_carol):
        await caller.get(f"/projects/{world.shared}")
        await caller.patch(f"/projects/{world.shared}", {"name": "x"}, 403)  # the key was not made for it
    await for_bob.upload(f"/projects/{world.shared}/documents", expect=403)  # bob may not
    document = await for_carol.new_document(world.shared)
    await for_carol.delete(f"/documents/{document['id']}", 404)  # carol may not; and the key was not made to read documents
    only = (await for_carol.post("/authz/list-actions", {"resource_type": "PROJECT", "resource_id": world.shared}, 200)).json()
    assert only == {"actions": ["DOCUMENT_CREATE", "PROJECT_READ"]}
    read_problem(await for_carol.get("/documents", 403), 403)


async def test_rights_end_with_those_of_either(world: World) -> None:
    for_carol, path = acting(world.service, "agent:helper", "user:carol"), f"/projects/{world.shared}"
    key = {"resource_type": "PROJECT", "resource_id": world.shared}
    for kind, name, role in (("USER", "carol", "PROJECT_EDITOR"), ("AGENT", "helper", "PROJECT_OWNER")):
        await for_carol.get(path)
        await world.alice.delete("/memberships", params={**key, "actor_type": kind, "actor_id": name, "role": role})
        await for_carol.get(path, 404)
        await world.alice.grant("PROJECT", world.shared, f"{kind.lower()}:{name}", role)


async def test_the_next_page_is_for_the_same_principal(world: World) -> None:
    await world.alice.grant("PROJECT", world.shared, "user:dora", "PROJECT_OWNER")
    for_dora = acting(world.service, "agent:helper", "user:dora")
    query = {"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": world.shared, "limit": 2}
    first = await for_dora.get("/authz/who-can", params=query)
    second = await for_dora.get(next_link_of(first))
    await acting(world.service, "agent:helper", "user:bob").get(next_link_of(first), 404)
    everybody = (await world.alice.get("/authz/who-can", params={**query, "limit": 1000})).json()
    assert first.json() + second.json() == everybody[:4]
