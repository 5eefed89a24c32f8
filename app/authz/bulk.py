"""Many questions in one statement: what each of several askers was granted on each of several resources of one type."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import CTE, Table, Uuid, select, union
from sqlalchemy import cast as sql_cast

from app.authz.engine import Judgements
from app.authz.subjects import GROUP, MEMBERS, asking, asking_actor, is_live, roles_held, tenant_of_token_groups, token_groups
from app.authz.tree import KEYS, SCOPES, model_of
from app.core.actors import Actor, ActorType, Asker
from app.core.permissions import Role, actions_of
from app.core.resources import ResourceRef, ResourceType
from app.db.engine import View
from app.db.functions import each_array, is_one_of, text_at, word
from app.db.lookups import Lookup
from app.models import Membership

_MEMBERSHIPS: Final = Membership.__table__


@dataclass(frozen=True, slots=True)
class Holding:
    """One way in which an asker can hold something on a resource: what one of its subjects (itself, a group) holds on one scope."""

    resource_id: UUID
    asker: Actor
    subject: Actor
    scope: ResourceRef
    roles: frozenset[Role]


async def judge(view: View, resource_type: ResourceType, asked: Collection[tuple[UUID, Asker]], at: datetime) -> Judgements:
    """See ``PolicyEngine.judge``."""
    return granted_by(await holdings(view, resource_type, asked, at))


def granted_by(found: Iterable[Holding]) -> Judgements:
    """What the holdings come to, for each resource and asker."""
    roles: defaultdict[tuple[UUID, Actor], set[Role]] = defaultdict(set)
    for holding in found:
        roles[holding.resource_id, holding.asker] |= holding.roles
    return {pair: actions_of(frozenset(held)) for pair, held in roles.items()}


async def holdings(view: View, resource_type: ResourceType, asked: Collection[tuple[UUID, Asker]], at: datetime) -> list[Holding]:
    """Every way in which each asker can hold something on each resource that exists, also those by which it holds nothing."""
    with_groups = sorted({asker for _, asker in asked if asker.groups is not None}, key=lambda asker: asker.actor.subject)
    slots = {f"asker_{number}": asker for number, asker in enumerate(with_groups)}
    pairs = [[resource.hex, asker.actor.type.value, asker.actor.id] for resource, asker in asked]
    parameters: dict[str, Any] = {"asked": json.dumps(pairs), "at": at}
    for slot, asker in slots.items():
        parameters |= asking(asker, at, slot)
    return [
        Holding(
            row.resource_id,
            Actor(ActorType(row.asker_type), row.asker_id),
            Actor(ActorType(row.subject_type), row.subject_id),
            ResourceRef(ResourceType(row.scope_type), row.scope_id),
            frozenset(map(Role, row.roles.split(","))) if row.roles else frozenset(),
        )
        for row in await view.look_up_all(_lookup(resource_type, tuple(slots), is_short=len(asked) == 1), parameters)
    ]


@cache
def _lookup(resource_type: ResourceType, slots: tuple[str, ...], *, is_short: bool) -> Lookup:
    targets = _targets(resource_type)
    subjects = _subjects(targets, slots)
    columns = SCOPES[model_of(resource_type)]
    scopes = union(
        *(
            select(targets.c.resource_id, word(scope.value).label("scope_type"), targets.c[scope.value].label("scope_id"))
            for scope in columns
        )
    ).cte("scopes")
    is_the_askers = (
        (subjects.c.asker_type == targets.c.asker_type)
        & (subjects.c.asker_id == targets.c.asker_id)
        & (subjects.c.tenant == targets.c[ResourceType.ORGANIZATION.value])
    )
    pairs = targets.join(scopes, scopes.c.resource_id == targets.c.resource_id).join(subjects, is_the_askers)
    asker = targets.c.resource_id, targets.c.asker_type, targets.c.asker_id
    way = subjects.c.subject_type, subjects.c.subject_id, scopes.c.scope_type, scopes.c.scope_id
    return Lookup(select(*asker, *way, roles_held(subjects, scopes).label("roles")).select_from(pairs), is_short=is_short)


def _targets(resource_type: ResourceType) -> CTE:
    """The resources that exist, each with who is asked about it and what lies above it."""
    key = KEYS[resource_type]
    model = model_of(resource_type)
    table = cast("Table", model.__table__)
    item = each_array("asked").c.value
    asked = select(
        sql_cast(text_at(item, 0), Uuid()).label("resource_id"),
        text_at(item, 1).label("asker_type"),
        text_at(item, 2).label("asker_id"),
    ).cte("asked")
    above = [table.c[column.key].label(scope.value) for scope, column in SCOPES[model].items()]
    is_asked = table.c[key.key] == asked.c.resource_id
    # The join alone is read from the tenant's end when row-level security names it: everything the tenant has.
    few = is_one_of(key, select(asked.c.resource_id))
    return select(*asked.c, *above).join_from(asked, table, is_asked).where(few).cte("targets")


def _subjects(targets: CTE, slots: tuple[str, ...]) -> CTE:
    """Each asker in each tenant it is asked about, and every group of that tenant it is in."""
    asker = targets.c.asker_type, targets.c.asker_id
    tenant = targets.c[ResourceType.ORGANIZATION.value]
    itself = (targets.c.asker_type.label("subject_type"), targets.c.asker_id.label("subject_id"))
    found = select(*asker, tenant.label("tenant"), *itself).distinct().cte("subjects", recursive=True)
    named = []
    for slot in slots:
        kind, name = asking_actor(slot)
        groups = token_groups(slot).subquery(f"groups_of_{slot}")
        is_his = (targets.c.asker_type == kind) & (targets.c.asker_id == name) & (tenant == tenant_of_token_groups(slot))
        named.append(select(*asker, tenant, *groups.c).select_from(targets.join(groups, is_his)))
    deeper = select(found.c.asker_type, found.c.asker_id, found.c.tenant, GROUP, MEMBERS.c.group_id).where(
        MEMBERS.c.member_type == found.c.subject_type,
        MEMBERS.c.member_id == found.c.subject_id,
        MEMBERS.c.organization_id == found.c.tenant,
        is_live(MEMBERS),
    )
    return found.union(*named, deeper)
