"""Rules of memberships: nobody gives or takes what he does not hold, and an organization keeps an owner."""

from typing import Any

from app.authz.engine import Located
from app.authz.escalation import forbid_escalation, require_fit
from app.authz.memberships import MembershipRepository
from app.core.actors import Actor, ActorType
from app.core.clock import now
from app.core.errors import ConflictError, ForbiddenError, InvalidError
from app.core.events import AuditAction
from app.core.pagination import CursorPage, Page
from app.core.permissions import Action, Role
from app.core.resources import ResourceType
from app.resources.memberships.schemas import MembershipCreate, MembershipKey, MembershipListQuery, MembershipRead
from app.unit_of_work import UnitOfWork


class MembershipService:
    """Everything that happens to grants."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._memberships = MembershipRepository(work.session)

    async def grant(self, resource: Located, new: MembershipCreate) -> MembershipRead:
        """Give an actor a role.

        Raises:
            InvalidError: the role belongs to a level below the resource's, the grantee is an API key, or the end lies in the past.
            ForbiddenError: the role carries an action that the caller does not hold here.
            ConflictError: the actor holds the role here already.
        """
        require_fit(resource, new.role)
        if new.actor_type is ActorType.API_KEY:
            raise InvalidError("an API key holds the role it was made with and no other", pointer="/actor_type")
        if new.expires_at is not None and new.expires_at <= now():
            raise InvalidError("lies in the past", pointer="/expires_at")
        forbid_escalation(resource.actions, new.role)
        grantee = Actor(new.actor_type, new.actor_id)
        row = await self._memberships.grant(
            resource.organization_id,
            resource.project_id,
            resource.ref,
            grantee,
            new.role,
            granted_by=self._work.actor,
            expires_at=new.expires_at,
        )
        ends = {"expires_at": new.expires_at.isoformat()} if new.expires_at is not None else {}
        self._work.record(AuditAction.MEMBERSHIP_GRANTED, resource, actor=grantee.subject, role=new.role.value, **ends)
        return MembershipRead.from_row(row, resource.ref)

    async def list_on(self, resource: Located, query: MembershipListQuery) -> Page[Any] | CursorPage[Any]:
        """The grants on a resource; with ``effective`` also those above it.

        Raises:
            ForbiddenError: ``effective`` without MEMBER_MANAGE: who may share a document need not know who owns the organization.
        """
        if query.effective and Action.MEMBER_MANAGE not in resource.actions:
            raise ForbiddenError("Seeing the roles above this resource needs MEMBER_MANAGE.")
        scopes = resource.scopes if query.effective else [resource.ref]
        request = query.request("granted_at", list="memberships", scopes=[str(scope.id) for scope in scopes])
        return await self._memberships.list_on(scopes, request)

    async def revoke(self, resource: Located, key: MembershipKey) -> None:
        """Take a role away; revoking what is not held changes nothing and records nothing.

        Raises:
            ForbiddenError: the role carries an action that the caller does not hold here (his own grants he may always give up).
            ConflictError: the organization would be left without an owner, or the grant is that of an API key and goes with the key.
        """
        if not self._work.is_about_itself(key.actor):
            forbid_escalation(resource.actions, key.role)
        if key.actor_type is ActorType.API_KEY and await self._memberships.is_held(key.ref, key.actor, key.role):
            raise ConflictError("An API key without its grant would still be shown as active: revoke the key instead.", code="key_grant")
        is_ownership = key.role is Role.ORG_OWNER and key.ref.type is ResourceType.ORGANIZATION
        if is_ownership and not await self._memberships.count_other_owners(resource.organization_id, key.actor):
            raise ConflictError(
                "The organization would have no owner: first give ORG_OWNER, without an end, to another user or service.", code="last_owner"
            )
        if await self._memberships.revoke(key.ref, key.actor, key.role):
            self._work.record(AuditAction.MEMBERSHIP_REVOKED, resource, actor=key.actor.subject, role=key.role.value)
