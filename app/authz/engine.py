"""The port of the policy engine, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import ColumnElement, Row
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute

from app.core.actors import Actor
from app.core.permissions import READ_ACTIONS, Action, Role, actions_of
from app.core.resources import ResourceRef, ResourceType
from app.db.base import Base


@dataclass(frozen=True, slots=True)
class Located:
    """A resource that exists, and the roles the asking actor holds on it, directly, through groups and from above."""

    ref: ResourceRef
    organization_id: UUID
    project_id: UUID | None
    row: Row[Any]
    roles: frozenset[Role]
    concerns_only_the_actor: bool = False

    @property
    def id(self) -> UUID:
        """The resource's id."""
        return self.ref.id

    @property
    def actions(self) -> frozenset[Action]:
        """Everything the actor may do on it."""
        return actions_of(self.roles)

    @property
    def is_readable(self) -> bool:
        """Whether the actor may know that it exists."""
        return READ_ACTIONS[self.ref.type] in self.actions


class PolicyEngine(Protocol):
    """Decides from stored grants; keeps nothing between two questions, so revocation holds from the next one."""

    async def locate(
        self,
        connection: AsyncConnection,
        actor: Actor,
        key: InstrumentedAttribute[Any],
        value: Any,
        at: datetime,
    ) -> Located | None:
        """The row whose unique ``key`` has this value, with the actor's roles on it, in one statement; None when absent."""

    def visible_rows(self, model: type[Base], action: Action) -> ColumnElement[bool]:
        """An SQL predicate that is true for the rows of ``model`` on which the actor named by ``asking`` may take the action."""

    def asking(self, actor: Actor, at: datetime) -> Mapping[str, Any]:
        """The parameters of ``visible_rows``."""

    async def holds_anywhere(self, connection: AsyncConnection, actor: Actor, action: Action, at: datetime) -> bool:
        """Whether any grant gives the actor the action on anything."""


# The column that names each scope of a row, nearest first.
ScopeColumns = Mapping[ResourceType, InstrumentedAttribute[Any]]
