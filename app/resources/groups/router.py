"""Routes of the groups of an organization."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from app.authz.engine import Located
from app.core.errors import NotFoundError
from app.core.permissions import Action
from app.http.bounded import ArrayQuery, link_next
from app.http.dependencies import Work
from app.http.routes import Routes
from app.http.schemas import CursorPageRead, PageRead, show_page
from app.http.targets import TheOrganization, the_organization
from app.resources.groups.repository import find_group
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


async def the_group(organization: TheOrganization, group_id: str, work: Work) -> Located:
    """The group in the path; rights are asked on its organization, and who may neither read nor manage there learns nothing of it."""
    if organization.actions.isdisjoint({Action.ORGANIZATION_READ, Action.MEMBER_MANAGE}):
        return organization  # refused by every guard
    async with work.view(organization.id).open() as connection:
        row = await find_group(connection, organization.id, group_id)
    if row is None:
        raise NotFoundError
    return replace(organization, row=row)


TheGroup = Annotated[Located, Depends(the_group)]


async def the_left_group(group: TheGroup, key: ThisMember, work: Work) -> Located:
    """The group that a member leaves; who can read it needs no further right to leave himself."""
    return replace(group, concerns_only_the_actor=work.is_about_itself(key.actor) and group.is_readable)


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


@routes.get(f"{BASE}/{{group_id}}", allow=Action.ORGANIZATION_READ, on=the_group)
async def read_group(group: TheGroup) -> GroupRead:
    """Read a group."""
    return GroupRead.from_row(group.row)


@routes.patch(f"{BASE}/{{group_id}}", allow=Action.MEMBER_MANAGE, on=the_group)
async def update_group(group: TheGroup, changes: GroupUpdate, groups: Groups) -> GroupRead:
    """Rename a group or replace its metadata."""
    return await groups.update(group, changes)


@routes.delete(f"{BASE}/{{group_id}}", allow=Action.MEMBER_MANAGE, on=the_group)
async def delete_group(group: TheGroup, groups: Groups) -> None:
    """Delete a group, with what was granted to it."""
    await groups.delete(group)


@routes.get(f"{BASE}/{{group_id}}/members", allow=Action.ORGANIZATION_READ, on=the_group)
async def list_group_members(
    group: TheGroup, query: TheseMembers, request: Request, response: Response, groups: Groups
) -> list[GroupMemberRead]:
    """List the direct members of a group, by type and id."""
    page = await groups.members(group, query)
    link_next(request, response, query, page)
    return page.items


@routes.post(f"{BASE}/{{group_id}}/members", allow=Action.MEMBER_MANAGE, on=the_group)
async def add_group_member(group: TheGroup, new: GroupMemberAdd, groups: Groups) -> GroupMemberRead:
    """Let an actor, or another group of the organization, into a group.

    Needs every action that the group holds, wherever it holds it: letting in is granting.
    """
    return await groups.add_member(group, new)


@routes.delete(f"{BASE}/{{group_id}}/members", allow=Action.MEMBER_MANAGE, on=the_left_group)
async def remove_group_member(group: Annotated[Located, Depends(the_left_group)], key: ThisMember, groups: Groups) -> None:
    """Take a member out of a group. Everybody may take himself out."""
    await groups.remove_member(group, key)
