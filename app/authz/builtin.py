"""The built-in policy engine: grants, nested groups and the resource tree, asked in SQL.

The shape of the statements is chosen for PostgreSQL's planner: each pair of a scope and a subject probes the unique index of
``memberships`` (actor first) by itself, so neither the number of members of an organization nor the number of grants of
an actor is felt.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache, partial
from typing import Any, ClassVar, Final
from typing import cast as cast_type
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Executable,
    ScalarSelect,
    Table,
    Uuid,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    union,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute

from app.authz.bulk import judge
from app.authz.engine import ACTOR, Judgements, Located
from app.authz.subjects import (
    asking,
    asking_actor,
    counts_for,
    roles_held,
    subjects_everywhere,
    subjects_in,
    tenant_of_token_groups,
    token_groups,
)
from app.authz.tree import KEYS, SCOPES, model_of
from app.core.actors import Asker
from app.core.permissions import Action, Role, actions_of, roles_with
from app.core.resources import ResourceRef, ResourceType
from app.db.base import Base
from app.db.confinement import Tenants
from app.db.engine import Database, View
from app.db.functions import array_of, rows_of, text_at, word
from app.db.lookups import Lookup
from app.db.visibility import VisibleRows, Way
from app.db.wanted import Found, Proof, ProofLookup
from app.models import Membership, UnsentTuple

_MEMBERSHIPS: Final = Membership.__table__
_UNSENT: Final = UnsentTuple.__table__
_ROLES: Final = "held_roles"
# The columns of a grant that say where what it is on lies.
_PLACES: Final = {ResourceType.PROJECT: "project_id", ResourceType.ORGANIZATION: "organization_id"}
HAS_UNSENT: Final = "has_unsent_tuples"


class BuiltinPolicyEngine:
    """Implements ``PolicyEngine`` over the service's own tables."""

    # Whether ``locate`` also tells, as ``HAS_UNSENT``, that the organization has changes which a copy elsewhere lacks.
    tells_unsent: ClassVar[bool] = False

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
        """See ``PolicyEngine.locate``."""
        if found is None:
            lookup = locating(key, has_groups=asker.groups is not None, tells_unsent=self.tells_unsent)
            found = Found(await database.look_up(lookup, {"key": value, **self.asking(asker, at)}, Tenants.of_row(key, value)))
        row = found.row
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
            granted=_actions_of(frozenset(held.split(","))) if held else frozenset(),
        )

    def locating_for(self, proof: Proof, key: InstrumentedAttribute[Any]) -> ProofLookup:
        """See ``PolicyEngine.locating_for``."""
        return locating_for(proof, key, tells_unsent=self.tells_unsent)

    def visible_rows(self, model: type[Base], action: Action, asker: Asker, slot: str = ACTOR) -> VisibleRows:
        """See ``PolicyEngine.visible_rows``."""
        return _visible_rows(model, action, slot, has_groups=asker.groups is not None)

    def asking(self, asker: Asker, at: datetime, slot: str = ACTOR) -> Mapping[str, Any]:
        """See ``PolicyEngine.asking``."""
        return asking(asker, at, slot)

    async def judge(self, view: View, resource_type: ResourceType, asked: Collection[tuple[UUID, Asker]], at: datetime) -> Judgements:
        """See ``PolicyEngine.judge``."""
        return await judge(view, resource_type, asked, at)

    async def holds_anywhere(self, connection: AsyncConnection, asker: Asker, action: Action, at: datetime) -> bool:
        """See ``PolicyEngine.holds_anywhere``."""
        statement = _holds_anywhere(action, has_groups=asker.groups is not None)
        return bool((await connection.execute(statement, self.asking(asker, at))).scalar_one())

    async def check(self) -> None:
        """See ``PolicyEngine.check``: it works when the database does."""

    async def aclose(self) -> None:
        """See ``PolicyEngine.aclose``: it keeps nothing open."""


@cache
def _actions_of(names: frozenset[str]) -> frozenset[Action]:
    return actions_of(frozenset(map(Role, names)))


def _table(model: type[Base]) -> Table:
    table = model.__table__
    if not isinstance(table, Table):  # pragma: no cover - every model of this service is a table
        raise TypeError(model)
    return table


@cache
def locating(key: InstrumentedAttribute[Any], *, has_groups: bool, tells_unsent: bool) -> Lookup:
    """Finds a row by a unique column, with the roles that an asker holds on it."""
    target = _target(key, bindparam("key"))
    tenant = _tenant_of(key, target)
    named = [token_groups(ACTOR).where(tenant_of_token_groups(ACTOR) == tenant)] if has_groups else []
    subjects = subjects_in(tenant, select(*asking_actor(ACTOR)), *named)
    return Lookup(select(*_with_roles(key, target, subjects, tells_unsent=tells_unsent)).select_from(target), is_short=True)


