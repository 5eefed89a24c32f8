"""Actions, roles and the one table that says which role carries which action."""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Final

from app.core.resources import ResourceType


class Action(StrEnum):
    """What can be asked for; every route declares one."""

    ORGANIZATION_READ = "ORGANIZATION_READ"
    ORGANIZATION_UPDATE = "ORGANIZATION_UPDATE"
    ORGANIZATION_DELETE = "ORGANIZATION_DELETE"
    PROJECT_CREATE = "PROJECT_CREATE"
    PROJECT_READ = "PROJECT_READ"
    PROJECT_UPDATE = "PROJECT_UPDATE"
    PROJECT_DELETE = "PROJECT_DELETE"
    DOCUMENT_CREATE = "DOCUMENT_CREATE"
    DOCUMENT_READ = "DOCUMENT_READ"
    DOCUMENT_WRITE = "DOCUMENT_WRITE"
    DOCUMENT_DELETE = "DOCUMENT_DELETE"
    DOCUMENT_SHARE = "DOCUMENT_SHARE"
    API_CALL_CREATE = "API_CALL_CREATE"
    API_CALL_READ = "API_CALL_READ"
    API_CALL_WRITE = "API_CALL_WRITE"
    API_CALL_DELETE = "API_CALL_DELETE"
    API_CALL_SHARE = "API_CALL_SHARE"
    EXECUTION_CREATE = "EXECUTION_CREATE"
    EXECUTION_READ = "EXECUTION_READ"
    MEMBER_MANAGE = "MEMBER_MANAGE"
    METADATA_READ = "METADATA_READ"
    METADATA_WRITE = "METADATA_WRITE"


class Role(StrEnum):
    """Named sets of actions; the first word is the level a role belongs to."""

    ORG_OWNER = "ORG_OWNER"
    ORG_ADMIN = "ORG_ADMIN"
    ORG_MEMBER = "ORG_MEMBER"
    PROJECT_OWNER = "PROJECT_OWNER"
    PROJECT_EDITOR = "PROJECT_EDITOR"
    PROJECT_VIEWER = "PROJECT_VIEWER"
    DOCUMENT_OWNER = "DOCUMENT_OWNER"
    DOCUMENT_EDITOR = "DOCUMENT_EDITOR"
    DOCUMENT_VIEWER = "DOCUMENT_VIEWER"
    API_CALL_OWNER = "API_CALL_OWNER"
    API_CALL_EDITOR = "API_CALL_EDITOR"
    API_CALL_VIEWER = "API_CALL_VIEWER"

    @property
    def level(self) -> ResourceType:
        """The lowest resource type this role may be granted on."""
        stem = self.value.rsplit("_", 1)[0]
        return ResourceType.ORGANIZATION if stem == "ORG" else ResourceType(stem)

    def fits(self, resource_type: ResourceType) -> bool:
        """Whether the role may be granted on that type: its own level or one above."""
        return resource_type in self.level.ancestry


_COLUMNS: Final = tuple(Role)

# One row per action, one column per role in the order of Role; x = the role carries the action.
_MATRIX: Final = """
                     O A M  PO PE PV  DO DE DV  CO CE CV
ORGANIZATION_READ    x x x  .  .  .   .  .  .   .  .  .
ORGANIZATION_UPDATE  x x .  .  .  .   .  .  .   .  .  .
ORGANIZATION_DELETE  x . .  .  .  .   .  .  .   .  .  .
PROJECT_CREATE       x x .  .  .  .   .  .  .   .  .  .
PROJECT_READ         x x x  x  x  x   .  .  .   .  .  .
PROJECT_UPDATE       x x .  x  x  .   .  .  .   .  .  .
PROJECT_DELETE       x . .  x  .  .   .  .  .   .  .  .
DOCUMENT_CREATE      x x .  x  x  .   .  .  .   .  .  .
DOCUMENT_READ        x x x  x  x  x   x  x  x   .  .  .
DOCUMENT_WRITE       x x .  x  x  .   x  x  .   .  .  .
DOCUMENT_DELETE      x . .  x  .  .   x  .  .   .  .  .
DOCUMENT_SHARE       x . .  x  .  .   x  .  .   .  .  .
API_CALL_CREATE      x x .  x  x  .   .  .  .   .  .  .
API_CALL_READ        x x x  x  x  x   .  .  .   x  x  x
API_CALL_WRITE       x x .  x  x  .   .  .  .   x  x  .
API_CALL_DELETE      x . .  x  .  .   .  .  .   x  .  .
API_CALL_SHARE       x . .  x  .  .   .  .  .   x  .  .
EXECUTION_CREATE     x x .  x  x  .   .  .  .   .  .  .
EXECUTION_READ       x x x  x  x  x   .  .  .   .  .  .
MEMBER_MANAGE        x x .  x  .  .   .  .  .   .  .  .
METADATA_READ        x x x  x  x  x   x  x  x   x  x  x
METADATA_WRITE       x x .  x  x  .   x  x  .   x  x  .
"""


def _read_matrix() -> Mapping[Role, frozenset[Action]]:
    held: dict[Role, set[Action]] = {role: set() for role in Role}
    for line in _MATRIX.strip().splitlines()[1:]:
        action, *marks = line.split()
        for role, mark in zip(_COLUMNS, marks, strict=True):
            if mark == "x":
                held[role].add(Action(action))
    return MappingProxyType({role: frozenset(actions) for role, actions in held.items()})


ROLE_ACTIONS: Final = _read_matrix()

READ_ACTIONS: Final = MappingProxyType(
    {
        ResourceType.ORGANIZATION: Action.ORGANIZATION_READ,
        ResourceType.PROJECT: Action.PROJECT_READ,
        ResourceType.DOCUMENT: Action.DOCUMENT_READ,
        ResourceType.API_CALL: Action.API_CALL_READ,
    }
)

# Who may hand out and take away roles on a resource of that type.
SHARE_ACTIONS: Final = MappingProxyType(
    {
        ResourceType.ORGANIZATION: Action.MEMBER_MANAGE,
        ResourceType.PROJECT: Action.MEMBER_MANAGE,
        ResourceType.DOCUMENT: Action.DOCUMENT_SHARE,
        ResourceType.API_CALL: Action.API_CALL_SHARE,
    }
)


@cache
def actions_of(roles: frozenset[Role]) -> frozenset[Action]:
    """The union of what the roles carry."""
    return frozenset().union(*(ROLE_ACTIONS[role] for role in roles))


@cache
def roles_with(action: Action) -> tuple[Role, ...]:
    """The roles that carry the action."""
    return tuple(role for role in Role if action in ROLE_ACTIONS[role])
