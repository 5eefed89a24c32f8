"""Wire shapes of projects."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import BeforeValidator, Field

from app.http.schemas import Command, ListQuery, Metadata, Name, Resource, Search, lower_case


class ProjectCreate(Command):
    """A new project."""

    organization_id: UUID
    """The organization it belongs to."""
    name: Name
    """Its name; need not be unique."""
    metadata: Metadata = Field(default_factory=dict)


class ProjectUpdate(Command):
    """What changes; absent fields stay."""

    name: Name | None = None
    metadata: Metadata | None = None
    """Replaces the metadata as a whole."""


class ProjectRead(Resource):
    """A project."""

    collection: ClassVar[str] = "/projects"

    organization_id: UUID
    name: str
    metadata: dict[str, Any]


class ProjectSort(StrEnum):
    """Columns projects can be sorted by."""

    NAME = "name"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


class ProjectListQuery(ListQuery):
    """Filters of the list of projects."""

    default_sort: ClassVar[str] = "created_at"
    sort: Annotated[ProjectSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""

    organization_id: UUID | None = None
    """Only projects of this organization."""
    name_contains: Search = None
    """Part of the name, in any case."""
