"""Routes of memberships."""

from dataclasses import replace
from typing import Annotated, Final

from fastapi import Depends, Query, Request, Response

from app.authz.engine import Located
from app.core.permissions import SHARE_ACTIONS, Action
from app.core.resources import ResourceRef
from app.http.bounded import link_next
from app.http.dependencies import Work
from app.http.routes import Routes
from app.resources.memberships.schemas import MembershipCreate, MembershipKey, MembershipListQuery, MembershipRead
from app.resources.memberships.service import MembershipService

routes = Routes("memberships")

# Who shares a resource sees the grants on it, and so does who manages the members above it.
LIST_ACTIONS: Final = {type_: tuple(dict.fromkeys((action, Action.MEMBER_MANAGE))) for type_, action in SHARE_ACTIONS.items()}

ThisGrant = Annotated[MembershipKey, Query()]
TheseGrants = Annotated[MembershipListQuery, Query()]


async def open_memberships(work: Work) -> MembershipService:
    """The rules of memberships for this request."""
    return MembershipService(work)


async def the_shared_resource(new: MembershipCreate, work: Work) -> Located:
    """The resource that the body names."""
    return await work.locate_ref(ResourceRef(new.resource_type, new.resource_id))


async def the_listed_resource(query: TheseGrants, work: Work) -> Located:
    """The resource that the query names."""
    return await work.locate_ref(ResourceRef(query.resource_type, query.resource_id))


async def the_resource_of_the_grant(key: ThisGrant, work: Work) -> Located:
    """The resource of the grant that the query names. Giving up what one holds oneself needs no right."""
    resource = await work.locate_ref(key.ref)
    if work.is_about_itself(key.actor) and await work.holds_directly(key.ref, key.role):
        return replace(resource, concerns_only_the_actor=True)
    return resource


Memberships = Annotated[MembershipService, Depends(open_memberships)]


@routes.post("/memberships", allow=SHARE_ACTIONS, on=the_shared_resource, problems=(404,))
async def grant_role(
    resource: Annotated[Located, Depends(the_shared_resource)], new: MembershipCreate, memberships: Memberships
) -> MembershipRead:
    """Give an actor a role on a resource.

    Needs MEMBER_MANAGE on organizations and projects, DOCUMENT_SHARE or API_CALL_SHARE below. You can give only roles whose
    every action you hold there yourself.
    """
    return await memberships.grant(resource, new)


@routes.get("/memberships", allow=LIST_ACTIONS, on=the_listed_resource, problems=(404,))
async def list_memberships(
    resource: Annotated[Located, Depends(the_listed_resource)],
    query: TheseGrants,
    memberships: Memberships,
    request: Request,
    response: Response,
) -> list[MembershipRead]:
    """List who holds which role on a resource, oldest grant first."""
    page = await memberships.list_on(resource, query)
    link_next(request, response, query, page)
    return [MembershipRead.from_row(row, resource.ref) for row in page.items]


@routes.delete("/memberships", allow=SHARE_ACTIONS, on=the_resource_of_the_grant, problems=(404, 409))
async def revoke_role(resource: Annotated[Located, Depends(the_resource_of_the_grant)], key: ThisGrant, memberships: Memberships) -> None:
    """Take a role away from an actor.

    You can take away only roles whose every action you hold there yourself; your own you may always give up, unless the
    organization would be left without an owner. Revoking what is not held is a success. The grant of an API key goes with
    the key: revoke that.
    """
    await memberships.revoke(resource, key)
