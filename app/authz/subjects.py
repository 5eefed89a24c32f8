"""Who an asker is besides itself: the groups it is in, directly, through other groups, and by its token. SQL that statements share.

``UNION`` (not ``UNION ALL``) ends the walk through groups that contain each other. A group counts only in its own tenant.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    ScalarSelect,
    Select,
    String,
    Uuid,
    and_,
    bindparam,
    cast,
    func,
    null,
    or_,
    select,
)

from app.core.actors import ActorType, Asker
from app.db.base import Timestamp
from app.db.functions import each_text, word
from app.models import GroupMember, Membership

MEMBERS: Final = GroupMember.__table__
GRANTS: Final = Membership.__table__
GROUP: Final = word(ActorType.GROUP.value)


def asking(asker: Asker, at: datetime, slot: str) -> Mapping[str, Any]:
    """The parameters that name an asker in a slot."""
    parameters: dict[str, Any] = {f"{slot}_type": asker.actor.type.value, f"{slot}_id": asker.actor.id, "at": at}
    if asker.groups is not None:
        parameters[f"{slot}_groups"] = json.dumps(sorted(asker.groups.names))
        parameters[f"{slot}_groups_tenant"] = asker.groups.organization_id
    return parameters


def is_live(table: FromClause) -> ColumnElement[bool]:
    """Whether a row has not ended at the moment ``at``."""
    return or_(table.c.expires_at.is_(None), table.c.expires_at > bindparam("at", type_=Timestamp()))


def asking_actor(slot: str) -> tuple[ColumnElement[str], ColumnElement[str]]:
    """The asker of a slot as a row's type and id."""
    return (
        cast(bindparam(f"{slot}_type"), String).label("subject_type"),
        cast(bindparam(f"{slot}_id"), String).label("subject_id"),
    )


def token_groups(slot: str, *also: ColumnElement[Any]) -> Select[Any]:
    """The groups that the token of a slot's asker names, a row each, with other columns beside them."""
    return select(GROUP.label("subject_type"), cast(each_text(f"{slot}_groups").c.value, String), *also)


def tenant_of_token_groups(slot: str) -> ColumnElement[UUID]:
    """The one organization in which they count."""
    return bindparam(f"{slot}_groups_tenant", type_=Uuid())


def subjects_in(tenant: ColumnElement[Any], actor: Select[str, str], *named: Select[Any]) -> CTE:
    """An actor, given as a row's type and id, and every group of one tenant it is in; so too for the groups that are ``named``."""
    found = actor.cte("subjects", recursive=True)
    return found.union(*named, select(GROUP, MEMBERS.c.group_id).where(_contains(found), MEMBERS.c.organization_id == tenant))


def subjects_everywhere(slot: str, *, has_groups: bool) -> CTE:
    """An asker (with no tenant) and every group it is in, each with its tenant."""
    found = select(*asking_actor(slot), cast(null(), Uuid()).label("tenant")).cte(f"subjects_of_{slot}", recursive=True)
    named = [token_groups(slot, tenant_of_token_groups(slot))] if has_groups else []
    deeper = select(GROUP, MEMBERS.c.group_id, MEMBERS.c.organization_id).where(
        _contains(found), or_(found.c.tenant.is_(None), found.c.tenant == MEMBERS.c.organization_id)
    )
    return found.union(*named, deeper)


def ways_in(tenant: ColumnElement[Any], slot: str, *, has_groups: bool) -> CTE:
    """An asker and the groups it is in, a row for each step that leads there: the subject, and what it contains."""
    nobody = (cast(null(), String).label("from_type"), cast(null(), String).label("from_id"))
    found = select(*asking_actor(slot), *nobody).cte("ways", recursive=True)
    named = [token_groups(slot, *asking_actor(slot)).where(tenant_of_token_groups(slot) == tenant)] if has_groups else []
    deeper = select(GROUP, MEMBERS.c.group_id, found.c.subject_type, found.c.subject_id).where(
        _contains(found), MEMBERS.c.organization_id == tenant
    )
    return found.union(*named, deeper)


def roles_held(subjects: CTE, scopes: CTE) -> ScalarSelect[str | None]:
    """What one subject was given on one scope, with commas between: each pair of the two probes the index of grants by itself."""
    held = select(func.aggregate_strings(GRANTS.c.role, ",")).where(
        GRANTS.c.actor_type == subjects.c.subject_type,
        GRANTS.c.actor_id == subjects.c.subject_id,
        GRANTS.c.resource_type == scopes.c.scope_type,
        GRANTS.c.resource_id == scopes.c.scope_id,
        is_live(GRANTS),
    )
    return held.correlate(subjects, scopes).scalar_subquery()


def counts_for(subjects: CTE) -> ColumnElement[bool]:
    """Whether a grant counts for one of the subjects of every tenant: what a group was given counts in the group's own tenant."""
    return and_(
        GRANTS.c.actor_type == subjects.c.subject_type,
        GRANTS.c.actor_id == subjects.c.subject_id,
        or_(subjects.c.tenant.is_(None), subjects.c.tenant == GRANTS.c.organization_id),
        is_live(GRANTS),
    )


def _contains(found: CTE) -> ColumnElement[bool]:
    is_member: ColumnElement[bool] = MEMBERS.c.member_type == found.c.subject_type
    return is_member & (MEMBERS.c.member_id == found.c.subject_id) & is_live(MEMBERS)
