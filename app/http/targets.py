"""What a route acts on: found by its path, in one statement with the caller's roles on it. The guard and the handler get the same one."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Path

from app.authz.engine import Located
from app.core.text import InvalidTextError, clean_identifier
from app.http.dependencies import Work
from app.models import Document, Organization, Project
from app.models.organization import MAX_SLUG


async def the_organization(organization_id: UUID, work: Work) -> Located:
    """The organization in the path."""
    return await work.locate(Organization.id, organization_id)


async def the_organization_with_slug(slug: Annotated[str, Path(description="Its slug.")], work: Work) -> Located:
    """The organization whose slug is in the path."""
    try:
        slug = clean_identifier(slug, MAX_SLUG)
    except InvalidTextError:
        slug = ""  # no organization has it
    return await work.locate(Organization.slug, slug)


async def the_project(project_id: UUID, work: Work) -> Located:
    """The project in the path."""
    return await work.locate(Project.id, project_id)


async def the_document(document_id: UUID, work: Work) -> Located:
    """The document in the path."""
    return await work.locate(Document.id, document_id)


class Everything:
    """Marks a route that lists whatever the caller may see, in every organization."""


everything: Final = Everything()

TheOrganization = Annotated[Located, Depends(the_organization)]
TheOrganizationWithSlug = Annotated[Located, Depends(the_organization_with_slug)]
TheProject = Annotated[Located, Depends(the_project)]
TheDocument = Annotated[Located, Depends(the_document)]
