"""SQL of organizations."""

from typing import Any, ClassVar

from app.core.errors import AppError, ConflictError
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.listing import Listing, contains
from app.db.repository import Repository
from app.models import Organization
from app.resources.organizations.schemas import OrganizationListQuery
from app.unit_of_work import UnitOfWork


class OrganizationRepository(Repository):
    """Statements over ``organizations``."""

    model = Organization
    listing: ClassVar[Listing] = Listing(
        Organization,
        {
            "slug": Organization.slug,
            "name": Organization.name,
            "created_at": Organization.created_at,
            "updated_at": Organization.updated_at,
        },
        {"slug": contains(Organization.slug), "name_contains": contains(Organization.name)},
    )

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def list_visible(self, query: OrganizationListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The organizations the actor was admitted to."""
        return await self.page(query.given(), request, self._work.visible_rows(self.model))

    def conflict(self, constraint: str | None) -> AppError:
        """See ``Repository.conflict``."""
        if constraint == "uq_organizations_slug":
            return ConflictError("This slug is taken.", code="slug_taken")
        return super().conflict(constraint)
