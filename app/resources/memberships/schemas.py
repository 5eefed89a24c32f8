"""Wire shapes of memberships."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from app.core.actors import Actor, ActorType
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from app.http.bounded import ArrayQuery
from app.http.described import Described
from app.http.schemas import ActorId, ActorRef, Command, Moment, ResourceRefRead, Schema


class MembershipCreate(Command):
    """A role for an actor on a resource."""

    resource_type: ResourceType
    resource_id: UUID
    actor_type: ActorType
    actor_id: ActorId
    role: Role
    """Its own level or above: PROJECT_EDITOR fits a project and an organization."""
    expires_at: Moment | None = None
    """When the grant ends by itself; never when absent."""


class MembershipKey(Described):
    """Names one grant."""

    resource_type: ResourceType
    resource_id: UUID
    actor_type: ActorType
    actor_id: ActorId
    role: Role

    @property
    def ref(self) -> ResourceRef:
        """The resource."""
        return ResourceRef(self.resource_type, self.resource_id)

    @property
    def actor(self) -> Actor:
        """The grantee."""
        return Actor(self.actor_type, self.actor_id)


class MembershipListQuery(ArrayQuery):
    """Which grants to list."""

    resource_type: ResourceType
    resource_id: UUID
    effective: bool = False
    """Also those on the resources above, with `inherited` true. Needs MEMBER_MANAGE."""


class MembershipRead(Schema):
    """A role that an actor holds on a resource."""

    id: UUID
    actor: ActorRef
    role: Role
    resource: ResourceRefRead
    inherited: bool
    """Whether it is held on a resource above the one that was asked for."""
    granted_at: datetime
    granted_by_subject: str
    expires_at: datetime | None

    @classmethod
    def from_row(cls, row: Any, asked: ResourceRef) -> Self:
        """The wire form, seen from the resource that was asked for."""
        return cls(
            id=row.id,
            actor=ActorRef(type=row.actor_type, id=row.actor_id),
            role=row.role,
            resource=ResourceRefRead.of(asked),
            inherited=row.resource_id != asked.id,
            granted_at=row.granted_at,
            granted_by_subject=row.granted_by_subject,
            expires_at=row.expires_at,
        )
