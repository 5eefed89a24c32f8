"""SQL of documents and their versions."""

from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Row, Select, select

from app.core.errors import AppError, ConflictError
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.repository import Repository, SortColumns, contains, wire_columns
from app.models import Document, DocumentVersion
from app.resources.documents.schemas import DocumentListQuery, VersionListQuery
from app.unit_of_work import UnitOfWork


class DocumentRepository(Repository):
    """Statements over ``documents``."""

    model = Document
    sort_columns: ClassVar[SortColumns] = {
        "name": Document.name,
        "created_at": Document.created_at,
        "updated_at": Document.updated_at,
        "size_bytes": Document.size_bytes,
    }

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def list_visible(self, query: DocumentListQuery, request: PageRequest | CursorRequest) -> Page[Row[Any]] | CursorPage[Row[Any]]:
        """The documents the actor was admitted to."""
        statement = self._work.only_visible(select(*wire_columns(Document)), Document)
        if query.organization_id is not None:
            statement = statement.where(Document.organization_id == query.organization_id)
        if query.project_id is not None:
            statement = statement.where(Document.project_id == query.project_id)
        if query.name_contains is not None:
            statement = statement.where(contains(Document.name, query.name_contains))
        if query.media_type is not None:
            statement = statement.where(Document.media_type == query.media_type)
        return await self.page(statement, request)


class VersionRepository(Repository):
    """Statements over ``document_versions``."""

    model = DocumentVersion
    sort_columns: ClassVar[SortColumns] = {
        "version_number": DocumentVersion.version_number,
        "version_name": DocumentVersion.version_name,
        "created_at": DocumentVersion.created_at,
    }

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

    async def list_visible(self, query: VersionListQuery, request: PageRequest | CursorRequest) -> Page[Row[Any]] | CursorPage[Row[Any]]:
        """The versions the actor was admitted to."""
        statement = self._work.only_visible(select(*wire_columns(DocumentVersion)), DocumentVersion)
        if query.organization_id is not None:
            statement = statement.where(DocumentVersion.organization_id == query.organization_id)
        if query.project_id is not None:
            statement = statement.where(DocumentVersion.project_id == query.project_id)
        if query.document_id is not None:
            statement = statement.where(DocumentVersion.document_id == query.document_id)
        if query.version_name is not None:
            statement = statement.where(DocumentVersion.version_name == query.version_name)
        if query.name_contains is not None:
            statement = statement.where(contains(DocumentVersion.name, query.name_contains))
        return await self.page(statement, request)

    def conflict(self, constraint: str | None) -> AppError:
        """See ``Repository.conflict``."""
        if constraint == "uq_document_versions_document_id_version_name":
            return ConflictError("The document has a version with this name already.", code="version_name_taken")
        return super().conflict(constraint)
