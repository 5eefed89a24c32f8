"""Two tenants that use the same names for everything never see a row of each other."""

from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from app.core.actors import Actor, ActorType
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from app.jobs import write_denials
from tests.conftest import Caller, Service
from tests.support import rows
from tests.support.rows import Place

pytestmark = pytest.mark.anyio

NAMED = {"name": "the same name", "metadata": {"same": "metadata"}}
PAGED = ("/organizations", "/projects", "/documents", "/document-versions", "/audit-events")
ARRAYS = ("/organizations/all", "/audit-events/by-correlation/the-same")
GROUP = Actor(ActorType.GROUP, "everybody")


@dataclass(frozen=True)
class Tenant:
    """An organization with two projects of two documents each, an owner, and a group called as in the other tenant."""

    owner: Caller
    id: str
    slug: str
    projects: list[str]
    documents: list[str]

    @property
    def ids(self) -> set[str]:
        return {self.id, *self.projects, *self.documents}


async def make_tenant(service: Service, name: str) -> Tenant:
    owner = service.as_(f"user:{name}")
    owner.headers["X-Correlation-ID"] = "the-same"
    organization = await owner.new_organization(slug=f"slug-{name}", **NAMED)
    projects = [(await owner.new_project(organization["id"], **NAMED))["id"] for _ in range(2)]
    documents = [
        (await owner.new_document(project, name="the same name", version_name="same"))["id"] for project in projects for _ in range(2)
    ]
    for project in projects:
        await owner.grant("PROJECT", project, "user:shared-name", "PROJECT_VIEWER")
    home = Place(ResourceRef(ResourceType.ORGANIZATION, UUID(organization["id"])), UUID(organization["id"]))
    in_group = Actor(ActorType.USER, f"member-of-{name}")
    group = rows.group(home, GROUP.id) + rows.member(home, GROUP.id, in_group) + rows.grant(home, GROUP, Role.ORG_ADMIN)
    await rows.write(service.runtime.context.database, group)
    return Tenant(owner, organization["id"], organization["slug"], projects, documents)


@pytest.fixture
async def tenants(service: Service) -> tuple[Tenant, Tenant]:
    return await make_tenant(service, "one"), await make_tenant(service, "two")


def pairs(tenants: tuple[Tenant, Tenant]) -> tuple[tuple[Tenant, Tenant], ...]:
    return (tenants, tenants[::-1])


def mentions(answer: Any, tenant: Tenant) -> list[str]:
    """Which ids of a tenant stand anywhere in an answer."""
    return [identifier for identifier in tenant.ids if identifier in str(answer)]


async def all_of(caller: Caller, path: str, **params: Any) -> Any:
    return (await caller.get(path, params={"size": 500, **params})).json()


async def test_lists_and_totals_hold_the_rows_of_the_own_tenant_only(tenants: tuple[Tenant, Tenant]) -> None:
    expected = {"/organizations": 1, "/projects": 2, "/documents": 4, "/document-versions": 4}
    for mine, other in pairs(tenants):
        for path in PAGED:
            page = await all_of(mine.owner, path)
            assert page["total_items"] == len(page["items"]) == expected.get(path, len(page["items"])) > 0, path
            assert mentions(page, other) == [], path
            assert mentions(page, mine), path
        for path in ARRAYS:
            found = (await mine.owner.get(path)).json()
            assert found
            assert mentions(found, other) == [], path
        first = await all_of(mine.owner, "/documents", size=1)
        assert (first["total_items"], first["total_pages"], first["has_next"]) == (4, 4, True)


async def test_keyset_pages_never_cross_into_the_other_tenant(tenants: tuple[Tenant, Tenant]) -> None:
    for mine, other in pairs(tenants):
        for path in PAGED:
            seen: list[str] = []
            params: dict[str, Any] = {"limit": 1}
            while True:
                page = (await mine.owner.get(path, params=params)).json()
                seen += [item["id"] for item in page["items"]]
                assert mentions(page, other) == [], path
                if not page["has_more"]:
                    break
                params["cursor"] = page["next_cursor"]
            assert len(seen) == len(set(seen)) == (await all_of(mine.owner, path))["total_items"], path


async def test_a_cursor_of_the_other_tenant_opens_nothing(tenants: tuple[Tenant, Tenant]) -> None:
    mine, other = tenants
    for path in PAGED[1:]:
        cursor = (await other.owner.get(path, params={"limit": 1})).json()["next_cursor"]
        response = await mine.owner.get(path, None, params={"limit": 500, "cursor": cursor})
        assert response.status_code == 200, path
        assert mentions(response.json(), other) == [], path


async def test_filters_that_name_the_other_tenant_find_nothing(tenants: tuple[Tenant, Tenant]) -> None:
    for mine, other in pairs(tenants):
        filters: list[tuple[str, dict[str, str]]] = [
            *((path, {"organization_id": other.id}) for path in PAGED[1:]),
            *((path, {"project_id": other.projects[0]}) for path in PAGED[2:]),
            ("/document-versions", {"document_id": other.documents[0]}),
            ("/organizations", {"slug": other.slug}),
            ("/audit-events", {"resource_type": "PROJECT", "resource_id": other.projects[0]}),
            ("/audit-events", {"actor_type": "USER", "actor_id": other.slug.removeprefix("slug-")}),
        ]
        for path, named in filters:
            page = await all_of(mine.owner, path, **named)
            assert (page["items"], page["total_items"], page["total_pages"]) == ([], 0, 0), (path, named)
            assert (await mine.owner.get(path, params={**named, "limit": 5})).json()["items"] == [], (path, named)
            own = {key: value for key, value in named.items() if key == "organization_id"}
            if own:
                assert (await all_of(mine.owner, path, organization_id=mine.id))["total_items"] > 0, path
        for resource_id in other.ids:
            for kind in ("ORGANIZATION", "PROJECT", "DOCUMENT"):
                params = {"resource_type": kind, "resource_id": resource_id}
                assert (await mine.owner.get("/audit-events/by-resource", params=params)).json() == []


