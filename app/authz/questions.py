"""Who holds what on a resource, by which way, and who stands behind a group: the rows that decide requests, told with their reasons."""

import json
from collections import defaultdict, deque
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Executable, Uuid, and_, bindparam, cast, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.authz.engine import ACTOR, HeldGrant, Located
from app.authz.subjects import GROUP, MEMBERS, asking, counts_for, is_live, roles_held, subjects_everywhere, ways_in
from app.core.actors import Actor, ActorType, Asker
from app.core.permissions import Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.db.functions import each_array, each_text, text_at
from app.models import ApiKey, Membership, Organization

_MEMBERSHIPS: Final = Membership.__table__
_ORGANIZATIONS: Final = Organization.__table__
_GRANT_COLUMNS: Final = ("actor_type", "actor_id", "resource_type", "resource_id")

Ways = Mapping[Actor, tuple[Actor, ...]]
Members = Mapping[Actor, list[Actor]]


async def grants_on(connection: AsyncConnection, resource: Located, at: datetime) -> list[HeldGrant]:
    """Every live grant on the resource and above it, in no order."""
    return await _held_on(connection, resource, at)


async def grants_of(connection: AsyncConnection, resource: Located, asker: Asker, at: datetime) -> list[HeldGrant]:
    """Those that count for the asker, nearest first: his own, and those of groups he is in, each with its shortest way there."""
    parameters = {**asking(asker, at, ACTOR), "tenant": resource.organization_id}
    steps = (await connection.execute(_ways_statement(has_groups=asker.groups is not None), parameters)).all()
    held = await _held_on(connection, resource, at, _shortest_ways(asker.actor, steps))
    places = resource.places
    return sorted(held, key=lambda grant: grant.order(places))


async def members_below(connection: AsyncConnection, organization_id: UUID, groups: Collection[str], at: datetime) -> Members:
    """The direct members of these groups of an organization, and of every group in them at any depth."""
    below = select(each_text("groups").c.value.label("group_id")).cte("groups_below", recursive=True)
    is_inside = and_(MEMBERS.c.organization_id == bindparam("tenant", type_=Uuid()), is_live(MEMBERS))
    below = below.union(
        select(MEMBERS.c.member_id).where(MEMBERS.c.group_id == below.c.group_id, MEMBERS.c.member_type == GROUP, is_inside)
    )
    direct = select(MEMBERS.c.member_type, MEMBERS.c.member_id, MEMBERS.c.group_id).where(
        MEMBERS.c.group_id.in_(select(below.c.group_id)), is_inside
    )
    inside: defaultdict[Actor, list[Actor]] = defaultdict(list)
    for row in await connection.execute(direct, {"groups": json.dumps(sorted(groups)), "tenant": organization_id, "at": at}):
        inside[Actor(ActorType.GROUP, row.group_id)].append(Actor(ActorType(row.member_type), row.member_id))
    return inside


def ways_up(members: Members, group: Actor) -> Ways:
    """Everybody below a group with the shortest way up to it, as an asker sees it: nearest group first, the group itself last."""
    ways: dict[Actor, tuple[Actor, ...]] = {group: ()}
    waiting = deque([group])
    while waiting:
        reached = waiting.popleft()
        for member in sorted(members.get(reached, ()), key=lambda actor: actor.subject):
            if member not in ways:
                ways[member] = (reached, *ways[reached])
                waiting.append(member)
    del ways[group]
    return ways


async def organizations_of(connection: AsyncConnection, asker: Asker, at: datetime, limit: int) -> list[tuple[Any, list[Role]]]:
    """The organizations on which the asker holds a role, by slug, each with the roles he holds on it."""
    rows = await connection.execute(_organizations_statement(has_groups=asker.groups is not None), asking(asker, at, ACTOR))
    found: dict[UUID, tuple[Any, list[Role]]] = {}
    for row in rows:
        found.setdefault(row.id, (row, []))[1].append(Role(row.role))
    return list(found.values())[:limit]


@cache
def _ways_statement(*, has_groups: bool) -> Executable:
    ways = ways_in(bindparam("tenant", type_=Uuid()), ACTOR, has_groups=has_groups)
    return select(ways.c.subject_type, ways.c.subject_id, ways.c.from_type, ways.c.from_id).where(ways.c.from_type.is_not(None))


