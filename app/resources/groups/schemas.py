"""Wire shapes of groups."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import quote
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field

from app.core.actors import Actor, ActorType
from app.http.described import Described
from app.http.schemas import (
    ActorId,
    ActorRef,
    Command,
    ListQuery,
    Metadata,
    Moment,
    Name,
    Resource,
    Schema,
    Search,
    Text,
    fits_a_path,
    lower_case,
)

MAX_GROUP_ID = 100


def _may_be_member(value: ActorType) -> ActorType:
    if value is ActorType.API_KEY:
        raise ValueError("an API key holds the role it was made with and no other")
    return value


GroupId = Annotated[str, Text(MAX_GROUP_ID), AfterValidator(fits_a_path)]
MemberType = Annotated[ActorType, AfterValidator(_may_be_member)]


class GroupCreate(Command):
    """A new group."""

    group_id: GroupId
    """How grants name it: `devs` is the actor `group:devs` of this organization. Never changes."""
    name: Name | None = None
    """Its name; the id when absent."""
    metadata: Metadata = Field(default_factory=dict)


class GroupUpdate(Command):
    """What changes; absent fields stay."""

    name: Name | None = None
    metadata: Metadata | None = None
    """Replaces the metadata as a whole."""


class GroupRead(Resource):
    """A named set of actors, known only inside its organization."""

    organization_id: UUID
    group_id: str
    name: str
    metadata: dict[str, Any]

    @property
    def address(self) -> str:
        """Its path below the base path: a group is found by its name, in its organization."""
        return f"/organizations/{self.organization_id}/groups/{quote(self.group_id, safe='')}"


class GroupSort(StrEnum):
    """Columns groups can be sorted by."""

    GROUP_ID = "group_id"
    NAME = "name"
    CREATED_AT = "created_at"


class GroupListQuery(ListQuery):
    """Filters of the list of groups."""

    default_sort: ClassVar[str] = "group_id"

    sort: Annotated[GroupSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""
    name_contains: Search = None
    """Part of the name, in any case."""


class GroupMemberKey(Described):
    """Names one member."""

    member_type: MemberType
    member_id: ActorId

    @property
    def actor(self) -> Actor:
        """The member."""
        return Actor(self.member_type, self.member_id)


class GroupMemberAdd(Command):
    """An actor, or another group of the organization, that comes in."""

    member_type: MemberType
    member_id: ActorId
    expires_at: Moment | None = None
    """When it leaves by itself; never when absent."""

    @property
    def actor(self) -> Actor:
        """The member."""
        return Actor(self.member_type, self.member_id)


class GroupMemberRead(Schema):
    """A member of a group."""

    member: ActorRef
    added_at: datetime
    added_by_subject: str
    expires_at: datetime | None

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """The wire form."""
        return cls(
            member=ActorRef(type=row.member_type, id=row.member_id),
            added_at=row.added_at,
            added_by_subject=row.added_by_subject,
            expires_at=row.expires_at,
        )
