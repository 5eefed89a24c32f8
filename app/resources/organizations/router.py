"""Routes of organizations."""

from typing import Annotated

from fastapi import Depends, Query, Request, Response

from app.core.permissions import Action
from app.http.bounded import bounded
from app.http.dependencies import TheRuntime, Work
from app.http.routes import Routes
from app.http.schemas import CursorPageRead, PageRead, show_page
from app.http.targets import TheOrganization, TheOrganizationWithSlug, everything, the_organization, the_organization_with_slug
from app.resources.organizations.schemas import (
    OrganizationCreate,
    OrganizationListQuery,
    OrganizationRead,
    OrganizationUpdate,
)
from app.resources.organizations.service import OrganizationService

routes = Routes("organizations")


async def open_organizations(work: Work, runtime: TheRuntime) -> OrganizationService:
    """The rules of organizations for this request."""
    return OrganizationService(work, may_create=runtime.may_create_organizations)


Organizations = Annotated[OrganizationService, Depends(open_organizations)]


@routes.public(
    "POST",
    "/organizations",
    because="There is nothing yet to hold a role on: SAASBASE_ORGANIZATIONS__CREATION says who may, and anonymous callers never do.",
    status_code=201,
    problems=(403, 409),
)
async def create_organization(new: OrganizationCreate, organizations: Organizations) -> OrganizationRead:
    """Create an organization.

    The caller becomes its ORG_OWNER.
    """
    return await organizations.create(new)


@routes.get("/organizations", allow=Action.ORGANIZATION_READ, on=everything)
async def list_organizations(
    query: Annotated[OrganizationListQuery, Query()], organizations: Organizations
) -> PageRead[OrganizationRead] | CursorPageRead[OrganizationRead]:
    """List the organizations you may read."""
    return show_page(await organizations.list_visible(query, query.request()), OrganizationRead)


@routes.get("/organizations/all", allow=Action.ORGANIZATION_READ, on=everything)
async def list_all_organizations(request: Request, response: Response, organizations: Organizations) -> list[OrganizationRead]:
    """List the organizations you may read, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest.
    """
    query = OrganizationListQuery()
    return await bounded(
        request, response, query, "/organizations", read=OrganizationRead, fetch=lambda page: organizations.list_visible(query, page)
    )


@routes.get("/organizations/by-slug/{slug}", allow=Action.ORGANIZATION_READ, on=the_organization_with_slug)
async def read_organization_by_slug(organization: TheOrganizationWithSlug) -> OrganizationRead:
    """Read an organization by its slug."""
    return OrganizationRead.from_row(organization.row)


@routes.get("/organizations/{organization_id}", allow=Action.ORGANIZATION_READ, on=the_organization)
async def read_organization(organization: TheOrganization) -> OrganizationRead:
    """Read an organization."""
    return OrganizationRead.from_row(organization.row)


@routes.patch("/organizations/{organization_id}", allow=Action.ORGANIZATION_UPDATE, on=the_organization)
async def update_organization(organization: TheOrganization, changes: OrganizationUpdate, organizations: Organizations) -> OrganizationRead:
    """Rename an organization or replace its metadata."""
    return await organizations.update(organization, changes)


@routes.delete("/organizations/{organization_id}", allow=Action.ORGANIZATION_DELETE, on=the_organization)
async def delete_organization(organization: TheOrganization, organizations: Organizations) -> None:
    """Delete an organization and everything below it.

    Projects, documents, roles and groups go with it; its audit trail stays.
    """
    await organizations.delete(organization)
