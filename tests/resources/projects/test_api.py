"""Projects over HTTP."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import at_once, count_rows, denied_events_of, events_of, path_of, pointers_of, read_problem

pytestmark = pytest.mark.anyio

FIELDS = {"id", "organization_id", "name", "metadata", "created_at", "updated_at", "created_by_subject"}


async def test_a_new_project_has_defaults_an_address_and_an_author(alice: Caller) -> None:
    organization = await alice.new_organization()
    response = await alice.post("/projects", {"organization_id": organization["id"], "name": " Rollout "})
    project = response.json()
    assert set(project) == FIELDS
    assert (project["organization_id"], project["name"], project["metadata"]) == (organization["id"], "Rollout", {})
    assert (project["created_by_subject"], project["created_at"]) == ("user:alice", project["updated_at"])
    assert UUID(project["id"]).version == 7
    assert response.headers["location"] == f"/api/projects/{project['id']}"
    found = await alice.get(path_of(response))
    assert (found.json(), found.headers["etag"]) == (project, response.headers["etag"])


async def test_names_of_projects_need_not_be_unique(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    answers = await at_once(*(alice.post("/projects", {"organization_id": organization["id"], "name": "same"}) for _ in range(6)))
    assert len({answer.json()["id"] for answer in answers}) == 6
    assert await count_rows(service, "projects") == 6


async def test_a_body_that_is_not_acceptable_is_refused_with_its_place(alice: Caller) -> None:
    organization = await alice.new_organization()
    good = {"organization_id": organization["id"], "name": "x"}
    changes: list[tuple[dict[str, Any], str]] = [
        ({"name": ""}, "/name"),
        ({"name": "  "}, "/name"),
        ({"name": None}, "/name"),
        ({"name": "n" * 256}, "/name"),
        ({"name": "tab\tname"}, "/name"),
        ({"name": ["x"]}, "/name"),
        ({"organization_id": "acme"}, "/organization_id"),
        ({"organization_id": None}, "/organization_id"),
        ({"metadata": "{}"}, "/metadata"),
        ({"id": str(uuid4())}, "/id"),
        ({"slug": "x"}, "/slug"),
    ]
    for change, pointer in changes:
        assert pointers_of(await alice.post("/projects", {**good, **change}, None)) == [pointer], change
    assert sorted(pointers_of(await alice.post("/projects", {}, None))) == ["/name", "/organization_id"]
    assert (await alice.get("/projects")).json()["total_items"] == 0


async def test_a_parent_that_is_absent_or_invisible_is_not_found(service: Service, alice: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization()
    for caller, parent in ((alice, str(uuid4())), (mallory, organization["id"])):
        read_problem(await caller.post("/projects", {"organization_id": parent, "name": "x"}, 404), 404, "not_found")
    read_problem(await service.as_(None).post("/projects", {"organization_id": organization["id"], "name": "x"}, 401), 401)
    assert await count_rows(service, "projects") == 0


async def test_creating_needs_the_right_on_the_organization_and_grants_nothing(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    for actor, role in (("admin", "ORG_ADMIN"), ("member", "ORG_MEMBER")):
        await alice.grant("ORGANIZATION", organization["id"], f"user:{actor}", role)
    before = await count_rows(service, "memberships")
    project = await service.as_("user:admin").new_project(organization["id"])
    assert await count_rows(service, "memberships") == before
    read_problem(await service.as_("user:admin").delete(f"/projects/{project['id']}", 403), 403, "forbidden")
    refused = await service.as_("user:member").post("/projects", {"organization_id": organization["id"], "name": "x"}, 403)
    read_problem(refused, 403, "forbidden")
    (denied,) = await denied_events_of(service, alice, actor_type="USER", actor_id="member")
    assert (denied["resource"]["id"], denied["details"]["asked_action"]) == (organization["id"], "PROJECT_CREATE")


async def test_patch_changes_what_is_given_and_keeps_the_rest(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    created = await alice.new_project(organization["id"], name="Old", metadata={"a": {"b": None}})
    path = f"/projects/{created['id']}"
    renamed = (await alice.patch(path, {"name": "New"})).json()
    assert renamed == {**created, "name": "New", "updated_at": renamed["updated_at"]}
    assert renamed["updated_at"] > created["updated_at"]
    replaced = (await alice.patch(path, {"metadata": {"c": None}, "name": None})).json()
    assert (replaced["name"], replaced["metadata"]) == ("New", {"c": None})
    before = await count_rows(service, "audit_events")
    for body in ({}, {"name": None}, {"metadata": None}):
        assert (await alice.patch(path, body)).json() == replaced
    assert await count_rows(service, "audit_events") == before
    for name, value in {"organization_id": organization["id"], "name": " ", "metadata": [], "id": created["id"]}.items():
        assert pointers_of(await alice.patch(path, {name: value}, None)) == [f"/{name}"]
    assert (await alice.get(path)).json() == replaced


async def test_a_project_cannot_be_moved_to_another_organization(alice: Caller) -> None:
    home, other = await alice.new_organization(), await alice.new_organization()
    project = await alice.new_project(home["id"])
    assert pointers_of(await alice.patch(f"/projects/{project['id']}", {"organization_id": other["id"]}, None)) == ["/organization_id"]
    assert (await alice.get(f"/projects/by-organization/{other['id']}")).json() == []


async def test_deleting_takes_everything_below_and_nothing_beside(service: Service, alice: Caller, bob: Caller) -> None:
    organization = await alice.new_organization()
    kept, gone = await alice.new_project(organization["id"]), await alice.new_project(organization["id"])
    for project in (kept, gone):
        document = await alice.new_document(project["id"])
        await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_VIEWER")
        await alice.grant("DOCUMENT", document["id"], "user:bob", "DOCUMENT_VIEWER")
    tables = ("projects", "documents", "document_versions")
    before = {table: await count_rows(service, table) for table in tables}
    trail = await count_rows(service, "audit_events")
    await alice.delete(f"/projects/{gone['id']}")
    assert {table: await count_rows(service, table) * 2 for table in tables} == before
    assert await count_rows(service, "memberships") == 3  # alice's ownership and bob's two grants in the kept project
    assert await count_rows(service, "audit_events") == trail + 1
    for caller in (alice, bob):
        read_problem(await caller.get(f"/projects/{gone['id']}", 404), 404, "not_found")
        read_problem(await caller.get(f"/documents/{document['id']}", 404), 404, "not_found")
        assert (await caller.get("/projects")).json()["items"] == [kept]
    await alice.delete(f"/projects/{gone['id']}", 404)


async def test_a_project_that_is_created_while_its_organization_goes_is_whole_or_absent(service: Service, alice: Caller) -> None:
    for _ in range(3):
        organization = await alice.new_organization()
        new = {"organization_id": organization["id"], "name": "x"}
        answers = await at_once(
            *(alice.post("/projects", new, None) for _ in range(4)),
            alice.request("DELETE", f"/organizations/{organization['id']}"),
        )
        assert {answer.status_code for answer in answers[:4]} <= {201, 404}
        assert answers[4].status_code == 204
    assert await count_rows(service, "projects") == 0


async def test_every_change_is_recorded_with_its_details(alice: Caller) -> None:
    organization = await alice.new_organization()
    project = await alice.new_project(organization["id"], name="One")
    path = f"/projects/{project['id']}"
    await alice.patch(path, {"name": "Two"})
    await alice.delete(path)
    events = await events_of(alice, resource_type="PROJECT")
    assert [(event["action"], event["details"]) for event in events] == [
        ("PROJECT_CREATED", {"name": "One"}),
        ("PROJECT_UPDATED", {"name": "Two", "changed": ["name"], "before": {"name": "One"}, "after": {"name": "Two"}}),
        ("PROJECT_DELETED", {"name": "Two"}),
    ]
    for event in events:
        assert event["resource"] == {"type": "PROJECT", "id": project["id"]}
        assert (event["organization_id"], event["project_id"]) == (organization["id"], project["id"])
        assert (event["actor"], event["outcome"]) == ({"type": "USER", "id": "alice"}, "SUCCESS")


async def test_lists_hold_what_the_caller_may_read_and_nothing_else(service: Service, alice: Caller, bob: Caller, mallory: Caller) -> None:
    first, second = await alice.new_organization(), await bob.new_organization()
    mine = [await alice.new_project(first["id"], name=name) for name in ("Alpha", "beta")]
    shared, hidden = await bob.new_project(second["id"], name="ALPHA 2"), await bob.new_project(second["id"], name="Gamma")
    await bob.grant("PROJECT", shared["id"], "user:alice", "PROJECT_VIEWER")
    everything = (await alice.get("/projects")).json()
    assert (everything["items"], everything["total_items"]) == ([*mine, shared], 3)
    assert (await alice.get("/projects", params={"organization_id": second["id"]})).json()["items"] == [shared]
    assert (await alice.get("/projects", params={"name_contains": "alpha"})).json()["items"] == [mine[0], shared]
    assert (await alice.get(f"/projects/by-organization/{first['id']}")).json() == mine
    assert (await bob.get(f"/projects/by-organization/{second['id']}")).json() == [shared, hidden]
    read_problem(await alice.get(f"/projects/by-organization/{second['id']}", 404), 404, "not_found")
    read_problem(await alice.get(f"/projects/by-organization/{uuid4()}", 404), 404, "not_found")
    assert (await mallory.get("/projects", params={"organization_id": first["id"]})).json()["total_items"] == 0
    read_problem(await service.as_(None).get("/projects", 401), 401, "unauthenticated")
    assert pointers_of(await alice.get("/projects", 422, params={"organization_id": "x"})) == ["query.organization_id"]


async def test_viewers_read_editors_rename_and_owners_delete(service: Service, alice: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization()
    project = await alice.new_project(organization["id"])
    path = f"/projects/{project['id']}"
    for name, role in (("viewer", "PROJECT_VIEWER"), ("editor", "PROJECT_EDITOR"), ("owner", "PROJECT_OWNER")):
        await alice.grant("PROJECT", project["id"], f"user:{name}", role)
    viewer, editor, owner = (service.as_(f"user:{name}") for name in ("viewer", "editor", "owner"))
    assert (await viewer.get(path)).json() == project
    read_problem(await viewer.patch(path, {"name": "x"}, 403), 403, "forbidden")
    read_problem(await viewer.get(f"/organizations/{organization['id']}", 404), 404, "not_found")
    await editor.patch(path, {"name": "x"})
    read_problem(await editor.delete(path, 403), 403, "forbidden")
    read_problem(await mallory.patch(path, {"name": "x"}, 404), 404, "not_found")
    read_problem(await service.as_(None).delete(path, 401), 401, "unauthenticated")
    await owner.delete(path)
