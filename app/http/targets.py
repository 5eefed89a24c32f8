"""What a route acts on: found by its path, in one statement with the caller's roles on it. The guard and the handler get the same one."""

from collections.abc import Mapping
from inspect import Parameter, Signature
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Path

from app.authz.engine import Located
from app.core.text import InvalidTextError, clean_identifier
from app.db.wanted import Wanted
from app.http.dependencies import Work
from app.models import ApiCall, ApiKey, Document, Execution, Organization, Project
from app.models.organization import MAX_SLUG
from app.unit_of_work import UnitOfWork


class InPath:
    """The row whose id is in the path, under the name of a parameter. As a dependency it is what was located."""

    def __init__(self, key: Any, parameter: str) -> None:
        self._key = key
        self._parameter = parameter
        asked_for = {parameter: UUID, "work": Work}
        self.__signature__ = Signature(
            [Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation) for name, annotation in asked_for.items()],
            return_annotation=Located,
        )

    async def __call__(self, *, work: UnitOfWork, **path: UUID) -> Located:
        """Find it, with the caller's roles on it."""
        return await work.locate(self._key, path[self._parameter])

    def wanted_by(self, path: Mapping[str, str]) -> Wanted | None:
        """The same row, told from a path that nobody has checked yet; None when it holds no id."""
        try:
            return Wanted(self._key, UUID(path[self._parameter]))
        except ValueError:
            return None


the_organization: Final = InPath(Organization.id, "organization_id")
the_project: Final = InPath(Project.id, "project_id")
the_document: Final = InPath(Document.id, "document_id")
the_api_call: Final = InPath(ApiCall.id, "api_call_id")
# Rights on these two are asked on the project or organization they belong to.
the_execution: Final = InPath(Execution.id, "execution_id")
the_api_key: Final = InPath(ApiKey.id, "api_key_id")


async def the_organization_with_slug(slug: Annotated[str, Path(description="Its slug.")], work: Work) -> Located:
    """The organization whose slug is in the path."""
    try:
        slug = clean_identifier(slug, MAX_SLUG)
    except InvalidTextError:
        slug = ""  # no organization has it
    return await work.locate(Organization.slug, slug)


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
