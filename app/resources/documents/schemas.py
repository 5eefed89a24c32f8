"""Wire shapes of documents and their versions."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field

from app.http.schemas import Command, ListQuery, Metadata, Name, Resource, Schema, Search, Text, fits_a_path, lower_case
from app.models.document import MAX_MEDIA_TYPE, MAX_VERSION_NAME

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - a token in the sense of RFC 9110
MEDIA_TYPE_PATTERN = rf"^{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|\"[ !#-\[\]-~]*\"))*$"


def _parse_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("this value is not a JSON object")  # noqa: TRY004 - what pydantic turns into a 422
    return found


VersionName = Annotated[str, Text(MAX_VERSION_NAME), AfterValidator(fits_a_path)]
MediaType = Annotated[str, Field(pattern=MEDIA_TYPE_PATTERN, max_length=MAX_MEDIA_TYPE)]
MetadataText = Annotated[Metadata, BeforeValidator(_parse_json)]


class DocumentUpload(Command):
    """The form fields beside the file of a new document."""

    name: Name | None = None
    """Its name; the file's name when absent."""
    version_name: VersionName = "v1"
    """Name of its first version."""
    media_type: MediaType | None = None
    """Its media type; that of the file part when absent."""
    metadata: MetadataText = Field(default_factory=dict)


class VersionUpload(Command):
    """The form fields beside the file of a new version."""

    version_name: VersionName
    """Unique in the document; no `/`."""
    name: Name | None = None
    """Renames the document; when absent the document keeps its name."""
    media_type: MediaType | None = None
    """Its media type; that of the file part when absent."""
    metadata: MetadataText = Field(default_factory=dict)


class DocumentUpdate(Command):
    """What changes; absent fields stay."""

    name: Name | None = None
    metadata: Metadata | None = None
    """Replaces the metadata as a whole."""


class DocumentRead(Resource):
    """A document and what its current version holds."""

    collection: ClassVar[str] = "/documents"

    organization_id: UUID
    project_id: UUID
    name: str
    media_type: str
    size_bytes: int
    checksum: str
    """SHA-256 of the content, in hex."""
    storage_uri: str
    current_version_id: UUID
    current_version_number: int
    current_version_name: str
    metadata: dict[str, Any]


class DocumentVersionRead(Schema):
    """One version of a document; it never changes."""

    id: UUID
    document_id: UUID
    organization_id: UUID
    project_id: UUID
    version_number: int
    version_name: str
    name: str
    media_type: str
    size_bytes: int
    checksum: str
    """SHA-256 of the content, in hex."""
    storage_uri: str
    metadata: dict[str, Any]
    created_at: datetime
    created_by_subject: str


class DocumentSort(StrEnum):
    """Columns documents can be sorted by."""

    NAME = "name"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    SIZE_BYTES = "size_bytes"


class DocumentListQuery(ListQuery):
    """Filters of the list of documents."""

    default_sort: ClassVar[str] = "created_at"
    sort: Annotated[DocumentSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""

    organization_id: UUID | None = None
    """Only documents of this organization."""
    project_id: UUID | None = None
    """Only documents of this project."""
    name_contains: Search = None
    """Part of the name, in any case."""
    media_type: Search = None
    """Exactly this media type."""


class VersionSort(StrEnum):
    """Columns versions can be sorted by."""

    VERSION_NUMBER = "version_number"
    VERSION_NAME = "version_name"
    CREATED_AT = "created_at"


class VersionListQuery(ListQuery):
    """Filters of the list of versions."""

    default_sort: ClassVar[str] = "version_number"
    sort: Annotated[VersionSort | None, BeforeValidator(lower_case)] = None
    """Column to sort by."""

    organization_id: UUID | None = None
    """Only versions in this organization."""
    project_id: UUID | None = None
    """Only versions in this project."""
    document_id: UUID | None = None
    """Only versions of this document."""
    version_name: Search = None
    """Exactly this name."""
    name_contains: Search = None
    """Part of the file's name, in any case."""
