"""The built-in policy engine: grants, nested groups and the resource tree, asked in SQL.

The shape of the statements is chosen for PostgreSQL's planner: each pair of a scope and a subject probes the unique index of
``memberships`` (actor first) by itself, so neither the number of members of an organization nor the number of grants of
an actor is felt. ``UNION`` (not ``UNION ALL``) ends the walk through groups that contain each other.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Final
from typing import cast as cast_type
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Executable,
    FromClause,
    Select,
    String,
    Table,
    Uuid,
    bindparam,
    cast,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
    union,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute

from app.authz.engine import ACTOR, HeldGrant, Located
from app.authz.tree import SCOPES
from app.core.actors import Actor, ActorType, Asker
from app.core.permissions import Action, Role, actions_of, roles_with
from app.core.resources import ResourceRef, ResourceType
from app.db.base import Base, Timestamp
from app.db.functions import each_text
from app.models import ApiKey, GroupMember, Membership, UnsentTuple

_MEMBERSHIPS: Final = Membership.__table__
_MEMBERS: Final = GroupMember.__table__
_UNSENT: Final = UnsentTuple.__table__
_ROLES: Final = "held_roles"
HAS_UNSENT: Final = "has_unsent_tuples"


class BuiltinPolicyEngine:
    """Implements ``PolicyEngine`` over the service's own tables."""

    # Whether ``locate`` also tells, as ``HAS_UNSENT``, that the organization has changes which a copy elsewhere lacks.
    tells_unsent: ClassVar[bool] = False

    async def locate(
        self,
        connection: AsyncConnection,
        asker: Asker,
        key: InstrumentedAttribute[Any],
        value: Any,
        at: datetime,
    ) -> Located | None:
        """See ``PolicyEngine.locate``."""
        statement = _locate_statement(key, has_groups=asker.groups is not None, tells_unsent=self.tells_unsent)
        row = (await connection.execute(statement, {"key": value, **self.asking(asker, at)})).one_or_none()
        if row is None:
            return None
        held = getattr(row, _ROLES)
        scopes = {scope: getattr(row, column.key) for scope, column in SCOPES[cast_type("type[Base]", key.class_)].items()}
        nearest = next(scope for scope, value in scopes.items() if value is not None)
        return Located(
            ref=ResourceRef(nearest, scopes[nearest]),
            organization_id=scopes[ResourceType.ORGANIZATION],
            project_id=scopes.get(ResourceType.PROJECT),
            row=row,
            granted=actions_of(frozenset(map(Role, held.split(","))) if held else frozenset()),
        )

    async def list_grants(self, connection: AsyncConnection, resource: Located, at: datetime) -> list[HeldGrant]:
        """See ``PolicyEngine.list_grants``."""
        return await _held_on(connection, resource, at)

    async def list_grants_of(self, connection: AsyncConnection, resource: Located, asker: Asker, at: datetime) -> list[HeldGrant]:
        """See ``PolicyEngine.list_grants_of``."""
        parameters = {**self.asking(asker, at), "tenant": resource.organization_id}
        subjects = (await connection.execute(_subjects_statement(has_groups=asker.groups is not None), parameters)).all()
        return await _held_on(connection, resource, at, [(kind, name) for kind, name in subjects])

    def visible_rows(self, model: type[Base], action: Action, asker: Asker, slot: str = ACTOR) -> ColumnElement[bool]:
        """See ``PolicyEngine.visible_rows``."""
        return _visible_rows(model, action, slot, has_groups=asker.groups is not None)

    def asking(self, asker: Asker, at: datetime, slot: str = ACTOR) -> Mapping[str, Any]:
        """See ``PolicyEngine.asking``."""
        parameters: dict[str, Any] = {f"{slot}_type": asker.actor.type.value, f"{slot}_id": asker.actor.id, "at": at}
        if asker.groups is not None:
            parameters[f"{slot}_groups"] = json.dumps(sorted(asker.groups.names))
            parameters[f"{slot}_groups_tenant"] = asker.groups.organization_id
        return parameters

    async def holds_anywhere(self, connection: AsyncConnection, asker: Asker, action: Action, at: datetime) -> bool:
        """See ``PolicyEngine.holds_anywhere``."""
        statement = _holds_anywhere(action, has_groups=asker.groups is not None)
        return bool((await connection.execute(statement, self.asking(asker, at))).scalar_one())

    async def check(self) -> None:
        """See ``PolicyEngine.check``: it works when the database does."""

    async def aclose(self) -> None:
        """See ``PolicyEngine.aclose``: it keeps nothing open."""


