"""SQL of documents and their versions."""

from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Row, Select, select

from app.core.errors import AppError, ConflictError
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.listing import Listing, contains, equals, wire_columns
from app.db.repository import Repository
from app.models import Document, DocumentVersion
from app.resources.documents.schemas import DocumentListQuery, VersionListQuery
from app.unit_of_work import UnitOfWork


class DocumentRepository(Repository):
    """Statements over ``documents``."""

    model = Document
    listing: ClassVar[Listing] = Listing(
        Document,
        {"name": Document.name, "created_at": Document.created_at, "updated_at": Document.updated_at, "size_bytes": Document.size_bytes},
        {
            "organization_id": equals(Document.organization_id),
            "project_id": equals(Document.project_id),
            "name_contains": contains(Document.name),
            "media_type": equals(Document.media_type),
        },
    )

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def list_visible(self, query: DocumentListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The documents the actor was admitted to."""
        return await self.page(query.given(), request, self._work.visible_rows(self.model))


class VersionRepository(Repository):
    """Statements over ``document_versions``."""

    model = DocumentVersion
    listing: ClassVar[Listing] = Listing(
        DocumentVersion,
        {
            "version_number": DocumentVersion.version_number,
            "version_name": DocumentVersion.version_name,
            "created_at": DocumentVersion.created_at,
        },
        {
            "organization_id": equals(DocumentVersion.organization_id),
            "project_id": equals(DocumentVersion.project_id),
            "document_id": equals(DocumentVersion.document_id),
            "version_name": equals(DocumentVersion.version_name),
            "name_contains": contains(DocumentVersion.name),
        },
    )

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def find(self, document_id: UUID, version_name: str) -> Row[Any] | None:
        """One version by its name."""
        statement: Select[Any] = select(*wire_columns(DocumentVersion)).where(
            DocumentVersion.document_id == document_id, DocumentVersion.version_name == version_name
        )
        found: Row[Any] | None = (await self._session.execute(statement)).one_or_none()
        return found

    async def storage_uris(self, document_id: UUID) -> list[str]:
        """Where the contents of all versions lie."""
        statement = select(DocumentVersion.storage_uri).where(DocumentVersion.document_id == document_id)
        return list((await self._session.execute(statement)).scalars())

    async def list_visible(self, query: VersionListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The versions the actor was admitted to."""
        return await self.page(query.given(), request, self._work.visible_rows(self.model))

    def conflict(self, constraint: str | None) -> AppError:
        """See ``Repository.conflict``."""
        if constraint == "uq_document_versions_document_id_version_name":
            return ConflictError("The document has a version with this name already.", code="version_name_taken")
        return super().conflict(constraint)
