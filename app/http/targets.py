"""What a route acts on: found by its path, in one statement with the caller's roles on it. The guard and the handler get the same one."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Path

from app.authz.engine import Located
from app.core.text import InvalidTextError, clean_identifier
from app.http.dependencies import Work
from app.models import ApiCall, ApiKey, Document, Execution, Organization, Project
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


async def the_api_call(api_call_id: UUID, work: Work) -> Located:
    """The API call in the path."""
    return await work.locate(ApiCall.id, api_call_id)


async def the_execution(execution_id: UUID, work: Work) -> Located:
    """The execution in the path; rights are asked on its project."""
    return await work.locate(Execution.id, execution_id)


async def the_api_key(api_key_id: UUID, work: Work) -> Located:
    """The API key in the path; rights are asked on its scope."""
    return await work.locate(ApiKey.id, api_key_id)


class Everything:
    """Marks a route that lists whatever the caller may see, in every organization."""


everything: Final = Everything()

TheOrganization = Annotated[Located, Depends(the_organization)]
TheOrganizationWithSlug = Annotated[Located, Depends(the_organization_with_slug)]
TheProject = Annotated[Located, Depends(the_project)]
TheDocument = Annotated[Located, Depends(the_document)]
TheApiCall = Annotated[Located, Depends(the_api_call)]
TheExecution = Annotated[Located, Depends(the_execution)]
TheApiKey = Annotated[Located, Depends(the_api_key)]