async def test_names_that_both_use_find_only_the_own(tenants: tuple[Tenant, Tenant]) -> None:
    expected = {"/organizations": 1, "/projects": 2, "/documents": 4, "/document-versions": 4}
    for (mine, other), (path, count) in product(pairs(tenants), expected.items()):
        page = await all_of(mine.owner, path, name_contains="SAME NAME")
        assert page["total_items"] == count, path
        assert mentions(page, other) == [], path
    for mine, _ in pairs(tenants):
        assert (await all_of(mine.owner, "/document-versions", version_name="same"))["total_items"] == 4
        assert (await all_of(mine.owner, "/audit-events", correlation_id="the-same"))["total_items"] > 0


async def test_everything_of_the_other_tenant_is_absent(tenants: tuple[Tenant, Tenant]) -> None:
    for mine, other in pairs(tenants):
        document, project = f"/documents/{other.documents[0]}", f"/projects/{other.projects[0]}"
        for path in (
            f"/organizations/{other.id}",
            f"/organizations/by-slug/{other.slug}",
            f"/projects/by-organization/{other.id}",
            project,
            f"{project}/documents",
            document,
            f"{document}/content",
            f"{document}/versions",
            f"{document}/versions/same",
            f"{document}/versions/same/content",
        ):
            await mine.owner.get(path, 404)
        await mine.owner.new_project(mine.id, **NAMED)
        await mine.owner.post("/projects", {"organization_id": other.id, **NAMED}, 404)
        await mine.owner.upload(f"{project}/documents", expect=404)
        for kind, resource_id in (("ORGANIZATION", other.id), ("PROJECT", other.projects[0]), ("DOCUMENT", other.documents[0])):
            await mine.owner.grant(kind, resource_id, "user:spy", "DOCUMENT_VIEWER", 404)


async def test_memberships_show_the_grants_of_the_own_tenant_only(tenants: tuple[Tenant, Tenant]) -> None:
    for mine, other in pairs(tenants):
        for kind, resource_id in (("ORGANIZATION", mine.id), ("PROJECT", mine.projects[0]), ("DOCUMENT", mine.documents[0])):
            asked = {"resource_type": kind, "resource_id": resource_id, "effective": True}
            found = (await mine.owner.get("/memberships", params=asked)).json()
            assert {grant["actor"]["id"] for grant in found} <= {mine.slug.removeprefix("slug-"), "shared-name", GROUP.id}
            assert found
            assert mentions(found, other) == []
            foreign = {"resource_type": kind, "resource_id": {"ORGANIZATION": other.id}.get(kind, other.projects[0])}
            await mine.owner.get("/memberships", 404, params=foreign)


async def test_one_name_in_two_tenants_reaches_what_each_gave_it(service: Service, tenants: tuple[Tenant, Tenant]) -> None:
    """The same actor may have roles in both; each role ends with its grant."""
    both = service.as_("user:shared-name")
    assert {item["id"] for item in (await all_of(both, "/projects"))["items"]} == {*tenants[0].projects, *tenants[1].projects}
    assert (await all_of(both, "/projects", organization_id=tenants[0].id))["total_items"] == 2
    await tenants[0].owner.delete(f"/organizations/{tenants[0].id}")
    assert {item["id"] for item in (await all_of(both, "/projects"))["items"]} == set(tenants[1].projects)


async def test_a_group_called_the_same_gives_nothing_across(service: Service, tenants: tuple[Tenant, Tenant]) -> None:
    for mine, other in pairs(tenants):
        member = service.as_(f"user:member-of-{mine.slug.removeprefix('slug-')}")
        await member.get(f"/organizations/{mine.id}")
        await member.patch(f"/projects/{mine.projects[0]}", {"name": "renamed"})
        for path in (f"/organizations/{other.id}", f"/projects/{other.projects[0]}", f"/documents/{other.documents[0]}"):
            await member.get(path, 404)
        for path in PAGED:
            page = await all_of(member, path)
            assert page["total_items"] > 0, path
            assert mentions(page, other) == [], path
            assert page["total_items"] == len(page["items"]), path


async def test_a_refused_attempt_is_shown_to_the_tenant_it_was_aimed_at(service: Service, tenants: tuple[Tenant, Tenant]) -> None:
    mine, other = tenants
    await mine.owner.patch(f"/projects/{other.projects[0]}", {"name": "taken"}, 404)
    await write_denials(service.runtime.context)
    attempts = await all_of(other.owner, "/audit-events", outcome="DENIED")
    assert [(event["actor"]["id"], event["resource"]["id"]) for event in attempts["items"]] == [("one", other.projects[0])]
    assert (await all_of(mine.owner, "/audit-events", outcome="DENIED"))["total_items"] == 0


async def test_deleting_one_tenant_leaves_the_other_whole(tenants: tuple[Tenant, Tenant]) -> None:
    mine, other = tenants
    before = {path: await all_of(other.owner, path) for path in PAGED}
    await mine.owner.delete(f"/organizations/{mine.id}")
    assert {path: await all_of(other.owner, path) for path in PAGED} == before
    for path in PAGED[:4]:
        assert (await all_of(mine.owner, path))["total_items"] == 0
