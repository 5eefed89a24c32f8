"""What would change if grants were given or taken: the rows that decide, with the changes laid over them. Nothing is written."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator

from app.authz.bulk import Holding, granted_by
from app.authz.questions import ways_up
from app.core.actors import Actor, ActorType
from app.core.errors import NotFoundError
from app.core.permissions import Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.http.schemas import ActorId, ActorRef, Command, ResourceRefRead, Schema
from app.resources.authz.repository import AuthorizationRepository
from app.resources.authz.schemas import AuthorizationQuestion
from app.resources.authz.service import AuthorizationService, Question
from app.unit_of_work import UnitOfWork

MAX_CHANGES: Final = 50
MAX_AFFECTED: Final = 1000

Change = tuple[Actor, ResourceRef, Role]
Answers = dict[Question, frozenset[Action]]


class SimulatedGrant(Command):
    """A role for an actor on a resource, as if it were given or taken."""

    resource_type: ResourceType
    resource_id: UUID
    actor_type: ActorType
    actor_id: ActorId
    role: Role

    @field_validator("role")
    @classmethod
    def _fits(cls, role: Role, others: ValidationInfo) -> Role:
        resource_type = others.data.get("resource_type")
        if resource_type is not None and not role.fits(resource_type):
            raise ValueError(f"{role.value} cannot be held on a resource of type {resource_type.value}")
        return role

    @property
    def change(self) -> Change:
        """Who, where, what."""
        return Actor(self.actor_type, self.actor_id), ResourceRef(self.resource_type, self.resource_id), self.role


Changes = Annotated[list[SimulatedGrant], Field(max_length=MAX_CHANGES)]


class Simulation(Command):
    """Grants to give and to take, and questions to ask before and after."""

    grants: Changes = Field(default_factory=list)
    revocations: Changes = Field(default_factory=list)
    checks: Annotated[list[AuthorizationQuestion], Field(max_length=MAX_CHANGES)] = Field(default_factory=list)


class SimulatedCheck(Schema):
    """One question, answered twice."""

    actor: ActorRef
    action: Action
    resource: ResourceRefRead
    before: bool
    after: bool


class SimulatedEffect(Schema):
    """What changes for one actor on one resource, and so on everything below it."""

    actor: ActorRef
    resource: ResourceRefRead
    gained: list[Action]
    lost: list[Action]


class SimulationRead(Schema):
    """What would change."""

    checks: list[SimulatedCheck]
    """The answers, in the order of the questions."""
    effects: list[SimulatedEffect]
    """Who gains and who loses, members of groups included."""
    is_complete: bool
    """False when more than 1000 actors are concerned: then the effects of the first 1000 are told."""


class SimulationService:
    """Answers what-if questions; needs MEMBER_MANAGE on every resource that is named."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._authorization = AuthorizationService(work)
        self._answers = AuthorizationRepository(work)

    async def simulate(self, asked: Simulation) -> SimulationRead:
        """Ask before and after.

        Raises:
            NotFoundError: a resource is absent, or the caller does not manage its members.
        """
        given, taken = {grant.change for grant in asked.grants}, {grant.change for grant in asked.revocations}
        changed = {ref for _, ref, _ in given | taken}
        await self._require_management(changed | {check.ref for check in asked.checks})
        affected = await self._affected(given | taken)
        shown = sorted(affected, key=_order)[:MAX_AFFECTED]
        concerned = {*shown, *((check.actor, check.ref) for check in asked.checks)}
        before, after = await self._judge_twice(concerned, given, taken)
        effects = [
            SimulatedEffect(
                actor=ActorRef.of(actor),
                resource=ResourceRefRead.of(ref),
                gained=sorted(after[actor, ref] - before[actor, ref]),
                lost=sorted(before[actor, ref] - after[actor, ref]),
            )
            for actor, ref in shown
        ]
        checks = [
            SimulatedCheck(
                actor=ActorRef.of(check.actor),
                action=check.action,
                resource=ResourceRefRead.of(check.ref),
                before=check.action in before[check.actor, check.ref],
                after=check.action in after[check.actor, check.ref],
            )
            for check in asked.checks
        ]
        told = [effect for effect in effects if effect.gained or effect.lost]
        return SimulationRead(checks=checks, effects=told, is_complete=len(shown) == len(affected))

    async def _require_management(self, refs: Iterable[ResourceRef]) -> None:
        self._authorization.require_identity()
        mine = await self._authorization.judge([(self._work.actor, ref) for ref in refs])
        if any(Action.MEMBER_MANAGE not in (actions or ()) for actions in mine):
            raise NotFoundError

    async def _affected(self, changes: Iterable[Change]) -> set[Question]:
        """The grantees on the resources that are named; where a group is one, everybody in it too."""
        asked = {(actor, ref) for actor, ref, _ in changes}
        groups: defaultdict[UUID, set[Question]] = defaultdict(set)
        for ref in {ref for actor, ref in asked if actor.type is ActorType.GROUP}:
            if (resource := await self._work.find(ref)) is not None:
                groups[resource.organization_id] |= {pair for pair in asked if pair[1] == ref and pair[0].type is ActorType.GROUP}
        for organization_id, pairs in groups.items():
            members = await self._answers.members_below(organization_id, {group for group, _ in pairs})
            for group, ref in pairs:
                asked.update((member, ref) for member in ways_up(members, group))
        return asked

    async def _judge_twice(self, pairs: Collection[Question], given: set[Change], taken: set[Change]) -> tuple[Answers, Answers]:
        """What each may do as it is and as it would be; about the caller what its principal and its credential leave of it."""
        by_type: defaultdict[ResourceType, set[tuple[UUID, Actor]]] = defaultdict(set)
        for actor, ref in pairs:
            parties = self._work.parties if actor == self._work.actor else [actor]
            by_type[ref.type].update((ref.id, party) for party in parties)
        before: Answers = {}
        after: Answers = {}
        for type_, asked in by_type.items():
            found = await self._answers.holdings(type_, asked)
            limits = await self._answers.limits_of_keys({actor for _, actor in asked})
            for told, holdings in ((before, found), (after, _overlaid(found, given, taken))):
                for (resource_id, actor), actions in granted_by(holdings).items():
                    told[actor, ResourceRef(type_, resource_id)] = actions & limits.get(actor, actions)
        return self._answered(pairs, before), self._answered(pairs, after)

    def _answered(self, pairs: Collection[Question], told: Answers) -> Answers:
        nothing: frozenset[Action] = frozenset()
        mine = self._work.actor
        return {
            (actor, ref): self._authorization.shared(told, ref) if actor == mine else told.get((actor, ref), nothing)
            for actor, ref in pairs
        }


def _overlaid(found: Sequence[Holding], given: set[Change], taken: set[Change]) -> list[Holding]:
    more: defaultdict[Question, set[Role]] = defaultdict(set)
    less: defaultdict[Question, set[Role]] = defaultdict(set)
    for changes, roles in ((given, more), (taken, less)):
        for actor, ref, role in changes:
            roles[actor, ref].add(role)
    return [
        replace(holding, roles=(holding.roles - less[holding.subject, holding.scope]) | more[holding.subject, holding.scope])
        for holding in found
    ]


def _order(pair: Question) -> tuple[str, str, str, str]:
    actor, ref = pair
    return ref.type.value, ref.id.hex, actor.type.value, actor.id
