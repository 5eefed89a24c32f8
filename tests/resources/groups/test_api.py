"""Groups over HTTP: what is granted to a group counts for who is in it, and letting somebody in is granting."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.conftest import Caller, Service
from tests.support.answers import at_once, count_rows, events_of, next_link_of, path_of, pointers_of, read_problem
from tests.support.keys import after, key_of
from tests.support.moments import LAPSES, made_for_a_moment, wait_for
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio


@pytest.fixture
async def org(alice: Caller) -> str:
    return str((await alice.new_organization())["id"])


def member(subject: str, **body: Any) -> dict[str, Any]:
    kind, _, identifier = subject.partition(":")
    return {"member_type": kind.upper(), "member_id": identifier, **body}


async def new_group(caller: Caller, org: str, group: str, *members: str) -> str:
    """A group with members; its address."""
    await caller.post(f"/organizations/{org}/groups", {"group_id": group})
    address = f"/organizations/{org}/groups/{group}"
    for one in members:
        await caller.post(f"{address}/members", member(one))
    return address


async def test_a_group_is_created_read_listed_changed_and_deleted(service: Service, alice: Caller, org: str) -> None:
    base = f"/organizations/{org}/groups"
    made = (await alice.post(base, {"group_id": "devs", "metadata": {"a": 1}})).json()
    assert set(made) == {"id", "organization_id", "group_id", "name", "metadata", "created_at", "updated_at", "created_by_subject"}
    assert (made["group_id"], made["name"], made["metadata"], made["organization_id"]) == ("devs", "devs", {"a": 1}, org)
    assert (await alice.get(f"{base}/devs")).json() == made
    await alice.post(base, {"group_id": "ops", "name": "Operators"})
    assert [group["group_id"] for group in (await alice.get(base)).json()["items"]] == ["devs", "ops"]
    assert [group["group_id"] for group in (await alice.get(base, params={"name_contains": "OPER"})).json()["items"]] == ["ops"]
    changed = (await alice.patch(f"{base}/devs", {"name": "Developers"})).json()
    assert {**changed, "updated_at": 0} == {**made, "name": "Developers", "updated_at": 0}
    await alice.delete(f"{base}/devs")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/members")):
        await alice.request(method, f"{base}/devs{path}", 404)
    await alice.patch(f"{base}/devs", {"name": "x"}, 404)
    await alice.post(f"{base}/devs/members", member("user:bob"), 404)
    assert [event["action"] for event in await events_of(alice, organization_id=org) if event["action"].startswith("GROUP")] == [
        "GROUP_CREATED", "GROUP_CREATED", "GROUP_UPDATED", "GROUP_DELETED",
    ]  # fmt: skip


async def test_a_group_has_an_address_and_an_entity_tag_of_its_own(alice: Caller, org: str) -> None:
    of_organization = (await alice.get(f"/organizations/{org}")).headers["etag"]
    made = await alice.post(f"/organizations/{org}/groups", {"group_id": "dev#ops? é"})
    group, tag = path_of(made), made.headers["etag"]
    assert (await alice.get(group)).json() == made.json()
    assert (await alice.get(group)).headers["etag"] == tag
    await alice.get(group, 304, headers={"If-None-Match": tag})
    changed = await alice.patch(group, {"name": "new"}, headers={"If-Match": tag})
    assert (await alice.get(group)).headers["etag"] == changed.headers["etag"] != tag
    for stale in (tag, of_organization):
        read_problem(await alice.patch(group, {"name": "newer"}, 412, headers={"If-Match": stale}), 412, "precondition_failed")
        read_problem(await alice.delete(group, 412, headers={"If-Match": stale}), 412, "precondition_failed")
    tag = changed.headers["etag"]
    answers = await at_once(*(alice.patch(group, {"name": f"n{n}"}, None, headers={"If-Match": tag}) for n in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    await alice.delete(group, headers={"If-Match": (await alice.get(group)).headers["etag"]})
    await alice.get(group, 404)


async def test_a_key_for_managing_alone_manages_groups_and_reads_none(service: Service, alice: Caller, org: str) -> None:
    group = await new_group(alice, org, "devs")
    key, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN", actions=["MEMBER_MANAGE"])
    blind, _ = await key_of(service, alice, "ORGANIZATION", org, "ORG_ADMIN", actions=["PROJECT_READ"])
    assert (await key.patch(group, {"name": "new"})).json()["group_id"] == "devs"
    await key.post(f"{group}/members", member("user:bob"))
    for caller in (key, blind):
        await caller.get(group, 404)
    for one in (group, f"{group}x"):
        await blind.delete(one, 404)
    await key.delete(group)


async def test_every_change_of_members_is_recorded_once(alice: Caller, org: str) -> None:
    group = await new_group(alice, org, "devs", "user:bob")
    ends = after(days=1)
    shown = (await alice.post(f"{group}/members", member("service:ci", expires_at=ends))).json()
    assert (shown["member"], shown["added_by_subject"]) == ({"type": "SERVICE", "id": "ci"}, "user:alice")
    assert datetime.fromisoformat(shown["expires_at"]) == datetime.fromisoformat(ends)
    assert [one["member"]["id"] for one in (await alice.get(f"{group}/members")).json()] == ["ci", "bob"]
    for _ in range(2):
        await alice.delete(f"{group}/members", params=member("user:bob"))
    events = [event for event in await events_of(alice, organization_id=org) if event["action"].startswith("GROUP_MEMBER")]
    assert [(event["action"], event["details"]["member"]) for event in events] == [
        ("GROUP_MEMBER_ADDED", "user:bob"),
        ("GROUP_MEMBER_ADDED", "service:ci"),
        ("GROUP_MEMBER_REMOVED", "user:bob"),
    ]
    assert "expires_at" in events[1]["details"]


async def test_the_same_id_or_member_twice_is_a_conflict_and_ids_are_bound_to_their_tenant(alice: Caller, org: str) -> None:
    group = await new_group(alice, org, "devs", "user:bob")
    read_problem(await alice.post(f"/organizations/{org}/groups", {"group_id": "devs"}, 409), 409, "group_exists")
    read_problem(await alice.post(f"{group}/members", member("user:bob"), 409), 409, "already_member")
    other = str((await alice.new_organization())["id"])
    await new_group(alice, other, "devs", "user:bob")


async def test_values_that_cannot_be_are_named(alice: Caller, org: str) -> None:
    group, base = await new_group(alice, org, "devs"), f"/organizations/{org}/groups"
    for identifier in ("", " ", ".", "..", "a/b", "x" * 101, "a\nb"):
        assert set(pointers_of(await alice.post(base, {"group_id": identifier}, 422))) == {"/group_id"}
    assert set(pointers_of(await alice.post(base, {"group_id": "x", "organization_id": org}, 422))) == {"/organization_id"}
    assert set(pointers_of(await alice.patch(group, {"group_id": "y"}, 422))) == {"/group_id"}
    for body, pointer in (
        (member("user:"), "/member_id"),
        (member("group:nobody-made-it"), "/member_id"),
        (member("api_key:x"), "/member_type"),
        (member("robot:x"), "/member_type"),
        (member("user:bob", expires_at="2001-01-01T00:00:00Z"), "/expires_at"),
    ):
        assert set(pointers_of(await alice.post(f"{group}/members", body, 422))) == {pointer}
    assert (await alice.get(f"{group}/members")).json() == []
    for odd in ("%00", "x" * 5000, "%EF%BF%BD"):
        assert (await alice.get(f"{base}/{odd}", None)).status_code in {404, 422}


async def test_a_group_of_another_organization_is_no_member(alice: Caller, org: str) -> None:
    other = str((await alice.new_organization())["id"])
    await new_group(alice, other, "theirs", "user:mallory")
    group = await new_group(alice, org, "ours")
    assert pointers_of(await alice.post(f"{group}/members", member("group:theirs"), 422)) == ["/member_id"]


async def test_a_grant_to_a_group_counts_for_its_members_from_the_next_request(alice: Caller, bob: Caller, org: str) -> None:
    project = await alice.new_project(org)
    group = await new_group(alice, org, "devs", "user:bob")
    await bob.get(f"/projects/{project['id']}", 404)
    await alice.grant("PROJECT", project["id"], "group:devs", "PROJECT_EDITOR")
    await bob.patch(f"/projects/{project['id']}", {"name": "new"})
    assert [one["id"] for one in (await bob.get("/projects")).json()["items"]] == [project["id"]]
    await alice.delete(f"{group}/members", params=member("user:bob"))
    await bob.get(f"/projects/{project['id']}", 404)
    assert (await bob.get("/projects")).json()["total_items"] == 0


async def test_groups_in_groups_count_and_circles_do_no_harm(alice: Caller, bob: Caller, org: str) -> None:
    project = await alice.new_project(org)
    low = await new_group(alice, org, "low", "user:bob")
    await new_group(alice, org, "middle", "group:low")
    top = await new_group(alice, org, "top", "group:middle", "group:top")
    await alice.post(f"{low}/members", member("group:top"))
    await alice.grant("PROJECT", project["id"], "group:top", "PROJECT_VIEWER")
    await bob.get(f"/projects/{project['id']}")
    assert (await bob.get("/projects")).json()["total_items"] == 1
    await alice.delete(f"{top}/members", params=member("group:middle"))
    await bob.get(f"/projects/{project['id']}", 404)
    assert (await bob.get("/projects")).json()["total_items"] == 0


async def test_a_group_of_the_same_name_elsewhere_opens_nothing(alice: Caller, bob: Caller, mallory: Caller, org: str) -> None:
    project = await alice.new_project(org)
    await new_group(alice, org, "all", "user:bob")
    await alice.grant("PROJECT", project["id"], "group:all", "PROJECT_OWNER")
    theirs = str((await mallory.new_organization())["id"])
    await new_group(mallory, theirs, "all", "user:mallory")
    await mallory.get(f"/projects/{project['id']}", 404)
    assert (await mallory.get("/projects")).json()["total_items"] == 0
    await bob.get(f"/projects/{project['id']}")
    await bob.get(f"/organizations/{theirs}", 404)


async def test_a_membership_in_a_group_ends_at_its_time(alice: Caller, bob: Caller, org: str) -> None:
    project = await alice.new_project(org)
    group = await new_group(alice, org, "devs")
    await alice.grant("PROJECT", project["id"], "group:devs", "PROJECT_VIEWER")
    for seconds in LAPSES:
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        await alice.post(f"{group}/members", member("user:bob", expires_at=end.isoformat()), None)
        seen = (await bob.get(f"/projects/{project['id']}", None)).status_code
        if datetime.now(UTC) < end:
            break
    assert seen == 200
    await wait_for(end)
    await bob.get(f"/projects/{project['id']}", 404)
    assert (await bob.get("/projects")).json()["total_items"] == 0


async def test_who_has_left_a_group_by_time_comes_in_again_also_at_once(service: Service, alice: Caller, bob: Caller, org: str) -> None:
    group = await new_group(alice, org, "devs")
    await alice.grant("ORGANIZATION", org, "group:devs", "ORG_MEMBER")
    made, ends = await made_for_a_moment(lambda end: alice.post(f"{group}/members", member("user:bob", expires_at=end), None))
    old = made.json()
    await wait_for(ends)
    await bob.get(f"/organizations/{org}", 404)
    answers = await at_once(*(alice.post(f"{group}/members", member("user:bob"), None) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    (new,) = (await alice.get(f"{group}/members")).json()
    assert new["expires_at"] is None
    assert new["added_at"] > old["added_at"]
    await bob.get(f"/organizations/{org}")
    assert len(await events_of(alice, organization_id=org, action="GROUP_MEMBER_ADDED")) == 2


async def test_the_members_are_bounded_and_lead_to_the_rest(alice: Caller, org: str) -> None:
    names = ["agent:x", "group:other group", "service:ci", "user:a:b", "user:bob", "user:Zoë"]
    await new_group(alice, org, "other group")
    await alice.post(f"/organizations/{org}/groups", {"group_id": "dev#ops? é"})
    group = f"/organizations/{org}/groups/dev%23ops%3F é"
    for name in names:
        await alice.post(f"{group}/members", member(name))
    whole = await alice.get(f"{group}/members")
    assert len(whole.json()) == len(names)
    assert "link" not in whole.headers
    for limit in (1, 2, 5):
        page = await alice.get(f"{group}/members", params={"limit": limit})
        walked = page.json()
        while "link" in page.headers:
            assert len(page.json()) == limit
            page = await alice.get(next_link_of(page))
            walked += page.json()
            assert len(walked) <= len(names)
        assert walked == whole.json()
    cursor = httpx.URL(next_link_of(await alice.get(f"{group}/members", params={"limit": 1}))).params["cursor"]
    other = f"/organizations/{org}/groups/other group/members"
    for bad in ({"cursor": cursor}, {"cursor": "x"}, {"limit": 0}, {"limit": 1001}):
        assert pointers_of(await alice.get(other, 422, params=bad)) == [f"query.{next(iter(bad))}"]


async def test_who_holds_less_than_a_group_lets_nobody_in_or_out(service: Service, alice: Caller, bob: Caller, org: str) -> None:
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_ADMIN")
    owners = await new_group(alice, org, "owners", "user:carol")
    await alice.grant("ORGANIZATION", org, "group:owners", "ORG_OWNER")
    for mine in ("user:bob", "user:mallory"):
        read_problem(await bob.post(f"{owners}/members", member(mine), 403), 403, "escalation")
    read_problem(await bob.delete(f"{owners}/members", 403, params=member("user:carol")), 403, "escalation")
    read_problem(await bob.delete(owners, 403), 403, "escalation")
    await service.as_("user:carol").delete(f"{owners}/members", params=member("user:carol"))
    await alice.post(f"{owners}/members", member("user:dave"))


async def test_a_group_inside_a_mightier_group_is_as_closed_as_that_one(alice: Caller, bob: Caller, org: str) -> None:
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_ADMIN")
    project = await alice.new_project(org)
    low = await new_group(alice, org, "low")
    await new_group(alice, org, "middle", "group:low")
    await new_group(alice, org, "top", "group:middle")
    await bob.post(f"{low}/members", member("user:erin"))
    await alice.grant("PROJECT", project["id"], "group:top", "PROJECT_OWNER")
    read_problem(await bob.post(f"{low}/members", member("user:bob"), 403), 403, "escalation")
    mine = await new_group(bob, org, "mine", "user:bob")
    read_problem(await bob.post(f"/organizations/{org}/groups/top/members", member("group:mine"), 403), 403, "escalation")
    await bob.delete(f"/projects/{project['id']}", 403)
    await bob.post(f"{mine}/members", member("group:top"))  # the other way round gives away only what `mine` holds: nothing
    await bob.delete(f"/projects/{project['id']}", 403)


async def test_letting_in_asks_once_for_each_type_of_resource(service: Service, alice: Caller, org: str) -> None:
    group = await new_group(alice, org, "devs")
    counts = []
    for _ in range(2):
        for _ in range(3):
            project = (await alice.new_project(org))["id"]
            await alice.grant("PROJECT", project, "group:devs", "PROJECT_VIEWER")
            await alice.grant("DOCUMENT", (await alice.new_document(project))["id"], "group:devs", "DOCUMENT_OWNER")
        with statements_of_requests(service.runtime.context.database) as sent:
            await alice.post(f"{group}/members", member(f"user:{project}"))
        counts.append(len(sent))
    assert counts[0] == counts[1]


async def test_a_group_that_is_being_deleted_comes_into_no_other(alice: Caller, org: str) -> None:
    outer = await new_group(alice, org, "outer")
    for number in range(8):
        inner = await new_group(alice, org, f"inner-{number}")
        came_in, gone = await at_once(alice.post(f"{outer}/members", member(f"group:inner-{number}"), None), alice.delete(inner, None))
        assert (came_in.status_code, gone.status_code) in {(201, 204), (422, 204)}
    assert (await alice.get(f"{outer}/members")).json() == []


async def test_a_group_made_after_its_grant_is_as_closed(alice: Caller, bob: Caller, org: str) -> None:
    await alice.grant("ORGANIZATION", org, "user:bob", "ORG_ADMIN")
    await alice.grant("ORGANIZATION", org, "group:later", "ORG_OWNER")
    group = await new_group(bob, org, "later")
    read_problem(await bob.post(f"{group}/members", member("user:bob"), 403), 403, "escalation")


async def test_only_who_manages_members_changes_groups_and_strangers_see_none(
    service: Service, alice: Caller, mallory: Caller, org: str
) -> None:
    group, base = await new_group(alice, org, "devs", "user:bob"), f"/organizations/{org}/groups"
    await alice.grant("ORGANIZATION", org, "user:carol", "ORG_MEMBER")
    for caller, status in ((service.as_("user:carol"), 403), (mallory, 404), (service.as_(None), 401)):
        await caller.post(base, {"group_id": "x"}, status)
        await caller.patch(group, {"name": "x"}, status)
        await caller.delete(group, status)
        await caller.post(f"{group}/members", member("user:zoe"), status)
        await caller.delete(f"{group}/members", status, params=member("user:bob"))
        for path in (base, group, f"{group}/members"):
            await caller.get(path, 200 if status == 403 else status)
    assert [one["member"]["id"] for one in (await alice.get(f"{group}/members")).json()] == ["bob"]


async def test_a_member_leaves_without_any_right(service: Service, alice: Caller, org: str) -> None:
    group = await new_group(alice, org, "devs", "user:carol", "user:dave")
    await alice.grant("ORGANIZATION", org, "group:devs", "ORG_MEMBER")
    carol = service.as_("user:carol")
    await carol.delete(f"{group}/members", 403, params=member("user:dave"))
    await carol.delete(f"{group}/members", params=member("user:carol"))
    await carol.get(f"/organizations/{org}", 404)
    assert (await events_of(alice, organization_id=org, action="GROUP_MEMBER_REMOVED"))[0]["actor"]["id"] == "carol"


async def test_deleting_a_group_takes_what_it_gave_and_leaves_no_trace_to_come_back_to(
    service: Service, alice: Caller, bob: Caller, org: str
) -> None:
    project = await alice.new_project(org)
    group = await new_group(alice, org, "devs", "user:bob")
    await new_group(alice, org, "outer", "group:devs")
    await alice.grant("PROJECT", project["id"], "group:devs", "PROJECT_VIEWER")
    await alice.grant("PROJECT", project["id"], "group:outer", "PROJECT_EDITOR")
    await bob.patch(f"/projects/{project['id']}", {"name": "x"})
    await alice.delete(group)
    await bob.get(f"/projects/{project['id']}", 404)
    assert await count_rows(service, "group_members") == 0
    await new_group(alice, org, "devs", "user:bob")
    await bob.get(f"/projects/{project['id']}", 404)


async def test_deleting_the_organization_removes_its_groups(service: Service, alice: Caller, org: str) -> None:
    await new_group(alice, org, "devs", "user:bob")
    await alice.delete(f"/organizations/{org}")
    assert [await count_rows(service, table) for table in ('"groups"', "group_members", "memberships")] == [0, 0, 0]
