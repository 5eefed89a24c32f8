"""Rules of projects."""

from typing import Any

from app.audit.changes import changes_of
from app.audit.trail import Subject
from app.authz.engine import Located
from app.core.clock import now
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.resources import ResourceRef, ResourceType
from app.resources.projects.repository import ProjectRepository
from app.resources.projects.schemas import ProjectCreate, ProjectListQuery, ProjectRead, ProjectUpdate
from app.unit_of_work import UnitOfWork


class ProjectService:
    """Everything that happens to projects."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._projects = ProjectRepository(work)

    async def create(self, organization: Located, new: ProjectCreate) -> ProjectRead:
        """Create a project. It grants nobody anything: roles on the organization reach into it."""
        moment = now()
        row = self._projects.insert(
            {
                "id": new_id(),
                "organization_id": organization.id,
                "name": new.name,
                "metadata": new.metadata,
                "created_at": moment,
                "updated_at": moment,
                "created_by_subject": self._work.actor.subject,
                "revision": 1,
            }
        )
        subject = Subject(ResourceRef(ResourceType.PROJECT, row.id), organization.id, row.id)
        self._work.record(AuditAction.PROJECT_CREATED, subject, name=row.name)
        return ProjectRead.from_row(row)

    async def list_visible(self, query: ProjectListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The projects the caller may read."""
        return await self._projects.list_visible(query, request)

    async def update(self, project: Located, changes: ProjectUpdate) -> ProjectRead:
        """Rename it or replace its metadata; without a change nothing happens and nothing is recorded."""
        values = changes.model_dump(exclude_none=True)
        if not values:
            return ProjectRead.from_row(project.row)
        row = await self._projects.update(project.id, values, self._work.expected_revision)
        self._work.record(AuditAction.PROJECT_UPDATED, project, name=row.name, **changes_of(project.row, values))
        return ProjectRead.from_row(row)

    async def delete(self, project: Located) -> None:
        """Delete it and everything below it; contents are removed by the sweeper."""
        await self._projects.delete(project.id, self._work.expected_revision)
        self._work.record(AuditAction.PROJECT_DELETED, project, name=project.row.name)
