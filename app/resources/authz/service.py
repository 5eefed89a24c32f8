"""Answers questions about authorization from the rows that decide requests, so an answer and a request cannot disagree."""

from app.authz.engine import HeldGrant, Located
from app.core.actors import Actor
from app.core.errors import NotFoundError, UnauthenticatedError
from app.core.permissions import Action, roles_with
from app.core.resources import ResourceRef
from app.http.schemas import ActorRef, ResourceRefRead
from app.resources.authz.schemas import EffectiveRole, Explanation, Source
from app.unit_of_work import UnitOfWork


class AuthorizationService:
    """Who may ask: about oneself always; about others with MEMBER_MANAGE on the resource."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    async def check(self, actor: Actor, action: Action, ref: ResourceRef) -> bool:
        """Whether the actor may take the action. False for what does not exist, or what oneself may not see.

        Raises:
            NotFoundError: asked about another without MEMBER_MANAGE on the resource.
        """
        resource = await self._open(actor, ref)
        return any(action in grant.actions for grant in await self._grants(resource, actor))

    async def explain(self, actor: Actor, action: Action, ref: ResourceRef) -> Explanation:
        """The same with its reasons; for a denial, what is held and what would do."""
        resource = await self._open(actor, ref)
        return _explain(actor, action, ref, resource, await self._grants(resource, actor))

    async def effective_roles(self, actor: Actor, ref: ResourceRef) -> list[EffectiveRole]:
        """The roles that count for the actor on the resource, nearest first."""
        resource = await self._open(actor, ref)
        return [EffectiveRole.of(grant, ref) for grant in await self._grants(resource, actor)]

    async def who_can(self, resource: Located, action: Action) -> list[ActorRef]:
        """Every actor with a grant that carries the action on the resource, sorted by type and id. Groups stand for their members."""
        actors = {grant.actor for grant in await self._work.grants_on(resource) if action in grant.actions}
        return [ActorRef.of(actor) for actor in sorted(actors, key=lambda actor: (actor.type.value, actor.id))]

    async def who_can_explain(self, resource: Located, action: Action) -> list[Explanation]:
        """The same with reasons."""
        held: dict[Actor, list[HeldGrant]] = {}
        for grant in await self._work.grants_on(resource):
            held.setdefault(grant.actor, []).append(grant)
        explanations = [_explain(actor, action, resource.ref, resource, grants) for actor, grants in held.items()]
        allowed = [explanation for explanation in explanations if explanation.allowed]
        return sorted(allowed, key=lambda explanation: (explanation.actor.type.value, explanation.actor.id))

    async def _open(self, actor: Actor, ref: ResourceRef) -> Located | None:
        work = self._work
        if work.identity.is_anonymous:
            raise UnauthenticatedError("Questions about authorization need an identity.")
        found = await work.find(ref)
        if actor == work.actor:
            return found if found is not None and found.granted else None
        if found is None or Action.MEMBER_MANAGE not in found.actions:
            raise NotFoundError
        return found

    async def _grants(self, resource: Located | None, actor: Actor) -> list[HeldGrant]:
        return await self._work.grants_on(resource, actor) if resource is not None else []


def _explain(actor: Actor, action: Action, ref: ResourceRef, resource: Located | None, grants: list[HeldGrant]) -> Explanation:
    matching = [grant for grant in grants if action in grant.actions]
    return Explanation(
        actor=ActorRef.of(actor),
        action=action,
        resource=ResourceRefRead.of(ref),
        allowed=bool(matching),
        source=Source.EFFECTIVE_ROLE if matching else Source.NONE,
        reason=_reason(action, grants, matching),
        evaluated_scopes=[ResourceRefRead.of(scope) for scope in (resource.scopes if resource is not None else [ref])],
        effective_roles=[EffectiveRole.of(grant, ref) for grant in grants],
        matching_roles=[EffectiveRole.of(grant, ref) for grant in matching],
    )


def _reason(action: Action, grants: list[HeldGrant], matching: list[HeldGrant]) -> str:
    if matching:
        grant = matching[0]
        return f"{grant.actor.subject} holds {grant.role.value} on {grant.granted_on.type.value} {grant.granted_on.id}"
    held = ", ".join(sorted({grant.role.value for grant in grants})) or "none"
    return f"roles held: {held}; roles that would do: {', '.join(roles_with(action))}"
