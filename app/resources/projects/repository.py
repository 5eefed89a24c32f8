"""SQL of projects."""

from typing import Any, ClassVar

from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.listing import Listing, contains, equals
from app.db.repository import Repository
from app.models import Project
from app.resources.projects.schemas import ProjectListQuery
from app.unit_of_work import UnitOfWork


class ProjectRepository(Repository):
    """Statements over ``projects``."""

    model = Project
    listing: ClassVar[Listing] = Listing(
        Project,
        {"name": Project.name, "created_at": Project.created_at, "updated_at": Project.updated_at},
        {"organization_id": equals(Project.organization_id), "name_contains": contains(Project.name)},
    )

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def list_visible(self, query: ProjectListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The projects the actor was admitted to."""
        return await self.page(query.given(), request, self._work.visible_rows(self.model))