def _table(model: type[Base]) -> Table:
    table = model.__table__
    if not isinstance(table, Table):  # pragma: no cover - every model of this service is a table
        raise TypeError(model)
    return table


@cache
def _locate_statement(key: InstrumentedAttribute[Any], *, has_groups: bool, tells_unsent: bool) -> Executable:
    model = cast_type("type[Base]", key.class_)
    target = select(_table(model)).where(key == bindparam("key")).cte("target")
    columns = {scope: target.c[column.key] for scope, column in SCOPES[model].items()}
    scopes = union(
        *(select(literal(scope.value, String).label("scope_type"), column.label("scope_id")) for scope, column in columns.items())
    ).cte("scopes")
    tenant = select(columns[ResourceType.ORGANIZATION]).scalar_subquery()
    subjects = _subjects_in(tenant, has_groups=has_groups)
    held = (
        select(func.aggregate_strings(_MEMBERSHIPS.c.role, ","))
        .where(
            _MEMBERSHIPS.c.actor_type == subjects.c.subject_type,
            _MEMBERSHIPS.c.actor_id == subjects.c.subject_id,
            _MEMBERSHIPS.c.resource_type == scopes.c.scope_type,
            _MEMBERSHIPS.c.resource_id == scopes.c.scope_id,
            _is_live(_MEMBERSHIPS),
        )
        .correlate(subjects, scopes)
        .scalar_subquery()
    )
    per_pair = select(held.label("roles")).select_from(subjects.join(scopes, literal(value=True))).subquery("pairs")
    roles = select(func.aggregate_strings(per_pair.c.roles, ",")).scalar_subquery()
    told = [exists(select(_UNSENT.c.seq).where(_UNSENT.c.organization_id == tenant)).label(HAS_UNSENT)] if tells_unsent else []
    return select(*(column.label(column.name) for column in target.c), roles.label(_ROLES), *told).select_from(target)


async def _held_on(
    connection: AsyncConnection, resource: Located, at: datetime, subjects: list[tuple[str, str]] | None = None
) -> list[HeldGrant]:
    """The grants of these subjects; of everybody only when none are named at all."""
    places = {(scope.type.value, scope.id): place for place, scope in enumerate(resource.scopes)}
    grants = _MEMBERSHIPS.c
    statement = select(grants.actor_type, grants.actor_id, grants.role, grants.resource_type, grants.resource_id).where(
        tuple_(grants.resource_type, grants.resource_id).in_(places), _is_live(_MEMBERSHIPS)
    )
    if subjects is not None:
        statement = statement.where(tuple_(grants.actor_type, grants.actor_id).in_(subjects))
    rows = (await connection.execute(statement, {"at": at})).all()
    limits = await _limits_of_keys(connection, {row.actor_id for row in rows if row.actor_type == ActorType.API_KEY})
    ordered = sorted(rows, key=lambda row: (places[row.resource_type, row.resource_id], row.actor_type, row.actor_id, row.role))
    return [
        HeldGrant(
            Actor(ActorType(row.actor_type), row.actor_id),
            Role(row.role),
            ResourceRef(ResourceType(row.resource_type), row.resource_id),
            limits.get(row.actor_id) if row.actor_type == ActorType.API_KEY else None,
        )
        for row in ordered
    ]


async def _limits_of_keys(connection: AsyncConnection, key_ids: set[str]) -> dict[str, frozenset[Action]]:
    """The actions that keys were made for, of those that were made for less than their role."""
    if not key_ids:
        return {}
    keys = ApiKey.__table__.c
    statement = select(keys.id, keys.actions).where(keys.id.in_([UUID(key_id) for key_id in key_ids]))
    return {str(key): frozenset(map(Action, actions)) for key, actions in await connection.execute(statement) if actions is not None}


