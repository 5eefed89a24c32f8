"""Rules of documents: a row never exists without its bytes, versions are numbered without gaps, and never change."""

from dataclasses import dataclass
from typing import Any

from app.audit.changes import changes_of
from app.audit.trail import Subject
from app.authz.engine import Located
from app.authz.memberships import MembershipRepository
from app.blobs.store import BlobMissingError, BlobStore, FileBlob, RemoteBlob, StoredBlob
from app.core.clock import now
from app.core.errors import NotFoundError
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.core.resources import ResourceRef, ResourceType
from app.core.text import InvalidTextError, clean_identifier
from app.models import Document
from app.models.document import MAX_VERSION_NAME
from app.resources.documents.repository import DocumentRepository, VersionRepository
from app.resources.documents.schemas import (
    DocumentListQuery,
    DocumentRead,
    DocumentUpdate,
    DocumentUpload,
    VersionListQuery,
    VersionUpload,
)
from app.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class IncomingFile:
    """A file whose bytes are durable already, with the name and media type its part had."""

    blob: StoredBlob
    name: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a download sends."""

    blob: FileBlob | RemoteBlob
    name: str
    media_type: str
    checksum: str


class DocumentService:
    """Everything that happens to documents and versions."""

    def __init__(self, work: UnitOfWork, store: BlobStore) -> None:
        self._work = work
        self._store = store
        self._documents = DocumentRepository(work)
        self._versions = VersionRepository(work)

    async def create(self, project: Located, form: DocumentUpload, file: IncomingFile) -> DocumentRead:
        """Create a document with its first version."""
        moment, document_id, version_id = now(), new_id(), new_id()
        content = _content_values(form.media_type, file)
        row = self._documents.insert(
            {
                "id": document_id,
                "organization_id": project.organization_id,
                "project_id": project.id,
                "name": form.name or file.name,
                **content,
                "current_version_id": version_id,
                "current_version_number": 1,
                "current_version_name": form.version_name,
                "metadata": form.metadata,
                "created_at": moment,
                "updated_at": moment,
                "created_by_subject": self._work.actor.subject,
                "revision": 1,
            }
        )
        self._insert_version(row, form.name or file.name, form.metadata, content)
        subject = Subject(ResourceRef(ResourceType.DOCUMENT, document_id), project.organization_id, project.id)
        self._work.record(AuditAction.DOCUMENT_CREATED, subject, name=row.name, version_name=form.version_name, **_told_of(content))
        return DocumentRead.from_row(row)

    async def add_version(self, document: Located, form: VersionUpload, file: IncomingFile) -> DocumentRead:
        """Add a version and make it the current one. Concurrent versions take turns on the document's row, so numbers have no gaps.

        Raises:
            ConflictError: the document has a version with this name.
        """
        content = _content_values(form.media_type, file)
        changes: dict[Any, Any] = {
            **content,
            "current_version_id": new_id(),
            "current_version_number": Document.current_version_number + 1,
            "current_version_name": form.version_name,
            **({"name": form.name} if form.name is not None else {}),
        }
        row = await self._documents.update(document.id, changes, self._work.expected_revision)
        self._insert_version(row, form.name or file.name, form.metadata, content)
        self._work.record(
            AuditAction.DOCUMENT_VERSION_CREATED,
            document,
            version_name=form.version_name,
            version_number=row.current_version_number,
            **_told_of(content),
            **(changes_of(document.row, {"name": form.name}) if form.name is not None else {}),
        )
        return DocumentRead.from_row(row)

    async def list_visible(self, query: DocumentListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The documents the caller may read."""
        return await self._documents.list_visible(query, request)

    async def list_versions(self, query: VersionListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The versions the caller may read."""
        return await self._versions.list_visible(query, request)

    async def read_version(self, document: Located, version_name: str) -> Any:
        """One version by its name.

        Raises:
            NotFoundError: the document has no such version.
        """
        try:
            row = await self._versions.find(document.id, clean_identifier(version_name, MAX_VERSION_NAME))
        except InvalidTextError:
            row = None  # no version can have such a name
        if row is None:
            raise NotFoundError
        return row

    async def open_content(self, row: Any, name: str) -> Content:
        """The bytes of a document's current version, or of one of its versions.

        Raises:
            NotFoundError: the document was deleted meanwhile.
            BlobMissingError: the store has lost them, or some of them.
        """
        try:
            blob = await self._store.open_read(row.storage_uri)
        except BlobMissingError:
            await self._work.locate(Document.id, getattr(row, "document_id", row.id))
            raise
        if blob.size_bytes != row.size_bytes:
            blob.close()
            raise BlobMissingError("the content in the store is not whole")
        return Content(blob, name, row.media_type, row.checksum)

    async def update(self, document: Located, changes: DocumentUpdate) -> DocumentRead:
        """Rename it or replace its metadata; without a change nothing happens and nothing is recorded."""
        values = changes.model_dump(exclude_none=True)
        if not values:
            return DocumentRead.from_row(document.row)
        row = await self._documents.update(document.id, values, self._work.expected_revision)
        self._work.record(AuditAction.DOCUMENT_UPDATED, document, name=row.name, **changes_of(document.row, values))
        return DocumentRead.from_row(row)

    async def delete(self, document: Located) -> None:
        """Delete it with its versions and the grants on it; the bytes go once that is durable."""
        # Bytes of a version that is added at this very moment go with the sweeper.
        uris = await self._versions.storage_uris(document.id)
        await self._documents.delete(document.id, self._work.expected_revision)
        await MembershipRepository(self._work.session).remove_all_on(document.ref)
        self._work.record(AuditAction.DOCUMENT_DELETED, document, name=document.row.name)

        async def remove_bytes() -> None:
            for uri in uris:
                await self._store.delete(uri)

        self._work.after_commit(remove_bytes)

    def _insert_version(self, document: Any, name: str, metadata: dict[str, Any], content: dict[str, Any]) -> None:
        self._versions.insert(
            {
                "id": document.current_version_id,
                "document_id": document.id,
                "organization_id": document.organization_id,
                "project_id": document.project_id,
                "version_number": document.current_version_number,
                "version_name": document.current_version_name,
                "name": name,
                **content,
                "metadata": metadata,
                "created_at": document.updated_at,
                "created_by_subject": self._work.actor.subject,
            }
        )


def _told_of(content: dict[str, Any]) -> dict[str, Any]:
    """What an event tells of bytes: enough to know them again."""
    return {name: content[name] for name in ("size_bytes", "media_type", "checksum")}


def _content_values(media_type: str | None, file: IncomingFile) -> dict[str, Any]:
    return {
        "media_type": media_type or file.media_type,
        "size_bytes": file.blob.size_bytes,
        "checksum": file.blob.checksum,
        "storage_uri": file.blob.uri,
    }
