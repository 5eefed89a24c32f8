"""Numbered pages, keyset pages, searches and bounded arrays."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import insert

from app.core.identifiers import new_id
from app.http.bounded import MAX_UNPAGED
from app.models import AuditEvent, Organization, Project
from tests.conftest import Caller, Service
from tests.support.answers import next_link_of, pointers_of, run_sql
from tests.support.database import behind

pytestmark = pytest.mark.anyio

Item = dict[str, Any]


def assert_no_row_twice(items: list[Item]) -> None:
    """Asked on every page, so that a walk that does not advance ends."""
    assert len({item["id"] for item in items}) == len(items)


async def walk(caller: Caller, path: str, **query: Any) -> list[Item]:
    """Every item of a list, by its keyset pages."""
    items: list[Item] = []
    page = (await caller.get(path, params=query)).json()
    items += page["items"]
    while page["has_more"]:
        page = (await caller.get(path, params={**query, "cursor": page["next_cursor"]})).json()
        assert len(page["items"]) <= query["limit"]
        items += page["items"]
        assert_no_row_twice(items)
    assert page["next_cursor"] is None
    return items


async def make_projects(caller: Caller, names: list[str]) -> tuple[str, list[Item]]:
    organization = await caller.new_organization()
    return organization["id"], [await caller.new_project(organization["id"], name=name) for name in names]


async def test_numbered_pages_say_where_they_stand(alice: Caller) -> None:
    _, projects = await make_projects(alice, [f"p{number}" for number in range(7)])
    expected = [(0, projects[:3], True, False), (1, projects[3:6], True, True), (2, projects[6:], False, True), (3, [], False, True)]
    for number, items, has_next, has_previous in expected:
        page = (await alice.get("/projects", params={"page": number, "size": 3})).json()
        assert page == {
            "items": items,
            "total_items": 7,
            "page": number,
            "size": 3,
            "total_pages": 3,
            "has_next": has_next,
            "has_previous": has_previous,
        }
    default = (await alice.get("/projects")).json()
    assert (default["page"], default["size"], default["total_pages"], default["items"]) == (0, 20, 1, projects)
    assert (await alice.get("/projects", params={"size": 500})).json()["items"] == projects
    empty = (await alice.get("/projects", params={"name_contains": "absent"})).json()
    assert (empty["items"], empty["total_items"], empty["total_pages"], empty["has_next"]) == ([], 0, 0, False)


async def test_keyset_pages_give_every_row_once_in_every_order(alice: Caller) -> None:
    _, projects = await make_projects(alice, ["b", "a", "b", "C", "ä", "b", "a", "Z"])
    await alice.patch(f"/projects/{projects[0]['id']}", {"metadata": {"touched": True}})
    for sort in ("name", "created_at", "updated_at"):
        for direction in ("asc", "desc"):
            order = {"sort": sort, "direction": direction}
            whole = (await alice.get("/projects", params=order)).json()["items"]
            assert len(whole) == 8
            for limit in (1, 3, 8, 9):
                assert await walk(alice, "/projects", limit=limit, **order) == whole
    assert await walk(alice, "/projects", limit=500) == (await alice.get("/projects")).json()["items"]


async def test_a_walk_misses_no_old_row_and_repeats_none_while_others_write(alice: Caller) -> None:
    organization_id, projects = await make_projects(alice, [f"{number:02}" for number in range(0, 40, 2)])
    old = {project["id"] for project in projects}
    for direction in ("asc", "desc"):
        query: dict[str, Any] = {"sort": "name", "direction": direction, "limit": 3}
        seen: list[Item] = []
        has_more, added = True, 1
        while has_more:
            page = (await alice.get("/projects", params=query)).json()
            seen += page["items"]
            assert_no_row_twice(seen)
            has_more, query["cursor"] = page["has_more"], page["next_cursor"]
            for name in ("00", f"{added:02}", "99"):
                await alice.new_project(organization_id, name=name)
            added += 6
        assert old <= {item["id"] for item in seen}
        names = [item["name"] for item in seen]
        assert names == sorted(names, reverse=direction == "desc")


async def test_a_row_that_a_cursor_points_at_may_go(alice: Caller) -> None:
    _, projects = await make_projects(alice, list("abcde"))
    first = (await alice.get("/projects", params={"limit": 2, "sort": "name"})).json()
    await alice.delete(f"/projects/{projects[1]['id']}")
    rest = (await alice.get("/projects", params={"limit": 5, "sort": "name", "cursor": first["next_cursor"]})).json()
    assert rest["items"] == projects[2:]


async def test_ties_are_broken_by_the_id(service: Service, alice: Caller) -> None:
    _, projects = await make_projects(alice, ["same"] * 9)
    await run_sql(service, "UPDATE projects SET created_at = (SELECT min(created_at) FROM projects)")
    identifiers = sorted(project["id"] for project in projects)
    for sort in ("name", "created_at"):
        for direction, expected in (("asc", identifiers), ("desc", identifiers[::-1])):
            order = {"sort": sort, "direction": direction}
            assert [item["id"] for item in await walk(alice, "/projects", limit=2, **order)] == expected
            numbered = [(await alice.get("/projects", params={"page": page, "size": 2, **order})).json()["items"] for page in range(5)]
            assert [item["id"] for items in numbered for item in items] == expected


async def test_sort_and_direction_are_taken_in_any_case(alice: Caller) -> None:
    _, projects = await make_projects(alice, ["b", "c", "a"])
    by_name = [projects[2], projects[0], projects[1]]
    for sort, direction, expected in (
        ("NAME", "DESC", by_name[::-1]),
        ("Name", "Asc", by_name),
        ("name", None, by_name),
        (None, "dEsC", projects[::-1]),
    ):
        query = {name: value for name, value in (("sort", sort), ("direction", direction)) if value}
        assert (await alice.get("/projects", params=query)).json()["items"] == expected
        assert await walk(alice, "/projects", limit=2, **query) == expected
    for name, value in (("sort", "id"), ("sort", "metadata"), ("sort", ""), ("sort", "name desc"), ("direction", "up"), ("direction", "")):
        assert pointers_of(await alice.get("/projects", 422, params={name: value})) == [f"query.{name}"], (name, value)


async def test_a_cursor_belongs_to_its_list_order_and_filters(alice: Caller) -> None:
    organization_id, _ = await make_projects(alice, ["a", "b", "c"])
    await alice.new_organization()
    query = {"limit": 1, "sort": "name", "name_contains": "", "organization_id": organization_id}
    cursor = (await alice.get("/projects", params=query)).json()["next_cursor"]
    await alice.get("/projects", params={**query, "cursor": cursor})
    await alice.get("/projects", params={**query, "cursor": cursor, "limit": 2, "sort": "NAME", "direction": "asc"})
    other: list[dict[str, Any]] = [
        {"sort": "created_at"},
        {"direction": "desc"},
        {"name_contains": "b"},
        {"organization_id": str(uuid4())},
        {"organization_id": ""},
    ]
    for change in other[:-1]:
        refused = await alice.get("/projects", 422, params={**query, "cursor": cursor, **change})
        assert pointers_of(refused) == ["query.cursor"], change
        assert refused.json()["errors"][0]["code"] == "invalid_cursor"
    foreign = (await alice.get("/organizations", params={"limit": 1})).json()["next_cursor"]
    assert pointers_of(await alice.get("/projects", 422, params={"limit": 1, "cursor": foreign})) == ["query.cursor"]


async def test_the_two_ways_of_paging_do_not_mix(alice: Caller) -> None:
    await make_projects(alice, ["a", "b"])
    cursor = (await alice.get("/projects", params={"limit": 1})).json()["next_cursor"]
    for numbered in ({"page": 0}, {"size": 5}, {"page": 1, "size": 1}):
        assert pointers_of(await alice.get("/projects", 422, params={**numbered, "cursor": cursor})) == ["query.cursor"]
        assert pointers_of(await alice.get("/projects", 422, params={**numbered, "limit": 1})) == ["query.limit"]
    for name, value in (("size", 0), ("size", 501), ("page", -1), ("limit", 0), ("limit", 501)):
        assert pointers_of(await alice.get("/projects", 422, params={name: value})) == [f"query.{name}"]
    keyset = (await alice.get("/projects", params={"cursor": cursor})).json()
    assert set(keyset) == {"items", "next_cursor", "has_more"}


async def test_searches_are_literal(alice: Caller) -> None:
    names = ["100%", "100x", "a_b", "axb", "a\\b", "a/b", "a//b", "[ab]", "a*b", "a?b", "it's", '"q"']
    _, projects = await make_projects(alice, names)
    expected: dict[str, list[str]] = {
        "%": ["100%"],
        "_": ["a_b"],
        "\\": ["a\\b"],
        "/": ["a/b", "a//b"],
        "//": ["a//b"],
        "*": ["a*b"],
        "?": ["a?b"],
        "[": ["[ab]"],
        "'": ["it's"],
        '"': ['"q"'],
        "%%": [],
        "a%b": [],
        "a_b": ["a_b"],
        "\\%": [],
        "/%": [],
        "100": ["100%", "100x"],
    }
    for text, found in expected.items():
        page = (await alice.get("/projects", params={"name_contains": text})).json()
        assert [item["name"] for item in page["items"]] == found, text
        assert page["total_items"] == len(found)
        assert [item["name"] for item in await walk(alice, "/projects", limit=1, name_contains=text)] == found
    for slug in ("a_b", "axb", "a.b"):
        await alice.new_organization(slug=slug)
    for text, slugs in (("a_b", ["a_b"]), ("A.B", ["a.b"]), ("%", []), ("_", ["a_b"])):
        assert [item["slug"] for item in (await alice.get("/organizations", params={"slug": text})).json()["items"]] == slugs
    for blank in ("", " ", "\t"):
        assert (await alice.get("/projects", params={"name_contains": blank})).json()["total_items"] == len(projects)


async def test_searches_know_upper_and_lower_case_of_every_script(alice: Caller) -> None:
    await make_projects(alice, ["Ärger", "ÉCOLE", "Ωmega", "ДОМ", "plain"])
    expected = {
        **dict.fromkeys(("ä", "Ä", "ÄRGER", "ärger"), "Ärger"),
        **dict.fromkeys(("é", "É", "école", "École"), "ÉCOLE"),
        **dict.fromkeys(("ω", "Ω", "ωMEGA"), "Ωmega"),
        **dict.fromkeys(("дом", "Дом"), "ДОМ"),
        "PLAIN": "plain",
    }
    for text, name in expected.items():
        found = (await alice.get("/projects", params={"name_contains": text})).json()["items"]
        assert [item["name"] for item in found] == [name], text
    assert (await alice.get("/projects", params={"name_contains": "ecole"})).json()["items"] == []


def rows_of_projects(organization_id: UUID, count: int) -> list[dict[str, Any]]:
    moment = datetime.now(UTC)
    common = {"created_at": moment, "updated_at": moment, "created_by_subject": "user:alice", "revision": 1, "metadata_": {}}
    return [{"id": new_id(), "organization_id": organization_id, "name": f"p{number}", **common} for number in range(count)]


async def assert_leads_to_the_rest(caller: Caller, path: str, expected: list[str], **query: Any) -> None:
    first = await caller.get(path, params=query)
    found: list[Item] = first.json()
    assert [item["id"] for item in found] == expected[:MAX_UNPAGED]
    address = httpx.URL(next_link_of(first))
    page = (await caller.get(str(address))).json()
    found += page["items"]
    while page["has_more"]:
        assert_no_row_twice(found)
        page = (await caller.get(str(address.copy_set_param("cursor", page["next_cursor"])))).json()
        found += page["items"]
    assert [item["id"] for item in found] == expected


async def test_arrays_are_bounded_and_lead_to_the_rest(service: Service, alice: Caller) -> None:
    organization = await alice.new_organization()
    organization_id = UUID(organization["id"])
    projects = rows_of_projects(organization_id, MAX_UNPAGED + 3)
    resource_id = new_id()
    event = {
        "actor_type": "USER",
        "actor_id": "x",
        "auth_method": "header",
        "action": "PROJECT_UPDATED",
        "outcome": "SUCCESS",
        "details": {},
    }
    place = {"organization_id": organization_id, "resource_type": "PROJECT", "resource_id": resource_id, "correlation_id": "a b&c=é"}
    events = [{"id": new_id(), "occurred_at": datetime.now(UTC), **event, **place} for _ in range(MAX_UNPAGED + 2)]
    async with behind(service.runtime.context.database) as connection:
        await connection.execute(insert(Project), [{**row, "metadata": row.pop("metadata_")} for row in projects[:MAX_UNPAGED]])
        await connection.execute(insert(AuditEvent), events)
    of_organization = f"/projects/by-organization/{organization_id}"
    exact = await alice.get(of_organization)
    assert len(exact.json()) == MAX_UNPAGED
    assert "link" not in exact.headers
    async with behind(service.runtime.context.database) as connection:
        await connection.execute(insert(Project), [{**row, "metadata": row.pop("metadata_")} for row in projects[MAX_UNPAGED:]])
    await assert_leads_to_the_rest(alice, of_organization, [str(row["id"]) for row in projects])
    in_order = [str(row["id"]) for row in events]
    await assert_leads_to_the_rest(alice, "/audit-events/by-resource", in_order, resource_type="PROJECT", resource_id=str(resource_id))
    await assert_leads_to_the_rest(alice, "/audit-events/by-correlation/a%20b%26c%3D%C3%A9", in_order)


async def test_the_array_of_all_organizations_is_bounded_and_leads_to_the_rest(service: Service, alice: Caller) -> None:
    first = await alice.new_organization()
    moment = datetime.now(UTC)
    common = {"created_at": moment, "updated_at": moment, "created_by_subject": "user:alice", "revision": 1, "metadata": {}}
    rows = [{"id": new_id(), "slug": f"o{number}", "name": "o", **common} for number in range(MAX_UNPAGED + 1)]
    async with behind(service.runtime.context.database) as connection:
        await connection.execute(insert(Organization), rows)
    await run_sql(
        service,
        "INSERT INTO memberships"
        " (id, organization_id, resource_type, resource_id, actor_type, actor_id, role, granted_at, granted_by_subject)"
        " SELECT id, id, 'ORGANIZATION', id, 'USER', 'alice', 'ORG_MEMBER', created_at, 'user:alice' FROM organizations",
    )
    await assert_leads_to_the_rest(alice, "/organizations/all", [first["id"], *(str(row["id"]) for row in rows)])
