"""Wire shapes of organizations."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from app.http.schemas import Command, ListQuery, Metadata, Name, Resource, Search, lower_case
from app.models.organization import MAX_SLUG

SLUG_PATTERN = rf"^[a-z0-9](?:[a-z0-9._-]{{0,{MAX_SLUG - 2}}}[a-z0-9])?$"

Slug = Annotated[str, Field(pattern=SLUG_PATTERN, examples=["acme"])]


def _empty_is_absent(value: Any) -> Any:
    return None if value == "" else value


class OrganizationCreate(Command):
    """A new organization."""

    slug: Slug
    """Its unique short name: lower-case letters, digits, `.`, `_` and `-`; never changes."""
    name: Annotated[Name | None, BeforeValidator(_empty_is_absent)] = None
    """Its name; the slug when absent or empty."""
    metadata: Metadata = Field(default_factory=dict)


class OrganizationUpdate(Command):
    """What changes; absent fields stay."""

    name: Name | None = None
    metadata: Metadata | None = None
    """Replaces the metadata as a whole."""


class OrganizationRead(Resource):
    """An organization."""

    collection: ClassVar[str] = "/organizations"

    slug: str
    name: str
    metadata: dict[str, Any]


class OrganizationSort(StrEnum):
    """Columns organizations can be sorted by."""

    SLUG = "slug"
    NAME = "name"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"


class OrganizationListQuery(ListQuery):
    """Filters of the list of organizations."""

    default_sort: ClassVar[str] = "created_at"
    sort: Annotated[OrganizationSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""

    slug: Search = None
    """Part of the slug."""
    name_contains: Search = None
    """Part of the name, in any case."""
