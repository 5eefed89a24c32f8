"""SQL of projects."""

from typing import Any, ClassVar

from sqlalchemy import Row, select

from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.repository import Repository, SortColumns, contains, wire_columns
from app.models import Project
from app.resources.projects.schemas import ProjectListQuery
from app.unit_of_work import UnitOfWork


class ProjectRepository(Repository):
    """Statements over ``projects``."""

    model = Project
    sort_columns: ClassVar[SortColumns] = {"name": Project.name, "created_at": Project.created_at, "updated_at": Project.updated_at}

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def list_visible(self, query: ProjectListQuery, request: PageRequest | CursorRequest) -> Page[Row[Any]] | CursorPage[Row[Any]]:
        """The projects the actor was admitted to."""
        statement = self._work.only_visible(select(*wire_columns(Project)), Project)
        if query.organization_id is not None:
            statement = statement.where(Project.organization_id == query.organization_id)
        if query.name_contains is not None:
            statement = statement.where(contains(Project.name, query.name_contains))
        return await self.page(statement, request)
