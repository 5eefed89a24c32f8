"""Stored grants: given, taken away and counted in the tenant the session is pinned to."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, String, Uuid, cast, delete, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.actors import Actor, ActorType
from app.core.clock import now
from app.core.errors import AppError, ConflictError
from app.core.identifiers import new_id
from app.core.pagination import CursorPage, CursorRequest, Page
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from app.db.functions import each_array, text_at
from app.db.listing import Filter, Listing
from app.db.repository import Repository
from app.models import Membership, Organization

# Whose permanent grants keep an organization owned: a group can become empty, an agent or a key can be switched off.
_OWNER_TYPES: Final = (ActorType.USER.value, ActorType.SERVICE.value)


def _lies_on(scopes: BindParameter[Any]) -> ColumnElement[bool]:
    scope = each_array(scopes.key).c.value
    places = select(text_at(scope, 0), cast(text_at(scope, 1), Uuid()))
    return tuple_(Membership.resource_type, Membership.resource_id).in_(places)


class MembershipRepository(Repository):
    """Statements over ``memberships``."""

    model = Membership
    listing: ClassVar[Listing] = Listing(Membership, {"granted_at": Membership.granted_at}, {"scopes": Filter(_lies_on, type_=String())})

    async def grant(  # noqa: PLR0913 - the parts of a grant
        self,
        organization_id: UUID,
        project_id: UUID | None,
        ref: ResourceRef,
        actor: Actor,
        role: Role,
        *,
        granted_by: Actor,
        expires_at: datetime | None = None,
    ) -> Any:
        """Write a grant, in the place of one that has ended. Of two who do so at once, the second finds what the first gave.

        Raises:
            ConflictError: the actor holds that role there already.
        """
        moment = now()
        await self._session.execute(delete(Membership).where(*_is(ref, actor, role), Membership.expires_at <= moment))
        return self.insert(
            {
                "id": new_id(),
                "organization_id": organization_id,
                "project_id": project_id,
                "resource_type": ref.type.value,
                "resource_id": ref.id,
                "actor_type": actor.type.value,
                "actor_id": actor.id,
                "role": role.value,
                "granted_at": moment,
                "granted_by_subject": granted_by.subject,
                "expires_at": expires_at,
            }
        )

    async def is_held(self, ref: ResourceRef, actor: Actor, role: Role) -> bool:
        """Whether there is such a grant, ended or not."""
        return (await self._session.execute(select(Membership.id).where(*_is(ref, actor, role)))).one_or_none() is not None

    async def revoke(self, ref: ResourceRef, actor: Actor, role: Role) -> bool:
        """Remove a grant; whether there was one. Where there is none nothing is changed, so nothing needs to be recorded."""
        held = (await self._session.execute(select(Membership.id).where(*_is(ref, actor, role)).with_for_update())).scalar_one_or_none()
        if held is None:
            return False
        await self._session.execute(delete(Membership).where(Membership.id == held))
        return True

    async def remove_all_on(self, ref: ResourceRef) -> None:
        """Remove every grant on a leaf resource that is being deleted: no foreign key does."""
        await self._session.execute(delete(Membership).where(Membership.resource_type == ref.type.value, Membership.resource_id == ref.id))

    async def list_on(self, scopes: Sequence[ResourceRef], request: CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The grants on any of the resources, oldest first."""
        return await self.page({"scopes": json.dumps([[scope.type.value, scope.id.hex] for scope in scopes])}, request)

    async def count_other_owners(self, organization_id: UUID, leaving: Actor) -> int:
        """How many users and services own the organization for good beside the one who leaves.

        Locks the organization, so that two owners who leave at once take turns.
        """
        await self._session.execute(select(Organization.id).where(Organization.id == organization_id).with_for_update())
        statement = select(func.count()).where(
            Membership.resource_type == ResourceType.ORGANIZATION.value,
            Membership.resource_id == organization_id,
            Membership.role == Role.ORG_OWNER.value,
            Membership.expires_at.is_(None),
            Membership.actor_type.in_(_OWNER_TYPES),
            or_(Membership.actor_type != leaving.type.value, Membership.actor_id != leaving.id),
        )
        return int((await self._session.execute(statement)).scalar_one())

    def conflict(self, constraint: str | None) -> AppError:
        """See ``Repository.conflict``."""
        if constraint == "uq_memberships_grant":
            return ConflictError("The actor holds this role on this resource already.", code="already_granted")
        return super().conflict(constraint)


async def holds_directly(connection: AsyncConnection, ref: ResourceRef, actor: Actor, role: Role) -> bool:
    """Whether there is such a grant, asked before anything is pinned."""
    table = Membership.__table__
    statement = select(table.c.id).where(*_is(ref, actor, role))
    return (await connection.execute(statement)).one_or_none() is not None


def _is(ref: ResourceRef, actor: Actor, role: Role) -> tuple[Any, ...]:
    return (
        Membership.resource_type == ref.type.value,
        Membership.resource_id == ref.id,
        Membership.actor_type == actor.type.value,
        Membership.actor_id == actor.id,
        Membership.role == role.value,
    )
