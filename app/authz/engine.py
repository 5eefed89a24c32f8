"""The port of the policy engine, and what it answers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute

from app.core.actors import Actor, Asker
from app.core.permissions import READ_ACTIONS, ROLE_ACTIONS, Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.db.base import Base
from app.db.engine import Database, View
from app.db.visibility import VisibleRows
from app.db.wanted import Found, Proof, ProofLookup

# The names under which a statement knows an asker: who acts, for whom, and who is asked about.
ACTOR: Final = "actor"
PRINCIPAL: Final = "principal"
ASKED: Final = "asked"


@dataclass(frozen=True, slots=True)
class Located:
    """A resource that exists, and what the asking actor was granted on it, directly, through groups and from above."""

    ref: ResourceRef
    organization_id: UUID
    project_id: UUID | None
    row: Any
    granted: frozenset[Action]
    only_actions: frozenset[Action] | None = None
    concerns_only_the_actor: bool = False

    @property
    def id(self) -> UUID:
        """The resource's id."""
        return self.ref.id

    @property
    def scopes(self) -> list[ResourceRef]:
        """The resource and those above it, nearest first."""
        above = {ResourceType.PROJECT: self.project_id, ResourceType.ORGANIZATION: self.organization_id}
        return [
            self.ref,
            *(ResourceRef(type_, id_) for type_, id_ in above.items() if id_ is not None and type_ in self.ref.type.ancestry[1:]),
        ]

    @property
    def places(self) -> Mapping[ResourceRef, int]:
        """The same with their distance."""
        return {scope: distance for distance, scope in enumerate(self.scopes)}

    @property
    def actions(self) -> frozenset[Action]:
        """Everything the actor may do on it."""
        return self.granted if self.only_actions is None else self.granted & self.only_actions

    @property
    def is_readable(self) -> bool:
        """Whether the actor may know that it exists."""
        return READ_ACTIONS[self.ref.type] in self.actions


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """A grant as it counts on a resource: who holds which role, given where; for an asker also through which groups, nearest first."""

    actor: Actor
    role: Role
    granted_on: ResourceRef
    only_actions: frozenset[Action] | None = None
    via: tuple[Actor, ...] = ()

    @property
    def actions(self) -> frozenset[Action]:
        """What it carries: the role's actions, or those of them an API key was made for."""
        held = ROLE_ACTIONS[self.role]
        return held if self.only_actions is None else held & self.only_actions

    def order(self, places: Mapping[ResourceRef, int]) -> tuple[int, str, str, str]:
        """What grants are sorted by: nearest place first, then by who was given what."""
        return places[self.granted_on], self.actor.type.value, self.actor.id, self.role.value


class PolicyEngine(Protocol):
    """Decides from stored grants; keeps nothing between two questions, so revocation holds from the next one."""

    async def locate(  # noqa: PLR0913 - the parts of a question
        self,
        database: Database,
        asker: Asker,
        key: InstrumentedAttribute[Any],
        value: Any,
        at: datetime,
        *,
        found: Found | None = None,
    ) -> Located | None:
        """The row whose unique ``key`` has this value, with what the asker was granted on it, in one statement; None when absent.

        In none at all when ``found`` is what a look-up of ``locating_for`` has found for the same asker.

        Raises:
            UnavailableError: the engine cannot decide now. Nothing is allowed then, and nothing denied.
        """

    def locating_for(self, proof: Proof, key: InstrumentedAttribute[Any]) -> ProofLookup:
        """The look-up of a credential that also finds what ``locate`` looks for, for the actor whom the credential proves.

        Its parameters are those of the proof, ``key`` and ``at``. Of who has not proven himself it asks the table of the key nothing.
        """

    def visible_rows(self, model: type[Base], action: Action, asker: Asker, slot: str = ACTOR) -> VisibleRows:
        """The rows of ``model`` on which the asker may take the action.

        A statement may be confined to those of several askers, each in a slot of its own.
        """

    def asking(self, asker: Asker, at: datetime, slot: str = ACTOR) -> Mapping[str, Any]:
        """The parameters of ``visible_rows``."""

    async def holds_anywhere(self, connection: AsyncConnection, asker: Asker, action: Action, at: datetime) -> bool:
        """Whether any grant gives the actor the action on anything."""

    async def judge(self, view: View, resource_type: ResourceType, asked: Collection[tuple[UUID, Asker]], at: datetime) -> "Judgements":
        """What each asker was granted on each resource of one type, in one statement; a resource that is absent is absent here too."""

    async def check(self) -> None:
        """See whether the engine can decide.

        Raises:
            UnavailableError: it cannot; the message says why, to whoever runs the service.
        """

    async def aclose(self) -> None:
        """Close what it keeps open."""


Judgements = Mapping[tuple[UUID, Actor], frozenset[Action]]

# The column that names each scope of a row, nearest first.
ScopeColumns = Mapping[ResourceType, InstrumentedAttribute[Any]]
