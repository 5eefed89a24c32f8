"""SQL of organizations."""

from typing import Any, ClassVar

from sqlalchemy import Row, select

from app.core.errors import AppError, ConflictError
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.repository import Repository, SortColumns, contains, wire_columns
from app.models import Organization
from app.resources.organizations.schemas import OrganizationListQuery
from app.unit_of_work import UnitOfWork


class OrganizationRepository(Repository):
    """Statements over ``organizations``."""

    model = Organization
    sort_columns: ClassVar[SortColumns] = {
        "slug": Organization.slug,
        "name": Organization.name,
        "created_at": Organization.created_at,
        "updated_at": Organization.updated_at,
    }

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def list_visible(
        self, query: OrganizationListQuery, request: PageRequest | CursorRequest
    ) -> Page[Row[Any]] | CursorPage[Row[Any]]:
        """The organizations the actor was admitted to."""
        statement = self._work.only_visible(select(*wire_columns(Organization)), Organization)
        if query.slug is not None:
            statement = statement.where(contains(Organization.slug, query.slug))
        if query.name_contains is not None:
            statement = statement.where(contains(Organization.name, query.name_contains))
        return await self.page(statement, request)

    def conflict(self, constraint: str | None) -> AppError:
        """See ``Repository.conflict``."""
        if constraint == "uq_organizations_slug":
            return ConflictError("This slug is taken.", code="slug_taken")
        return super().conflict(constraint)
