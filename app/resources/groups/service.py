"""Rules of groups: letting somebody in gives him everything the group holds, so it is granting."""

from collections import defaultdict
from typing import Any
from uuid import UUID

from app.audit.changes import changes_of
from app.authz.engine import Located
from app.authz.escalation import forbid_escalation
from app.core.actors import ActorType
from app.core.clock import now
from app.core.errors import InvalidError
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.permissions import Role
from app.core.resources import ResourceType
from app.http.bounded import ArrayQuery
from app.http.schemas import ActorRef
from app.resources.groups.repository import GroupRepository
from app.resources.groups.schemas import (
    GroupCreate,
    GroupListQuery,
    GroupMemberAdd,
    GroupMemberKey,
    GroupMemberRead,
    GroupRead,
    GroupUpdate,
)
from app.unit_of_work import UnitOfWork


class GroupService:
    """Everything that happens to the groups of an organization."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._groups = GroupRepository(work)

    async def create(self, organization: Located, new: GroupCreate) -> GroupRead:
        """Create an empty group.

        Raises:
            ConflictError: the organization has a group with this id.
        """
        moment = now()
        row = self._groups.insert(
            {
                "id": new_id(),
                "organization_id": organization.id,
                "group_id": new.group_id,
                "name": new.name or new.group_id,
                "metadata": new.metadata,
                "created_at": moment,
                "updated_at": moment,
                "created_by_subject": self._work.actor.subject,
                "revision": 1,
            }
        )
        self._work.record(AuditAction.GROUP_CREATED, organization, group_id=row.group_id, name=row.name)
        return GroupRead.from_row(row)

    async def list_all(self, query: GroupListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The groups of the organization."""
        return await self._groups.list_all(query, request)

    async def update(self, group: Located, changes: GroupUpdate) -> GroupRead:
        """Rename it or replace its metadata; without a change nothing happens and nothing is recorded."""
        values = changes.model_dump(exclude_none=True)
        if not values:
            return GroupRead.from_row(group.row)
        row = await self._groups.update(group.row.id, values, self._work.expected_revision)
        self._work.record(AuditAction.GROUP_UPDATED, group, group_id=row.group_id, name=row.name, **changes_of(group.row, values))
        return GroupRead.from_row(row)

    async def delete(self, group: Located) -> None:
        """Delete it, and so take from its members what it held.

        Raises:
            ForbiddenError: it holds what the caller does not.
        """
        await self._forbid_more_than_held(group)
        await self._groups.remove(group.row, self._work.expected_revision)
        self._work.record(AuditAction.GROUP_DELETED, group, group_id=group.row.group_id, name=group.row.name)

    async def members(self, group: Located, query: ArrayQuery) -> CursorPage[GroupMemberRead]:
        """The direct members, by type and id."""
        return (await self._groups.members(group.row, query)).map(GroupMemberRead.from_row)

    async def add_member(self, group: Located, new: GroupMemberAdd) -> GroupMemberRead:
        """Let an actor, or a group of the organization, in. Groups may contain each other in circles; that does no harm.

        Raises:
            InvalidError: the end lies in the past, or the group that is to come in does not exist.
            ForbiddenError: the group holds what the caller does not.
            ConflictError: it is a member already.
        """
        group_id = group.row.group_id
        if new.expires_at is not None and new.expires_at <= now():
            raise InvalidError("lies in the past", pointer="/expires_at")
        if new.member_type is ActorType.GROUP and not await self._groups.hold(new.member_id):
            raise InvalidError("is no group of the organization", pointer="/member_id")
        await self._forbid_more_than_held(group)
        values = {
            "organization_id": group.organization_id,
            "group_id": group_id,
            "member_type": new.member_type.value,
            "member_id": new.member_id,
            "added_at": now(),
            "added_by_subject": self._work.actor.subject,
            "expires_at": new.expires_at,
        }
        await self._groups.add_member(values)
        ends = {"expires_at": new.expires_at.isoformat()} if new.expires_at is not None else {}
        self._work.record(AuditAction.GROUP_MEMBER_ADDED, group, group_id=group_id, member=new.actor.subject, **ends)
        return GroupMemberRead(
            member=ActorRef.of(new.actor),
            added_at=values["added_at"],
            added_by_subject=values["added_by_subject"],
            expires_at=new.expires_at,
        )

    async def remove_member(self, group: Located, key: GroupMemberKey) -> None:
        """Take a member out; taking out who is not in changes nothing. Oneself one may always take out.

        Raises:
            ForbiddenError: the group holds what the caller does not.
        """
        group_id = group.row.group_id
        if not await self._groups.has_member(group_id, key.actor):
            return
        if not self._work.is_about_itself(key.actor):
            await self._forbid_more_than_held(group)
        await self._groups.remove_member(group_id, key.actor)
        self._work.record(AuditAction.GROUP_MEMBER_REMOVED, group, group_id=group_id, member=key.actor.subject)

    async def _forbid_more_than_held(self, group: Located) -> None:
        """One statement for what the group holds, and one for each type of resource it holds something on."""
        grants: defaultdict[ResourceType, list[tuple[UUID, Role]]] = defaultdict(list)
        for ref, role in await self._groups.grants_through(group.row.group_id):
            grants[ref.type].append((ref.id, role))
        limit, parties = self._work.identity.only_actions, [self._work.asker_of(actor) for actor in self._work.parties]
        view = self._work.view(group.organization_id)
        for resource_type, held in grants.items():
            granted = await self._work.judge(view, resource_type, {(one, asker) for one, _ in held for asker in parties})
            for resource_id, role in held:
                mine = [granted[resource_id, asker.actor] for asker in parties if (resource_id, asker.actor) in granted]
                if mine:  # else it was deleted at this moment: nothing is held there
                    forbid_escalation(frozenset.intersection(*mine, *([limit] if limit is not None else [])), role)
