"""What is asked of the policy engine and the stored grants to answer questions about authorization."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from app.authz.bulk import Holding, holdings
from app.authz.engine import HeldGrant, Judgements, Located
from app.authz.questions import Members, grants_of, grants_on, limits_of_keys, members_below, organizations_of
from app.authz.tree import KEYS, model_of
from app.core.actors import Actor, ActorType
from app.core.clock import now
from app.core.permissions import Action, Role
from app.core.resources import ResourceType
from app.db.functions import unindexed
from app.unit_of_work import UnitOfWork


class AuthorizationRepository:
    """Reads grants, groups and verdicts; writes nothing."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    async def grants_on(self, resource: Located) -> list[HeldGrant]:
        """Every live grant on a resource and above it, in no order."""
        async with self._work.view(resource.organization_id).open() as connection:
            return await grants_on(connection, resource, now())

    async def grants_of(self, resource: Located, actor: Actor) -> list[HeldGrant]:
        """Those that count for an actor, nearest first, each with its way."""
        async with self._work.view(resource.organization_id).open() as connection:
            return await grants_of(connection, resource, self._work.asker_of(actor), now())

    async def members_below(self, organization_id: UUID, groups: Collection[Actor]) -> Members:
        """The direct members of the groups and of every group in them."""
        if not groups:
            return {}
        async with self._work.view(organization_id).open() as connection:
            return await members_below(connection, organization_id, {group.id for group in groups}, now())

    async def judge(self, resource_type: ResourceType, asked: Collection[tuple[UUID, Actor]]) -> Judgements:
        """What each actor was granted on each resource, API keys within what they were made for; one statement, with keys two."""
        pairs = {(resource_id, self._work.asker_of(actor)) for resource_id, actor in asked}
        granted = await self._work.judge(self._work.view(), resource_type, pairs)
        limits = await self.limits_of_keys({actor for _, actor in granted})
        return {(ref, actor): actions & limits.get(actor, actions) for (ref, actor), actions in granted.items()}

    async def limits_of_keys(self, actors: Collection[Actor]) -> Mapping[Actor, frozenset[Action]]:
        """What the API keys among the actors were made for, of those that were made for less than their role."""
        keys = [actor.id for actor in actors if actor.type is ActorType.API_KEY and actor != self._work.actor and _is_id(actor.id)]
        if not keys:
            return {}
        async with self._work.view().open() as connection:
            limits = await limits_of_keys(connection, keys)
        return {Actor(ActorType.API_KEY, key): actions for key, actions in limits.items()}

    async def holdings(self, resource_type: ResourceType, asked: Collection[tuple[UUID, Actor]]) -> list[Holding]:
        """Every way in which each actor can hold something on each resource."""
        return await holdings(self._work.view(), resource_type, {(ref, self._work.asker_of(actor)) for ref, actor in asked}, now())

    async def organizations_of(self, limit: int) -> list[tuple[Any, list[Role]]]:
        """The organizations on which the caller holds a role, with the roles."""
        async with self._work.view().open() as connection:
            return await organizations_of(connection, self._work.identity.asker, now(), limit)

    async def objects(self, resource_type: ResourceType, after: UUID | None, limit: int) -> tuple[list[UUID], int]:
        """The ids of the resources the session was admitted to, ``limit`` after one of them in order, and how many there are in all."""
        key, model = KEYS[resource_type], model_of(resource_type)
        every = self._work.only_visible(select(key), model)
        page = every if after is None else every.where(key > after)
        found = (await self._work.session.execute(page.order_by(unindexed(key)).limit(limit))).scalars().all()
        counted = self._work.only_visible(select(func.count(key)), model)
        return list(found), int((await self._work.session.execute(counted)).scalar_one())


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
