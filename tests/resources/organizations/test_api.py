"""Organizations over HTTP."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.conftest import Caller, Service, make_settings, open_service
from tests.support.answers import at_once, count_rows, events_of, path_of, pointers_of, read_problem, run_sql
from tests.support.server import Server

pytestmark = pytest.mark.anyio

FIELDS = {"id", "slug", "name", "metadata", "created_at", "updated_at", "created_by_subject"}


async def test_the_creator_becomes_owner(alice: Caller) -> None:
    organization = await alice.new_organization(name="Acme")
    grants = (await alice.get("/memberships", params={"resource_type": "ORGANIZATION", "resource_id": organization["id"]})).json()
    assert [(grant["actor"], grant["role"]) for grant in grants] == [({"type": "USER", "id": "alice"}, "ORG_OWNER")]


async def test_a_stranger_gets_the_answer_of_something_absent(alice: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization()
    path, headers = f"/organizations/{organization['id']}", {"X-Request-ID": "same"}
    invisible = await mallory.get(path, 404, headers=headers)
    await alice.delete(path)
    absent = await mallory.get(path, 404, headers=headers)
    assert invisible.content == absent.content
    assert invisible.headers == absent.headers


def test_a_service_over_a_socket_answers(server: Server) -> None:
    assert httpx.get(f"{server.url}/livez", timeout=60).json() == {"status": "ok"}


async def test_a_new_organization_has_defaults_an_address_and_an_author(alice: Caller) -> None:
    response = await alice.post("/organizations", {"slug": "acme"})
    organization = response.json()
    assert set(organization) == FIELDS
    assert (organization["slug"], organization["name"], organization["metadata"]) == ("acme", "acme", {})
    assert organization["created_by_subject"] == "user:alice"
    assert organization["created_at"] == organization["updated_at"]
    assert organization["created_at"].endswith("Z")
    assert UUID(organization["id"]).version == 7
    assert response.headers["location"] == f"/api/organizations/{organization['id']}"
    found = await alice.get(path_of(response))
    assert found.json() == organization
    assert found.headers["etag"] == response.headers["etag"]


async def test_an_empty_name_becomes_the_slug_and_a_name_is_trimmed(alice: Caller) -> None:
    assert (await alice.new_organization(slug="one", name=""))["name"] == "one"
    assert (await alice.new_organization(slug="two", name=None))["name"] == "two"
    assert (await alice.new_organization(slug="three", name="  Größe ✓ "))["name"] == "Größe ✓"


async def test_a_slug_that_fits_is_found_by_its_path(alice: Caller) -> None:
    for slug in ("a", "0", "a-b", "a.b", "a_b", "a" * 63, "0--__..0"):
        organization = await alice.new_organization(slug=slug)
        assert (await alice.get(f"/organizations/by-slug/{slug}")).json() == organization


SLUGS = ["", " ", "   ", "A", "Acme", "a b", " a", "a ", "a/b", "a?b", "a\n", "a\x00", "-a", "a-", ".a", "a.", "_a", "a_", "ä", "a" * 64]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "/slug"),
    *(({"slug": slug}, "/slug") for slug in SLUGS),
    ({"slug": None}, "/slug"),
    ({"slug": 5}, "/slug"),
    ({"slug": "x", "name": "   "}, "/name"),
    ({"slug": "x", "name": "n" * 256}, "/name"),
    ({"slug": "x", "name": "a\u0000b"}, "/name"),
    ({"slug": "x", "name": "a\nb"}, "/name"),
    ({"slug": "x", "name": 5}, "/name"),
    ({"slug": "x", "metadata": []}, "/metadata"),
    ({"slug": "x", "metadata": None}, "/metadata"),
    ({"slug": "x", "metadata": {"a": "b" * 65536}}, "/metadata"),
    ({"slug": "x", "id": str(uuid4())}, "/id"),
    ({"slug": "x", "created_by_subject": "user:bob"}, "/created_by_subject"),
    ({"slug": "x", "nmae": "typo"}, "/nmae"),
]


async def test_a_body_that_is_not_acceptable_is_refused_with_its_place(alice: Caller) -> None:
    for body, pointer in REFUSED:
        assert pointers_of(await alice.post("/organizations", body, None)) == [pointer], body
    assert (await alice.get("/organizations")).json()["total_items"] == 0


async def test_a_taken_slug_is_a_conflict(service: Service, alice: Caller, bob: Caller) -> None:
    await alice.new_organization(slug="acme")
    for caller in (alice, bob):
        read_problem(await caller.post("/organizations", {"slug": "acme"}, 409), 409, "slug_taken")
    assert await count_rows(service, "organizations") == 1
    assert await count_rows(service, "memberships") == 1
    assert await count_rows(service, "audit_events") == 2


async def test_of_six_equal_slugs_at_once_one_is_created(service: Service, alice: Caller) -> None:
    answers = await at_once(*(alice.post("/organizations", {"slug": "race"}, None) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    for refused in (answer for answer in answers if answer.status_code == 409):
        read_problem(refused, 409, "slug_taken")
    assert await count_rows(service, "organizations") == 1
    assert await count_rows(service, "memberships") == 1


async def test_patch_changes_what_is_given_and_keeps_the_rest(alice: Caller) -> None:
    created = await alice.new_organization(name="Old", metadata={"plan": "free", "deep": {"kept": None}})
    path = f"/organizations/{created['id']}"
    renamed = (await alice.patch(path, {"name": " New "})).json()
    assert (renamed["name"], renamed["metadata"], renamed["slug"]) == ("New", created["metadata"], created["slug"])
    assert renamed["updated_at"] > created["updated_at"]
    assert renamed["created_at"] == created["created_at"]
    replaced = (await alice.patch(path, {"name": None, "metadata": {"seats": 3, "none": None}})).json()
    assert (replaced["name"], replaced["metadata"]) == ("New", {"seats": 3, "none": None})
    emptied = (await alice.patch(path, {"metadata": {}})).json()
    assert emptied["metadata"] == {}
    assert (await alice.get(path)).json() == emptied


async def test_an_empty_patch_changes_and_records_nothing(service: Service, alice: Caller) -> None:
    created = await alice.post("/organizations", {"slug": "acme"})
    before = await count_rows(service, "audit_events")
    bodies: list[dict[str, Any]] = [{}, {"name": None}, {"metadata": None}, {"name": None, "metadata": None}]
    for body in bodies:
        patched = await alice.patch(path_of(created), body)
        assert patched.json() == created.json()
        assert patched.headers["etag"] == created.headers["etag"]
    assert await count_rows(service, "audit_events") == before


async def test_patch_refuses_what_it_cannot_change(alice: Caller) -> None:
    organization = await alice.new_organization()
    path = f"/organizations/{organization['id']}"
    for name, value in {"slug": "new", "name": "", "id": str(uuid4()), "metadata": 1, "revision": 7, "nmae": "x"}.items():
        assert pointers_of(await alice.patch(path, {name: value}, None)) == [f"/{name}"]
    assert pointers_of(await alice.patch(path, {"name": "  "}, None)) == ["/name"]
    assert (await alice.get(path)).json() == organization


async def test_deleting_takes_everything_below_and_leaves_the_trail(service: Service, alice: Caller) -> None:
    kept, gone = await alice.new_organization(), await alice.new_organization()
    for organization in (kept, gone):
        project = await alice.new_project(organization["id"])
        document = await alice.new_document(project["id"])
        await alice.grant("ORGANIZATION", organization["id"], "user:bob", "ORG_MEMBER")
        await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_VIEWER")
        await alice.grant("DOCUMENT", document["id"], "user:bob", "DOCUMENT_VIEWER")
        named = {"o": UUID(organization["id"]).hex if service.runtime.context.database.is_sqlite else organization["id"]}
        await run_sql(
            service,
            "INSERT INTO groups (id, organization_id, group_id, name, metadata, created_at, updated_at, created_by_subject, revision)"
            " VALUES (:o, :o, 'eng', 'eng', '{}', '2026-01-01 00:00:00', '2026-01-01 00:00:00', 'user:alice', 1)",
            named,
        )
        await run_sql(
            service,
            "INSERT INTO group_members (organization_id, group_id, member_type, member_id, added_at, added_by_subject)"
            " VALUES (:o, 'eng', 'USER', 'bob', '2026-01-01 00:00:00', 'user:alice')",
            named,
        )
    tables = ("organizations", "projects", "documents", "document_versions", "memberships", "groups", "group_members")
    before = {table: await count_rows(service, table) for table in tables}
    trail = await count_rows(service, "audit_events")
    path = f"/organizations/{gone['id']}"
    await alice.delete(path)
    assert {table: await count_rows(service, table) * 2 for table in tables} == before
    assert await count_rows(service, "audit_events") == trail + 1
    for caller in (alice, service.as_("user:bob")):
        read_problem(await caller.get(path, 404), 404, "not_found")
        read_problem(await caller.get(f"/documents/{document['id']}", 404), 404, "not_found")
    await alice.delete(path, 404)
    assert (await alice.get(f"/organizations/{kept['id']}")).json() == kept


async def test_every_change_is_recorded_with_its_details(alice: Caller) -> None:
    organization = await alice.new_organization(slug="acme", name="Acme")
    path = f"/organizations/{organization['id']}"
    await alice.patch(path, {"name": "Acme 2", "metadata": {"a": 1}})
    created, granted, updated = await events_of(alice)
    assert [event["action"] for event in (created, granted, updated)] == [
        "ORGANIZATION_CREATED",
        "MEMBERSHIP_GRANTED",
        "ORGANIZATION_UPDATED",
    ]
    assert created["details"] == {"slug": "acme", "name": "Acme"}
    assert granted["details"] == {"actor": "user:alice", "role": "ORG_OWNER"}
    names = {"before": {"name": "Acme"}, "after": {"name": "Acme 2"}}
    assert updated["details"] == {"name": "Acme 2", "changed": ["metadata", "name"], **names}
    for event in (created, granted, updated):
        assert event["resource"] == {"type": "ORGANIZATION", "id": organization["id"]}
        assert (event["organization_id"], event["project_id"]) == (organization["id"], None)
        assert (event["actor"], event["outcome"]) == ({"type": "USER", "id": "alice"}, "SUCCESS")


async def test_the_event_of_a_deletion_outlives_the_organization(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization(slug="acme", name="Acme")
    await alice.delete(f"/organizations/{organization['id']}")
    rows = await run_sql(service, "SELECT action, outcome, actor_id, CAST(details AS text) FROM audit_events ORDER BY occurred_at, id")
    assert [row[0] for row in rows] == ["ORGANIZATION_CREATED", "MEMBERSHIP_GRANTED", "ORGANIZATION_DELETED"]
    assert tuple(rows[-1][1:3]) == ("SUCCESS", "alice")
    assert "acme" in rows[-1][3]


async def test_lists_hold_what_the_caller_may_read_and_nothing_else(service: Service, alice: Caller, bob: Caller, mallory: Caller) -> None:
    mine = [await alice.new_organization(slug=f"mine-{number}") for number in range(3)]
    theirs = await bob.new_organization(slug="theirs")
    await bob.grant("ORGANIZATION", theirs["id"], "user:alice", "ORG_MEMBER")
    assert (await alice.get("/organizations/all")).json() == [*mine, theirs]
    page = (await alice.get("/organizations", params={"slug": "MINE"})).json()
    assert (page["items"], page["total_items"]) == (mine, 3)
    assert (await bob.get("/organizations/all")).json() == [theirs]
    assert (await mallory.get("/organizations/all")).json() == []
    assert (await mallory.get("/organizations")).json()["total_items"] == 0
    for path in ("/organizations", "/organizations/all"):
        assert (await service.as_(None).get(path, 401)).headers["www-authenticate"] == "Bearer"


async def test_members_may_read_admins_may_rename_and_only_owners_may_delete(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    path = f"/organizations/{organization['id']}"
    member, admin = service.as_("user:member"), service.as_("agent:admin")
    await alice.grant("ORGANIZATION", organization["id"], "user:member", "ORG_MEMBER")
    await alice.grant("ORGANIZATION", organization["id"], "agent:admin", "ORG_ADMIN")
    assert (await member.get(path)).json() == organization
    read_problem(await member.patch(path, {"name": "x"}, 403), 403, "forbidden")
    read_problem(await member.delete(path, 403), 403, "forbidden")
    await admin.patch(path, {"name": "x"})
    read_problem(await admin.delete(path, 403), 403, "forbidden")
    await alice.delete(path)


async def test_strangers_and_anonymous_callers_change_nothing(service: Service, alice: Caller, mallory: Caller) -> None:
    organization = await alice.new_organization(slug="acme")
    path = f"/organizations/{organization['id']}"
    for caller, status in ((mallory, 404), (service.as_(None), 401)):
        read_problem(await caller.patch(path, {"name": "x"}, status), status)
        read_problem(await caller.delete(path, status), status)
        read_problem(await caller.get("/organizations/by-slug/acme", status), status)
        read_problem(await caller.get(f"/organizations/{uuid4()}", status), status)
    assert (await alice.get(path)).json() == organization


async def test_people_services_and_agents_create_organizations(service: Service) -> None:
    for actor in ("user:someone", "service:billing", "agent:bot"):
        await service.as_(actor).new_organization()
    read_problem(await service.as_("group:admins").post("/organizations", {"slug": "acme"}, 403), 403, "forbidden")
    read_problem(await service.as_(None).post("/organizations", {"slug": "acme"}, 401), 401, "unauthenticated")
    assert await count_rows(service, "organizations") == 3


async def test_creation_can_be_switched_off(database_url: str, tmp_path: Any) -> None:
    settings = make_settings(database_url, tmp_path, organizations={"creation": "none"})
    async with open_service(settings) as service:
        read_problem(await service.as_("user:alice").post("/organizations", {"slug": "acme"}, 403), 403, "forbidden")
        assert await count_rows(service, "organizations") == 0


async def test_an_unknown_slug_is_absent(alice: Caller) -> None:
    await alice.new_organization(slug="present")
    for slug in ("absent", "PRESENT", "presen", "%00", "a%20b", "x" * 300):
        read_problem(await alice.get(f"/organizations/by-slug/{slug}", 404), 404, "not_found")


async def test_metadata_comes_back_as_it_was_given(alice: Caller) -> None:
    deep: Any = "leaf"
    for _ in range(30):
        deep = [deep]
    given: list[dict[str, Any]] = [
        {"text": "Grüße 日本語 🙂", "list": [1, 2.5, None, True, {"a": []}], "": "empty key"},
        {"big": 2**1000, "small": -(2**63), "zero": 0, "float": 1e-7},
        {"deep": deep},
    ]
    for metadata in given:
        organization = await alice.new_organization(metadata=metadata)
        assert (await alice.get(f"/organizations/{organization['id']}")).json()["metadata"] == metadata
