"""SQL of groups, their members, and what they hold."""

from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Row, Select, and_, delete, literal, or_, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.actors import Actor, ActorType
from app.core.errors import AppError, ConflictError, NotFoundError
from app.core.pagination import Cursor, CursorPage, CursorRequest, Page, PageRequest, encode_cursor
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from app.db.errors import violated_constraint
from app.db.listing import Listing, contains, wire_columns
from app.db.repository import Repository
from app.db.writes import insert_into
from app.http.bounded import ArrayQuery
from app.models import Group, GroupMember, Membership
from app.resources.groups.schemas import GroupListQuery
from app.unit_of_work import UnitOfWork


class GroupRepository(Repository):
    """Statements over ``groups`` and ``group_members``. A group's key is its organization, to which the session is pinned, and its id."""

    model = Group
    listing: ClassVar[Listing] = Listing(
        Group,
        {"group_id": Group.group_id, "name": Group.name, "created_at": Group.created_at},
        {"name_contains": contains(Group.name)},
    )

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def hold(self, group_id: str) -> bool:
        """Whether the organization has such a group; it then stays until the end of the transaction."""
        held = select(Group.id).where(Group.group_id == group_id).with_for_update(read=True, key_share=True)
        return (await self._session.execute(held)).one_or_none() is not None

    async def list_all(self, query: GroupListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The groups of the organization."""
        return await self.page(query.given(), request)

    async def remove(self, group: Row[Any], expected_revision: int | None) -> None:
        """Remove a group, its members, its place in other groups, and what was granted to it.

        First its row is locked: nobody can come in any more. Members are removed by name, so that the session sees who goes.

        Raises:
            PreconditionFailedError: the group is no longer at ``expected_revision``.
            NotFoundError: it is gone.
        """
        lock = select(Group.id).where(Group.id == group.id, *self._at(expected_revision)).with_for_update()
        if (await self._session.execute(lock)).one_or_none() is None:
            raise self._lost(expected_revision)
        group_id = group.group_id
        inside = GroupMember.member_type == ActorType.GROUP.value, GroupMember.member_id == group_id
        held = Membership.actor_type == ActorType.GROUP.value, Membership.actor_id == group_id
        await self._session.execute(delete(GroupMember).where(or_(GroupMember.group_id == group_id, and_(*inside))))
        await self._session.execute(delete(Membership).where(*held))
        await self._session.execute(delete(Group).where(Group.id == group.id))

    async def members(self, group: Row[Any], query: ArrayQuery) -> CursorPage[Row[Any]]:
        """The direct members of a group, by type and id. Members have no id of their own: a cursor is who was last and the group's id."""
        request = query.request("member", list="group-members", group=str(group.id))
        statement: Select[Any] = select(*wire_columns(GroupMember)).where(GroupMember.group_id == group.group_id)
        order = GroupMember.member_type, GroupMember.member_id
        if request.after is not None:
            kind, _, name = (request.after.value or "").partition(":")
            statement = statement.where(tuple_(*order) > tuple_(literal(kind), literal(name)))
        found = list((await self._session.execute(statement.order_by(*order).limit(request.limit + 1))).all())
        if len(found) <= request.limit:
            return CursorPage(found, None)
        last = found[request.limit - 1]
        cursor = Cursor(f"{last.member_type}:{last.member_id}", group.id)
        return CursorPage(found[: request.limit], encode_cursor(cursor, request.fingerprint))

    async def add_member(self, values: dict[str, Any]) -> None:
        """Write a member, in the place of a membership that has ended. Of two who do so at once, the second finds what the first wrote.

        Raises:
            ConflictError: it is one already.
            NotFoundError: the group is gone.
        """
        member = Actor(ActorType(values["member_type"]), values["member_id"])
        has_ended = GroupMember.expires_at <= values["added_at"]
        await self._session.execute(delete(GroupMember).where(*_is(values["group_id"], member), has_ended))
        try:
            await self._session.execute(insert_into(GroupMember), values)
        except IntegrityError as error:
            if (violated_constraint(error) or "").startswith("fk"):
                raise NotFoundError from None
            raise ConflictError("The actor is a member already.", code="already_member") from None

    async def has_member(self, group_id: str, member: Actor) -> bool:
        """Whether the actor is a direct member."""
        return (await self._session.execute(select(GroupMember.group_id).where(*_is(group_id, member)))).one_or_none() is not None

    async def remove_member(self, group_id: str, member: Actor) -> None:
        """Remove a direct member."""
        await self._session.execute(delete(GroupMember).where(*_is(group_id, member)))

    async def grants_through(self, group_id: str) -> list[tuple[ResourceRef, Role]]:
        """What a member of the group comes to hold: the grants of the group and of every group it is in."""
        top = select(literal(group_id).label("id")).cte("groups_above", recursive=True)
        above = top.union(
            select(GroupMember.group_id).where(GroupMember.member_type == ActorType.GROUP.value, GroupMember.member_id == top.c.id)
        )
        statement = select(Membership.resource_type, Membership.resource_id, Membership.role).where(
            Membership.actor_type == ActorType.GROUP.value, Membership.actor_id.in_(select(above.c.id))
        )
        rows = (await self._session.execute(statement.distinct())).all()
        return [(ResourceRef(ResourceType(row.resource_type), row.resource_id), Role(row.role)) for row in rows]

    def conflict(self, constraint: str | None) -> AppError:
        """See ``Repository.conflict``."""
        if constraint == "uq_groups_organization_id_group_id":
            return ConflictError("The organization has a group with this id already.", code="group_exists")
        return super().conflict(constraint)


async def find_group(connection: AsyncConnection, organization_id: UUID, group_id: str) -> Row[Any] | None:
    """A group of an organization, asked before anything is pinned."""
    statement: Select[Any] = select(*wire_columns(Group)).where(Group.organization_id == organization_id, Group.group_id == group_id)
    row: Row[Any] | None = (await connection.execute(statement)).one_or_none()
    return row


def _is(group_id: str, member: Actor) -> tuple[Any, ...]:
    return (
        GroupMember.group_id == group_id,
        GroupMember.member_type == member.type.value,
        GroupMember.member_id == member.id,
    )