@cache
def _subjects_statement(*, has_groups: bool) -> Executable:
    subjects = _subjects_in(bindparam("tenant", type_=Uuid()), has_groups=has_groups)
    return select(subjects.c.subject_type, subjects.c.subject_id)


@cache
def _visible_rows(model: type[Base], action: Action, slot: str, *, has_groups: bool) -> ColumnElement[bool]:
    grants = _grants(action, slot, has_groups=has_groups)
    return or_(
        *(column.in_(select(grants.c.resource_id).where(grants.c.resource_type == scope.value)) for scope, column in SCOPES[model].items())
    )


@cache
def _holds_anywhere(action: Action, *, has_groups: bool) -> Executable:
    return select(exists(select(_grants(action, ACTOR, has_groups=has_groups).c.resource_id)))


def _subjects_in(tenant: ColumnElement[Any], *, has_groups: bool) -> CTE:
    """The actor and every group of that tenant it is in, directly or through other groups."""
    found = select(*_asking_actor(ACTOR)).cte("subjects", recursive=True)
    named = [select(*_named_groups(ACTOR)).where(_tenant_of_groups(ACTOR) == tenant)] if has_groups else []
    return found.union(
        *named,
        select(literal(ActorType.GROUP.value, String), _MEMBERS.c.group_id).where(
            _MEMBERS.c.member_type == found.c.subject_type,
            _MEMBERS.c.member_id == found.c.subject_id,
            _MEMBERS.c.organization_id == tenant,
            _is_live(_MEMBERS),
        ),
    )


def _grants(action: Action, slot: str, *, has_groups: bool) -> CTE:
    """What an asker holds that carries the action, in every tenant; a group counts only in the tenant it belongs to."""
    found = select(*_asking_actor(slot), cast(null(), Uuid()).label("tenant")).cte(f"subjects_of_{slot}", recursive=True)
    named = [select(*_named_groups(slot), _tenant_of_groups(slot))] if has_groups else []
    subjects = found.union(
        *named,
        select(literal(ActorType.GROUP.value, String), _MEMBERS.c.group_id, _MEMBERS.c.organization_id).where(
            _MEMBERS.c.member_type == found.c.subject_type,
            _MEMBERS.c.member_id == found.c.subject_id,
            or_(found.c.tenant.is_(None), found.c.tenant == _MEMBERS.c.organization_id),
            _is_live(_MEMBERS),
        ),
    )
    grants: Select[Any] = select(_MEMBERSHIPS.c.resource_type, _MEMBERSHIPS.c.resource_id).where(
        _MEMBERSHIPS.c.actor_type == subjects.c.subject_type,
        _MEMBERSHIPS.c.actor_id == subjects.c.subject_id,
        or_(subjects.c.tenant.is_(None), subjects.c.tenant == _MEMBERSHIPS.c.organization_id),
        _MEMBERSHIPS.c.role.in_([role.value for role in roles_with(action)]),
        _is_live(_MEMBERSHIPS),
    )
    return grants.cte(f"grants_of_{slot}")


def _asking_actor(slot: str) -> tuple[ColumnElement[str], ColumnElement[str]]:
    return (
        cast(bindparam(f"{slot}_type"), String).label("subject_type"),
        cast(bindparam(f"{slot}_id"), String).label("subject_id"),
    )


def _named_groups(slot: str) -> tuple[ColumnElement[str], ColumnElement[str]]:
    return literal(ActorType.GROUP.value, String), cast(each_text(f"{slot}_groups").c.value, String)


def _tenant_of_groups(slot: str) -> ColumnElement[UUID]:
    return bindparam(f"{slot}_groups_tenant", type_=Uuid())


def _is_live(table: FromClause) -> ColumnElement[bool]:
    return or_(table.c.expires_at.is_(None), table.c.expires_at > bindparam("at", type_=Timestamp()))
