"""Rules of organizations."""

from typing import Any, Final

from app.audit.changes import changes_of
from app.audit.trail import Subject
from app.authz.engine import Located
from app.authz.memberships import MembershipRepository
from app.core.actors import ActorType
from app.core.clock import now
from app.core.errors import ForbiddenError, UnauthenticatedError
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from app.resources.organizations.repository import OrganizationRepository
from app.resources.organizations.schemas import OrganizationCreate, OrganizationListQuery, OrganizationRead, OrganizationUpdate
from app.unit_of_work import UnitOfWork

_CREATORS: Final = frozenset({ActorType.USER, ActorType.SERVICE, ActorType.AGENT})


class OrganizationService:
    """Everything that happens to organizations."""

    def __init__(self, work: UnitOfWork, *, may_create: bool) -> None:
        self._work = work
        self._may_create = may_create
        self._organizations = OrganizationRepository(work)

    async def create(self, new: OrganizationCreate) -> OrganizationRead:
        """Create an organization; its creator becomes ORG_OWNER in the same transaction.

        Raises:
            UnauthenticatedError: the caller is anonymous.
            ForbiddenError: creation is switched off, or the caller is a group, an API key, acts for another, or its token is narrowed.
            ConflictError: the slug is taken.
        """
        work = self._work
        if work.identity.is_anonymous:
            raise UnauthenticatedError("Creating an organization needs an identity: its creator becomes its owner.")
        is_whole = work.identity.principal is None and work.identity.only_actions is None
        if not self._may_create or work.actor.type not in _CREATORS or not is_whole:
            raise ForbiddenError(f"{work.actor.subject} may not create organizations.")
        moment = now()
        ref = ResourceRef(ResourceType.ORGANIZATION, new_id())
        work.pin(ref.id)
        row = self._organizations.insert(
            {
                "id": ref.id,
                "slug": new.slug,
                "name": new.name or new.slug,
                "metadata": new.metadata,
                "created_at": moment,
                "updated_at": moment,
                "created_by_subject": work.actor.subject,
                "revision": 1,
            }
        )
        await MembershipRepository(work.session).grant(ref.id, None, ref, work.actor, Role.ORG_OWNER, granted_by=work.actor)
        subject = Subject(ref, ref.id)
        work.record(AuditAction.ORGANIZATION_CREATED, subject, slug=row.slug, name=row.name)
        work.record(AuditAction.MEMBERSHIP_GRANTED, subject, actor=work.actor.subject, role=Role.ORG_OWNER.value)
        return OrganizationRead.from_row(row)

    async def list_visible(self, query: OrganizationListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The organizations the caller may read."""
        return await self._organizations.list_visible(query, request)

    async def update(self, organization: Located, changes: OrganizationUpdate) -> OrganizationRead:
        """Rename it or replace its metadata; without a change nothing happens and nothing is recorded."""
        values = changes.model_dump(exclude_none=True)
        if not values:
            return OrganizationRead.from_row(organization.row)
        row = await self._organizations.update(organization.id, values, self._work.expected_revision)
        self._work.record(AuditAction.ORGANIZATION_UPDATED, organization, name=row.name, **changes_of(organization.row, values))
        return OrganizationRead.from_row(row)

    async def delete(self, organization: Located) -> None:
        """Delete it and everything below it; its audit trail stays, contents are removed by the sweeper."""
        await self._organizations.delete(organization.id, self._work.expected_revision)
        self._work.record(AuditAction.ORGANIZATION_DELETED, organization, slug=organization.row.slug, name=organization.row.name)
