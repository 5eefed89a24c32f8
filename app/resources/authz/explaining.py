"""Puts the reasons of a verdict into words and steps."""

from collections.abc import Iterator

from app.authz.engine import HeldGrant, Located
from app.core.actors import Actor
from app.core.permissions import ROLE_ACTIONS, Action, roles_with
from app.core.resources import ResourceRef
from app.http.schemas import ActorRef, ResourceRefRead
from app.resources.authz.schemas import ContainsStep, EffectiveRole, Explanation, GroupStep, RoleStep, Source, SubjectStep

Step = SubjectStep | GroupStep | RoleStep | ContainsStep


def explain(actor: Actor, action: Action, ref: ResourceRef, resource: Located | None, grants: list[HeldGrant]) -> Explanation:
    """Why an actor may, or may not.

    Args:
        actor: who is asked about.
        action: what he would do.
        ref: to what.
        resource: the same, found; None when there is nothing he may know of.
        grants: his grants that count there, nearest first, each within what is left of it.
    """
    matching = [grant for grant in grants if action in grant.actions]
    carrying = matching or [grant for grant in grants if action in ROLE_ACTIONS[grant.role]]
    return Explanation(
        actor=ActorRef.of(actor),
        action=action,
        resource=ResourceRefRead.of(ref),
        allowed=bool(matching),
        source=Source.EFFECTIVE_ROLE if matching else Source.NONE,
        reason=_reason(action, grants, carrying, is_allowed=bool(matching)),
        evaluated_scopes=[ResourceRefRead.of(scope) for scope in (resource.scopes if resource is not None else [ref])],
        effective_roles=[EffectiveRole.of(grant, ref) for grant in grants],
        matching_roles=[EffectiveRole.of(grant, ref) for grant in matching],
        path=list(_path(actor, matching[0], resource)) if matching and resource is not None else [],
        sufficient_roles=[] if carrying else list(roles_with(action)),
    )


def _path(actor: Actor, grant: HeldGrant, resource: Located) -> Iterator[Step]:
    yield SubjectStep(subject=actor.subject)
    for group in grant.via:
        yield GroupStep(group=group.id)
    yield RoleStep(role=grant.role, on=_named(grant.granted_on))
    below = resource.scopes[: resource.scopes.index(grant.granted_on)]
    for scope in reversed(below):
        yield ContainsStep(contains=_named(scope))


def _named(ref: ResourceRef) -> str:
    return f"{ref.type.value.lower()}:{ref.id}"


def _reason(action: Action, grants: list[HeldGrant], carrying: list[HeldGrant], *, is_allowed: bool) -> str:
    if carrying:
        grant = carrying[0]
        held = f"{grant.actor.subject} holds {grant.role.value} on {grant.granted_on.type.value} {grant.granted_on.id}"
        return held if is_allowed else f"{held}; but the credential, or who it is done for, does not reach that far"
    roles = ", ".join(sorted({grant.role.value for grant in grants})) or "none"
    return f"roles held: {roles}; roles that would do: {', '.join(roles_with(action))}"
