"""Wire shapes of API keys."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from app.core.addresses import plain_network
from app.core.clock import now
from app.core.permissions import Action, Role
from app.core.resources import ResourceType
from app.http.bounded import ArrayQuery
from app.http.schemas import NO_FLAG, Command, Flag, Metadata, Moment, Name, Resource, ResourceRefRead, Schema, columns_of

MAX_CIDRS = 50
MAX_OVERLAP_SECONDS = 7 * 24 * 3600


def _network(value: str) -> str:
    try:
        if "%" not in value:  # the zone of an IPv6 address means something on one machine only
            return str(plain_network(value))
    except ValueError:
        pass
    raise ValueError("this value is no network in CIDR notation")


def _key_scope(value: ResourceType) -> ResourceType:
    if value not in {ResourceType.ORGANIZATION, ResourceType.PROJECT}:
        raise ValueError("a key belongs to an organization or a project")
    return value


Network = Annotated[str, AfterValidator(_network)]
Scope = Annotated[ResourceType, AfterValidator(_key_scope)]


class ApiKeyCreate(Command):
    """A new key."""

    name: Name
    scope_type: Scope
    """ORGANIZATION or PROJECT."""
    scope_id: UUID
    role: Role
    """What the key may do on its scope and below; nothing you do not hold there yourself."""
    actions: Annotated[list[Action], Field(min_length=1)] | None = None
    """Narrows the role to these of its actions."""
    allowed_cidrs: Annotated[list[Network], Field(min_length=1, max_length=MAX_CIDRS)] | None = None
    """Networks the key may be used from; anywhere when absent."""
    may_act_for_others: Flag = False
    """Lets the key name in `X-SaaSBase-On-Behalf-Of` who it acts for; it may then do what both may do."""
    expires_at: Moment | None = None
    metadata: Metadata = Field(default_factory=dict)


class ApiKeyUpdate(Command):
    """What changes; absent fields stay."""

    name: Name | None = None
    expires_at: Moment | None = None
    """`null` takes the end away."""
    allowed_cidrs: Annotated[list[Network], Field(min_length=1, max_length=MAX_CIDRS)] | None = None
    """`null` takes the restriction away."""
    metadata: Metadata | None = None
    """Replaces the metadata as a whole."""


class ApiKeyRotate(Command):
    """A new secret for a key."""

    overlap_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS), NO_FLAG] = 24 * 3600
    """How long the old secret keeps working beside the new one."""


class ApiKeyRead(Resource):
    """A key; its secret is shown only when it is created or rotated."""

    collection: ClassVar[str] = "/api-keys"

    name: str
    prefix: str
    """The public part of the token."""
    scope: ResourceRefRead
    role: Role
    actions: list[Action] | None
    allowed_cidrs: list[str] | None
    may_act_for_others: bool
    organization_id: UUID
    project_id: UUID | None
    expires_at: datetime | None
    last_used_at: datetime | None
    last_used_ip: str | None
    revoked_at: datetime | None
    metadata: dict[str, Any]
    is_active: bool
    """Neither revoked nor expired."""

    @model_validator(mode="before")
    @classmethod
    def _from_row(cls, row: Any) -> Any:
        if isinstance(row, dict):
            return row
        columns = columns_of(row)
        columns["scope"] = {"type": columns.pop("scope_type"), "id": columns.pop("scope_id")}
        ends = columns["expires_at"]
        columns["is_active"] = columns["revoked_at"] is None and (ends is None or ends > now())
        return columns


class ApiKeyCreated(Schema):
    """A key with its token."""

    api_key: ApiKeyRead
    token: str
    """Send it as `Authorization: Bearer ...`. Shown only here."""


class ApiKeyListQuery(ArrayQuery):
    """Which keys to list: those of an organization, or those of one scope."""

    organization_id: UUID | None = None
    """All keys of this organization, those of its projects included."""
    scope_type: Scope | None = None
    """Together with `scope_id`."""
    scope_id: UUID | None = None
    """Together with `scope_type`."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if (self.scope_type is None) != (self.scope_id is None):
            raise ValueError("scope_type and scope_id are given together or not at all")
        if self.scope_type is None and self.organization_id is None:
            raise ValueError("organization_id, or scope_type and scope_id, say which keys")
        return self