@cache
def _organizations_statement(*, has_groups: bool) -> Executable:
    subjects = subjects_everywhere(ACTOR, has_groups=has_groups)
    counts = and_(counts_for(subjects), _MEMBERSHIPS.c.resource_type == ResourceType.ORGANIZATION.value)
    columns = (_ORGANIZATIONS.c.id, _ORGANIZATIONS.c.slug, _ORGANIZATIONS.c.name, _MEMBERSHIPS.c.role)
    held = select(*columns).select_from(_MEMBERSHIPS.join(subjects, counts))
    return held.where(_ORGANIZATIONS.c.id == _MEMBERSHIPS.c.resource_id).distinct().order_by(_ORGANIZATIONS.c.slug, _MEMBERSHIPS.c.role)


def _shortest_ways(start: Actor, steps: Collection[Any]) -> Ways:
    above: defaultdict[Actor, list[Actor]] = defaultdict(list)
    for kind, name, from_kind, from_name in sorted(steps):
        above[Actor(ActorType(from_kind), from_name)].append(Actor(ActorType(kind), name))
    ways: dict[Actor, tuple[Actor, ...]] = {start: ()}
    waiting = deque([start])
    while waiting:
        reached = waiting.popleft()
        for group in above[reached]:
            if group not in ways:
                ways[group] = (*ways[reached], group)
                waiting.append(group)
    return ways


async def _held_on(connection: AsyncConnection, resource: Located, at: datetime, ways: Ways | None = None) -> list[HeldGrant]:
    """The grants of the actors that ways lead to; of everybody only when none are given at all."""
    if ways is None:
        rows = (await connection.execute(_granted_statement(resource), {"at": at})).all()
    else:
        pairs = [[actor.type.value, actor.id, scope.type.value, scope.id.hex] for actor in ways for scope in resource.scopes]
        rows = (await connection.execute(_paired_statement(), {"at": at, "pairs": json.dumps(pairs)})).all()
    limits = await limits_of_keys(connection, {row.actor_id for row in rows if row.actor_type == ActorType.API_KEY})
    held = []
    for row in rows:
        actor, granted_on = Actor(ActorType(row.actor_type), row.actor_id), ResourceRef(ResourceType(row.resource_type), row.resource_id)
        limit = limits.get(actor.id) if actor.type is ActorType.API_KEY else None
        way = ways[actor] if ways is not None else ()
        held += [HeldGrant(actor, Role(role), granted_on, limit, way) for role in row.roles.split(",")]
    return held


def _granted_statement(resource: Located) -> Executable:
    grants = _MEMBERSHIPS.c
    places = [(scope.type.value, scope.id) for scope in resource.scopes]
    return select(*(grants[name] for name in _GRANT_COLUMNS), grants.role.label("roles")).where(
        tuple_(grants.resource_type, grants.resource_id).in_(places), is_live(_MEMBERSHIPS)
    )


@cache
def _paired_statement() -> Executable:
    """What each of some subjects holds on each of some scopes; what others hold there is not felt."""
    pair = each_array("pairs").c.value
    names = ("subject_type", "subject_id", "scope_type")
    texts = (text_at(pair, place).label(name) for place, name in enumerate(names))
    pairs = select(*texts, cast(text_at(pair, 3), Uuid()).label("scope_id")).cte("pairs")
    columns = (pairs.c[name].label(to) for name, to in zip(pairs.c.keys(), _GRANT_COLUMNS, strict=True))
    held = select(*columns, roles_held(pairs, pairs).label("roles")).subquery("held")
    return select(held).where(held.c.roles.is_not(None))


async def limits_of_keys(connection: AsyncConnection, key_ids: Collection[str]) -> Mapping[str, frozenset[Action]]:
    """The actions that API keys were made for, of those that were made for less than their role; none for a key that is not to be seen."""
    if not key_ids:
        return {}
    keys = ApiKey.__table__.c
    named = select(cast(each_text("keys").c.value, Uuid()))
    rows = await connection.execute(
        select(keys.id, keys.actions).where(keys.id.in_(named)), {"keys": json.dumps([UUID(key_id).hex for key_id in key_ids])}
    )
    found = {str(key): actions for key, actions in rows}
    limited = {key_id: found.get(key_id, ()) for key_id in key_ids}
    return {key_id: frozenset(map(Action, actions)) for key_id, actions in limited.items() if actions is not None}
