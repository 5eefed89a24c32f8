"""Routes of projects."""

from typing import Annotated

from fastapi import Depends, Query, Request, Response

from app.authz.engine import Located
from app.core.permissions import Action
from app.http.bounded import bounded
from app.http.dependencies import Work
from app.http.routes import Routes
from app.http.schemas import CursorPageRead, PageRead, show_page
from app.http.targets import TheOrganization, TheProject, everything, the_organization, the_project
from app.models import Organization
from app.resources.projects.schemas import ProjectCreate, ProjectListQuery, ProjectRead, ProjectUpdate
from app.resources.projects.service import ProjectService

routes = Routes("projects")


async def open_projects(work: Work) -> ProjectService:
    """The rules of projects for this request."""
    return ProjectService(work)


async def the_parent(new: ProjectCreate, work: Work) -> Located:
    """The organization that the body names."""
    return await work.locate(Organization.id, new.organization_id)


Projects = Annotated[ProjectService, Depends(open_projects)]
TheParent = Annotated[Located, Depends(the_parent)]


@routes.post("/projects", allow=Action.PROJECT_CREATE, on=the_parent, problems=(404,))
async def create_project(parent: TheParent, new: ProjectCreate, projects: Projects) -> ProjectRead:
    """Create a project in an organization."""
    return await projects.create(parent, new)


@routes.get("/projects", allow=Action.PROJECT_READ, on=everything)
async def list_projects(
    query: Annotated[ProjectListQuery, Query()], projects: Projects
) -> PageRead[ProjectRead] | CursorPageRead[ProjectRead]:
    """List the projects you may read."""
    return show_page(await projects.list_visible(query, query.request()), ProjectRead)


@routes.get("/projects/by-organization/{organization_id}", allow=Action.PROJECT_READ, on=the_organization)
async def list_projects_of_organization(
    organization: TheOrganization, request: Request, response: Response, projects: Projects
) -> list[ProjectRead]:
    """List the projects of an organization, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest. Needs a role on the organization:
    whoever has roles on single projects finds them with `GET /projects?organization_id=`.
    """
    query = ProjectListQuery(organization_id=organization.id)
    return await bounded(request, response, query, "/projects", read=ProjectRead, fetch=lambda page: projects.list_visible(query, page))


@routes.get("/projects/{project_id}", allow=Action.PROJECT_READ, on=the_project)
async def read_project(project: TheProject) -> ProjectRead:
    """Read a project."""
    return ProjectRead.from_row(project.row)


@routes.patch("/projects/{project_id}", allow=Action.PROJECT_UPDATE, on=the_project)
async def update_project(project: TheProject, changes: ProjectUpdate, projects: Projects) -> ProjectRead:
    """Rename a project or replace its metadata."""
    return await projects.update(project, changes)


@routes.delete("/projects/{project_id}", allow=Action.PROJECT_DELETE, on=the_project)
async def delete_project(project: TheProject, projects: Projects) -> None:
    """Delete a project and everything below it."""
    await projects.delete(project)
