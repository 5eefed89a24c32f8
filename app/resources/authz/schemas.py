"""Wire shapes of questions about authorization."""

from enum import StrEnum
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from app.authz.engine import HeldGrant
from app.core.actors import ActorType
from app.core.permissions import Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.http.schemas import ActorId, ActorRef, Command, ResourceRefRead, Schema


class AuthorizationQuestion(Command):
    """May this actor take this action on this resource?"""

    actor_type: ActorType
    actor_id: ActorId
    action: Action
    resource_type: ResourceType
    resource_id: UUID


class RolesQuery(BaseModel):
    """Whose roles, and where."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    actor_type: ActorType
    actor_id: ActorId
    resource_type: ResourceType
    resource_id: UUID


class WhoCanQuery(BaseModel):
    """Who may take this action on this resource?"""

    model_config = ConfigDict(use_attribute_docstrings=True)

    action: Action
    resource_type: ResourceType
    resource_id: UUID


class Verdict(Schema):
    """The answer."""

    allowed: bool


class EffectiveRole(Schema):
    """A role that counts on a resource."""

    role: Role
    granted_on: ResourceRefRead
    """Where it was given."""
    effective_on: ResourceRefRead
    """The resource that was asked for."""
    inherited: bool
    """Whether it was given above that resource."""
    actions: list[Action]
    """What it carries, sorted."""

    @classmethod
    def of(cls, grant: HeldGrant, asked: ResourceRef) -> Self:
        """The wire form of a grant, seen from the resource that was asked for."""
        return cls(
            role=grant.role,
            granted_on=ResourceRefRead.of(grant.granted_on),
            effective_on=ResourceRefRead.of(asked),
            inherited=grant.granted_on != asked,
            actions=sorted(grant.actions),
        )


class Source(StrEnum):
    """What an answer rests on."""

    EFFECTIVE_ROLE = "EFFECTIVE_ROLE"
    NONE = "NONE"


class Explanation(Schema):
    """An answer with its reasons."""

    actor: ActorRef
    action: Action
    resource: ResourceRefRead
    allowed: bool
    source: Source
    reason: str
    evaluated_scopes: list[ResourceRefRead]
    """The resource and those above it, nearest first."""
    effective_roles: list[EffectiveRole]
    """Every role the actor holds there, directly or through groups."""
    matching_roles: list[EffectiveRole]
    """Those of them that carry the action."""
