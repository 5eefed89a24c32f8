"""Routes of the groups of an organization."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from app.authz.engine import Located
from app.core.permissions import Action
from app.http.bounded import ArrayQuery, link_next
from app.http.dependencies import Work
from app.http.routes import Routes
from app.http.schemas import CursorPageRead, PageRead, show_page
from app.http.targets import TheOrganization, the_organization
from app.resources.groups.schemas import (
    GroupCreate,
    GroupListQuery,
    GroupMemberAdd,
    GroupMemberKey,
    GroupMemberRead,
    GroupRead,
    GroupUpdate,
)
from app.resources.groups.service import GroupService

routes = Routes("groups")

BASE = "/organizations/{organization_id}/groups"
TheseMembers = Annotated[ArrayQuery, Query()]
ThisMember = Annotated[GroupMemberKey, Query()]


async def open_groups(work: Work) -> GroupService:
    """The rules of groups for this request."""
    return GroupService(work)


async def the_left_organization(organization: TheOrganization, key: ThisMember, work: Work) -> Located:
    """The organization whose group a member leaves; who can read it needs no further right to leave himself."""
    return replace(organization, concerns_only_the_actor=work.is_about_itself(key.actor) and organization.is_readable)


Groups = Annotated[GroupService, Depends(open_groups)]


@routes.post(BASE, allow=Action.MEMBER_MANAGE, on=the_organization)
async def create_group(organization: TheOrganization, new: GroupCreate, groups: Groups) -> GroupRead:
    """Create a group in an organization.

    Roles granted to `group:<group_id>` count for its members at once.
    """
    return await groups.create(organization, new)


@routes.get(BASE, allow=Action.ORGANIZATION_READ, on=the_organization)
async def list_groups(query: Annotated[GroupListQuery, Query()], groups: Groups) -> PageRead[GroupRead] | CursorPageRead[GroupRead]:
    """List the groups of an organization."""
    return show_page(await groups.list_all(query, query.request()), GroupRead)


@routes.get(f"{BASE}/{{group_id}}", allow=Action.ORGANIZATION_READ, on=the_organization)
async def read_group(group_id: str, groups: Groups) -> GroupRead:
    """Read a group."""
    return await groups.read(group_id)


@routes.patch(f"{BASE}/{{group_id}}", allow=Action.MEMBER_MANAGE, on=the_organization)
async def update_group(organization: TheOrganization, group_id: str, changes: GroupUpdate, groups: Groups) -> GroupRead:
    """Rename a group or replace its metadata."""
    return await groups.update(organization, group_id, changes)


@routes.delete(f"{BASE}/{{group_id}}", allow=Action.MEMBER_MANAGE, on=the_organization)
async def delete_group(organization: TheOrganization, group_id: str, groups: Groups) -> None:
    """Delete a group, with what was granted to it."""
    await groups.delete(organization, group_id)


@routes.get(f"{BASE}/{{group_id}}/members", allow=Action.ORGANIZATION_READ, on=the_organization)
async def list_group_members(
    group_id: str, query: TheseMembers, request: Request, response: Response, groups: Groups
) -> list[GroupMemberRead]:
    """List the direct members of a group, by type and id."""
    page = await groups.members(group_id, query)
    link_next(request, response, query, page)
    return page.items


@routes.post(f"{BASE}/{{group_id}}/members", allow=Action.MEMBER_MANAGE, on=the_organization)
async def add_group_member(organization: TheOrganization, group_id: str, new: GroupMemberAdd, groups: Groups) -> GroupMemberRead:
    """Let an actor, or another group of the organization, into a group.

    Needs every action that the group holds, wherever it holds it: letting in is granting.
    """
    return await groups.add_member(organization, group_id, new)


@routes.delete(f"{BASE}/{{group_id}}/members", allow=Action.MEMBER_MANAGE, on=the_left_organization)
async def remove_group_member(
    organization: Annotated[Located, Depends(the_left_organization)], group_id: str, key: ThisMember, groups: Groups
) -> None:
    """Take a member out of a group. Everybody may take himself out."""
    await groups.remove_member(organization, group_id, key)
