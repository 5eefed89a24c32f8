"""The built-in policy engine: grants, nested groups and the resource tree, asked in SQL.

The shape of the statements is chosen for PostgreSQL's planner: each pair of a scope and a subject probes the unique index of
``memberships`` (actor first) by itself, so neither the number of members of an organization nor the number of grants of
an actor is felt. ``UNION`` (not ``UNION ALL``) ends the walk through groups that contain each other.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final
from typing import cast as cast_type

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
    union,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute

from app.authz.engine import Located
from app.authz.tree import SCOPES
from app.core.actors import Actor, ActorType
from app.core.permissions import Action, Role, roles_with
from app.core.resources import ResourceRef, ResourceType
from app.db.base import Base, Timestamp
from app.models import GroupMember, Membership, Organization, Project

_MEMBERSHIPS: Final = Membership.__table__
_MEMBERS: Final = GroupMember.__table__
_ROLES: Final = "held_roles"


class BuiltinPolicyEngine:
    """Implements ``PolicyEngine`` over the service's own tables."""

    async def locate(
        self,
        connection: AsyncConnection,
        actor: Actor,
        key: InstrumentedAttribute[Any],
        value: Any,
        at: datetime,
    ) -> Located | None:
        """See ``PolicyEngine.locate``."""
        row = (await connection.execute(_locate_statement(key), {"key": value, **self.asking(actor, at)})).one_or_none()
        if row is None:
            return None
        held = getattr(row, _ROLES)
        model = cast_type("type[Base]", key.class_)
        return Located(
            ref=ResourceRef(next(iter(SCOPES[model])), row.id),
            organization_id=row.id if model is Organization else row.organization_id,
            project_id=row.id if model is Project else getattr(row, "project_id", None),
            row=row,
            roles=frozenset(map(Role, held.split(","))) if held else frozenset(),
        )

    def visible_rows(self, model: type[Base], action: Action) -> ColumnElement[bool]:
        """See ``PolicyEngine.visible_rows``."""
        return _visible_rows(model, action)

    def asking(self, actor: Actor, at: datetime) -> Mapping[str, Any]:
        """See ``PolicyEngine.asking``."""
        return {"actor_type": actor.type.value, "actor_id": actor.id, "at": at}

    async def holds_anywhere(self, connection: AsyncConnection, actor: Actor, action: Action, at: datetime) -> bool:
        """See ``PolicyEngine.holds_anywhere``."""
        return bool((await connection.execute(_holds_anywhere(action), self.asking(actor, at))).scalar_one())


def _table(model: type[Base]) -> Table:
    table = model.__table__
    if not isinstance(table, Table):  # pragma: no cover - every model of this service is a table
        raise TypeError(model)
    return table


@cache
def _locate_statement(key: InstrumentedAttribute[Any]) -> Executable:
    model = cast_type("type[Base]", key.class_)
    target = select(_table(model)).where(key == bindparam("key")).cte("target")
    columns = {scope: target.c[column.key] for scope, column in SCOPES[model].items()}
    scopes = union(
        *(select(literal(scope.value, String).label("scope_type"), column.label("scope_id")) for scope, column in columns.items())
    ).cte("scopes")
    tenant = select(columns[ResourceType.ORGANIZATION]).scalar_subquery()
    subjects = _subjects_in(tenant)
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
    return select(*(column.label(column.name) for column in target.c), roles.label(_ROLES)).select_from(target)


@cache
def _visible_rows(model: type[Base], action: Action) -> ColumnElement[bool]:
    grants = _grants(action)
    return or_(
        *(column.in_(select(grants.c.resource_id).where(grants.c.resource_type == scope.value)) for scope, column in SCOPES[model].items())
    )


@cache
def _holds_anywhere(action: Action) -> Executable:
    return select(exists(select(_grants(action).c.resource_id)))


def _subjects_in(tenant: ColumnElement[Any]) -> CTE:
    """The actor and every group of that tenant it is in, directly or through other groups."""
    found = select(*_asking_actor()).cte("subjects", recursive=True)
    return found.union(
        select(literal(ActorType.GROUP.value, String), _MEMBERS.c.group_id).where(
            _MEMBERS.c.member_type == found.c.subject_type,
            _MEMBERS.c.member_id == found.c.subject_id,
            _MEMBERS.c.organization_id == tenant,
            _is_live(_MEMBERS),
        )
    )


def _grants(action: Action) -> CTE:
    """What the asking actor holds that carries the action, in every tenant; a group counts only in the tenant it belongs to."""
    found = select(*_asking_actor(), cast(null(), Uuid()).label("tenant")).cte("subjects", recursive=True)
    subjects = found.union(
        select(literal(ActorType.GROUP.value, String), _MEMBERS.c.group_id, _MEMBERS.c.organization_id).where(
            _MEMBERS.c.member_type == found.c.subject_type,
            _MEMBERS.c.member_id == found.c.subject_id,
            or_(found.c.tenant.is_(None), found.c.tenant == _MEMBERS.c.organization_id),
            _is_live(_MEMBERS),
        )
    )
    grants: Select[Any] = select(_MEMBERSHIPS.c.resource_type, _MEMBERSHIPS.c.resource_id).where(
        _MEMBERSHIPS.c.actor_type == subjects.c.subject_type,
        _MEMBERSHIPS.c.actor_id == subjects.c.subject_id,
        or_(subjects.c.tenant.is_(None), subjects.c.tenant == _MEMBERSHIPS.c.organization_id),
        _MEMBERSHIPS.c.role.in_([role.value for role in roles_with(action)]),
        _is_live(_MEMBERSHIPS),
    )
    return grants.cte("grants")


def _asking_actor() -> tuple[ColumnElement[str], ColumnElement[str]]:
    return (
        cast(bindparam("actor_type"), String).label("subject_type"),
        cast(bindparam("actor_id"), String).label("subject_id"),
    )


def _is_live(table: FromClause) -> ColumnElement[bool]:
    return or_(table.c.expires_at.is_(None), table.c.expires_at > bindparam("at", type_=Timestamp()))
