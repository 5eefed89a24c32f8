"""Wire shapes of questions about authorization."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, model_validator

from app.authz.engine import HeldGrant
from app.core.actors import Actor, ActorType
from app.core.permissions import Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.http.described import Described
from app.http.schemas import NO_FLAG, ActorId, ActorRef, Command, ResourceRefRead, Schema

MAX_CHECKS = 200
MAX_LISTED = 1000
DEFAULT_OBJECTS, MAX_OBJECTS = 100, 1000
MAX_CURSOR = 512


class AuthorizationQuestion(Command):
    """May this actor take this action on this resource?"""

    actor_type: ActorType
    actor_id: ActorId
    action: Action
    resource_type: ResourceType
    resource_id: UUID

    @property
    def actor(self) -> Actor:
        """Who is asked about."""
        return Actor(self.actor_type, self.actor_id)

    @property
    def ref(self) -> ResourceRef:
        """What is asked about."""
        return ResourceRef(self.resource_type, self.resource_id)


class BatchCheck(Command):
    """Many questions at once."""

    checks: Annotated[list[AuthorizationQuestion], Field(min_length=1, max_length=MAX_CHECKS)]


class _AboutSomebody(Command):
    actor_type: ActorType | None = None
    """Together with `actor_id`; yourself when both are absent."""
    actor_id: ActorId | None = None

    @model_validator(mode="after")
    def _names_all_or_nothing(self) -> Self:
        if (self.actor_type is None) != (self.actor_id is None):
            raise ValueError("actor_type and actor_id are given together or not at all")
        return self

    def actor_or(self, caller: Actor) -> Actor:
        """Who is asked about."""
        return Actor(self.actor_type, self.actor_id) if self.actor_type is not None and self.actor_id is not None else caller


class ObjectsQuestion(_AboutSomebody):
    """On which resources may this actor take this action?"""

    action: Action
    resource_type: ResourceType
    limit: Annotated[int, Field(ge=1, le=MAX_OBJECTS), NO_FLAG] = DEFAULT_OBJECTS
    cursor: Annotated[str, Field(max_length=MAX_CURSOR)] | None = None
    """Continue: the `next_cursor` of the answer before."""


class ActionsQuestion(_AboutSomebody):
    """What may this actor do here?"""

    resource_type: ResourceType
    resource_id: UUID


class RolesQuery(Described):
    """Whose roles, and where."""

    actor_type: ActorType
    actor_id: ActorId
    resource_type: ResourceType
    resource_id: UUID


class WhoCanQuery(Described):
    """Who may take this action on this resource?"""

    action: Action
    resource_type: ResourceType
    resource_id: UUID
    expand: bool = True
    """Whether the members of groups, at any depth, are told beside the groups that hold the role."""
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED)] = MAX_LISTED
    cursor: Annotated[str, Field(max_length=MAX_CURSOR)] | None = None
    """Continue after this actor, written `type:id`; the `Link` header of the answer before has it."""


class Verdict(Schema):
    """The answer."""

    allowed: bool


class Refusal(Schema):
    """Why a question is not answered."""

    status: int
    code: str
    detail: str


class BatchVerdict(Schema):
    """One answer, or why there is none."""

    allowed: bool | None
    error: Refusal | None


class BatchVerdicts(Schema):
    """The answers, in the order of the questions."""

    results: list[BatchVerdict]


class ObjectsRead(Schema):
    """Resources, in order of their ids, which is the order of their creation."""

    items: list[ResourceRefRead]
    total_items: int
    next_cursor: str | None
    has_more: bool


class ActionsRead(Schema):
    """What may be done, sorted."""

    actions: list[Action]


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


class SubjectStep(Schema):
    """Where the path begins."""

    subject: str


class GroupStep(Schema):
    """A group that the subject, or the group before, is in."""

    group: str


class RoleStep(Schema):
    """The role that is held, and where it was given."""

    role: Role
    on: str


class ContainsStep(Schema):
    """A resource below the one before."""

    contains: str


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
    path: list[SubjectStep | GroupStep | RoleStep | ContainsStep]
    """How the actor comes to it: through which groups, by which role, down to the resource. Empty for a denial."""
    sufficient_roles: list[Role]
    """For a denial: the roles that would do. Empty when one is held already: then the credential, or who it is done for, is the limit."""


class RolePolicy(Schema):
    """What a role carries."""

    role: Role
    level: ResourceType
    """The lowest type of resource it can be given on."""
    actions: list[Action]


class PolicyRead(Schema):
    """The matrix that every decision is made from."""

    matrix: list[RolePolicy]
    resource_types: list[ResourceType]
    """From the root down: what is held on one counts on everything below it."""
    read_actions: dict[ResourceType, Action]
    """Who may not take this action on a resource is told that there is none."""
    share_actions: dict[ResourceType, Action]
    """Who may give and take roles on a resource."""


class MyOrganization(Schema):
    """An organization you may read, and the roles you hold on it."""

    id: UUID
    slug: str
    name: str
    roles: list[Role]


class MyKey(Schema):
    """The API key you are."""

    id: UUID
    name: str
    scope: ResourceRefRead
    role: Role
    expires_at: datetime | None
    may_act_for_others: bool


class Me(Schema):
    """Who the service takes you for."""

    actor: ActorRef
    on_behalf_of: str | None
    """Who you act for, if for another: you may do what both may do."""
    auth_method: str
    """`header`, `api_key` or `jwt`."""
    only_actions: list[Action] | None
    """What your credential is narrowed to, if it is."""
    api_key: MyKey | None
    organizations: list[MyOrganization]
    """By slug; at most 1000."""