@cache
def locating_for(proof: Proof, key: InstrumentedAttribute[Any], *, tells_unsent: bool) -> ProofLookup:
    """Finds the row behind a credential and, if the proof holds, a row by a unique column with the roles of whom it proves."""
    # Nothing is equal to the NULL that is looked for as long as nothing is proven: then no row of the table is touched.
    target = _target(key, select(bindparam("key", type_=key.type)).where(proof.holds).scalar_subquery())
    actor = select(proof.actor_type.label("subject_type"), proof.actor_id.label("subject_id"))
    subjects = subjects_in(_tenant_of(key, target), actor)
    columns = _with_roles(key, target, subjects, tells_unsent=tells_unsent)
    statement = select(*proof.rows.c, *columns).select_from(proof.rows.outerjoin(target, true()))
    return ProofLookup(statement, key.key, tuple(column.name for column in columns))


def _target(key: InstrumentedAttribute[Any], value: ColumnElement[Any]) -> CTE:
    return select(_table(cast_type("type[Base]", key.class_))).where(key == value).cte("target")


def _tenant_of(key: InstrumentedAttribute[Any], target: CTE) -> ScalarSelect[Any]:
    organization = SCOPES[cast_type("type[Base]", key.class_)][ResourceType.ORGANIZATION]
    return select(target.c[organization.key]).scalar_subquery()


def _with_roles(key: InstrumentedAttribute[Any], target: CTE, subjects: CTE, *, tells_unsent: bool) -> list[ColumnElement[Any]]:
    """The columns of the target, and beside them what the subjects hold on it."""
    columns = {scope: target.c[column.key] for scope, column in SCOPES[cast_type("type[Base]", key.class_)].items()}
    scopes = union(*(select(word(scope.value).label("scope_type"), column.label("scope_id")) for scope, column in columns.items())).cte(
        "scopes"
    )
    per_pair = select(roles_held(subjects, scopes).label("roles")).select_from(subjects.join(scopes, true())).subquery("pairs")
    roles = select(func.aggregate_strings(per_pair.c.roles, ",")).scalar_subquery()
    unsent = exists(select(_UNSENT.c.seq).where(_UNSENT.c.organization_id == _tenant_of(key, target)))
    told = [unsent.label(HAS_UNSENT)] if tells_unsent else []
    return [*(column.label(column.name) for column in target.c), roles.label(_ROLES), *told]


@cache
def _visible_rows(model: type[Base], action: Action, slot: str, *, has_groups: bool) -> VisibleRows:
    grants = _grants(action, slot, has_groups=has_groups)
    ways: dict[InstrumentedAttribute[Any], Way] = {}
    hangs = bool(_table(model).foreign_key_constraints)  # else a row may outlive what it lies in, and where that lay is forgotten
    for scope, column in reversed(list(SCOPES[model].items())):
        higher = {above: other for above, other in SCOPES[model].items() if above in scope.ancestry[1:]}
        values = select(grants.c.resource_id).where(grants.c.resource_type == scope.value).distinct()
        beside = {other: grants.c[_PLACES[above]] for above, other in higher.items()}
        ways[column] = Way(
            values,
            others=values.where(*(or_(place.is_(None), place.not_in(ways[other].values)) for other, place in beside.items())),
            within=beside,
            above={other: partial(_above, scope, above) for above, other in higher.items() if hangs},
        )
    return VisibleRows(cast_type("Any", model).id, dict(reversed(ways.items())))


def _above(scope: ResourceType, above: ResourceType, value: ColumnElement[Any]) -> ScalarSelect[Any]:
    """What lies above a resource."""
    table, columns = _table(model_of(scope)), SCOPES[model_of(scope)]
    return select(table.c[columns[above].key]).where(table.c[KEYS[scope].key] == value).scalar_subquery()


@cache
def _holds_anywhere(action: Action, *, has_groups: bool) -> Executable:
    return select(exists(select(_grants(action, ACTOR, has_groups=has_groups).c.resource_id)))


def _grants(action: Action, slot: str, *, has_groups: bool) -> CTE:
    """What an asker holds that carries the action, in every tenant."""
    subjects = subjects_everywhere(slot, has_groups=has_groups)
    told = [_MEMBERSHIPS.c[name] for name in ("resource_type", "resource_id", *_PLACES.values())]
    held = select(array_of(*told).label("value")).where(
        counts_for(subjects),
        _MEMBERSHIPS.c.role.in_([role.value for role in roles_with(action)]),
    )
    # For each subject by itself, which OFFSET 0 keeps: else PostgreSQL would read all grants of a tenant, or all there are.
    rows = rows_of(held.correlate(subjects).offset(literal_column("0")), "held")
    kind, *places = (text_at(rows.c.value, number) for number in range(len(told)))
    identifiers = (cast(place, Uuid()).label(column.name) for place, column in zip(places, told[1:], strict=True))
    columns: list[ColumnElement[Any]] = [kind.label(told[0].name), *identifiers]
    return select(*columns).select_from(subjects.join(rows, true())).cte(f"grants_of_{slot}")
