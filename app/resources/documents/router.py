"""Routes of documents and their versions."""

from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from app.core.errors import InvalidError
from app.core.permissions import Action
from app.http.bounded import bounded
from app.http.dependencies import TheRuntime, Work
from app.http.downloads import BlobResponse
from app.http.incoming import TheUpload, file_name_of, multipart_body
from app.http.routes import Routes
from app.http.schemas import CursorPageRead, PageRead, show_page
from app.http.targets import TheDocument, TheProject, everything, the_document, the_project
from app.http.uploads import Upload
from app.resources.documents.schemas import (
    DocumentListQuery,
    DocumentRead,
    DocumentUpdate,
    DocumentUpload,
    DocumentVersionRead,
    MediaType,
    VersionListQuery,
    VersionUpload,
)
from app.resources.documents.service import Content, DocumentService, IncomingFile

routes = Routes("documents")

DEFAULT_MEDIA_TYPE = "application/octet-stream"
_media_type: TypeAdapter[str] = TypeAdapter(MediaType)
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The content", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The range that was asked for", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "The client has this content already"},
    307: {"description": "The content is at the signed URL in `Location`, for a short time"},
}


async def open_documents(work: Work, runtime: TheRuntime) -> DocumentService:
    """The rules of documents for this request."""
    return DocumentService(work, runtime.store)


Documents = Annotated[DocumentService, Depends(open_documents)]


@routes.post(
    "/projects/{project_id}/documents",
    allow=Action.DOCUMENT_CREATE,
    on=the_project,
    unlimited_body=True,
    problems=(415, 507),
    openapi_extra=multipart_body(DocumentUpload),
)
async def create_document(project: TheProject, upload: TheUpload, documents: Documents) -> DocumentRead:
    """Upload a document.

    The body is streamed into the store while it arrives, whatever its size. Fields may stand before or after the file.
    """
    form, received = await upload.receive(DocumentUpload)
    return await documents.create(project, form, _file_of(received))


@routes.get("/projects/{project_id}/documents", allow=Action.DOCUMENT_READ, on=the_project)
async def list_documents_of_project(project: TheProject, request: Request, response: Response, documents: Documents) -> list[DocumentRead]:
    """List the documents of a project, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest.
    """
    query = DocumentListQuery(project_id=project.id)
    return await bounded(request, response, query, "/documents", read=DocumentRead, fetch=lambda page: documents.list_visible(query, page))


@routes.get("/documents", allow=Action.DOCUMENT_READ, on=everything)
async def list_documents(
    query: Annotated[DocumentListQuery, Query()], documents: Documents
) -> PageRead[DocumentRead] | CursorPageRead[DocumentRead]:
    """List the documents you may read."""
    return show_page(await documents.list_visible(query, query.request()), DocumentRead)


@routes.get("/documents/{document_id}", allow=Action.DOCUMENT_READ, on=the_document)
async def read_document(document: TheDocument) -> DocumentRead:
    """Read a document's description."""
    return DocumentRead.from_row(document.row)


@routes.patch("/documents/{document_id}", allow=Action.DOCUMENT_WRITE, on=the_document)
async def update_document(document: TheDocument, changes: DocumentUpdate, documents: Documents) -> DocumentRead:
    """Rename a document or replace its metadata."""
    return await documents.update(document, changes)


@routes.delete("/documents/{document_id}", allow=Action.DOCUMENT_DELETE, on=the_document)
async def delete_document(document: TheDocument, documents: Documents) -> None:
    """Delete a document with all its versions."""
    await documents.delete(document)


@routes.get(
    "/documents/{document_id}/content",
    allow=Action.DOCUMENT_READ,
    on=the_document,
    responses=_CONTENT,
    response_class=Response,
    problems=(416,),
)
async def download_document(document: TheDocument, documents: Documents) -> Response:
    """Download a document's current version.

    `Range` and `If-None-Match` work; the entity tag is the SHA-256 of the content.
    """
    return _download(await documents.open_content(document.row, document.row.name))


@routes.post(
    "/documents/{document_id}/versions",
    allow=Action.DOCUMENT_WRITE,
    on=the_document,
    unlimited_body=True,
    problems=(415, 507),
    openapi_extra=multipart_body(VersionUpload),
)
async def create_document_version(document: TheDocument, upload: TheUpload, documents: Documents) -> DocumentRead:
    """Upload a new version of a document.

    It becomes the current one; the older ones stay.
    """
    form, received = await upload.receive(VersionUpload)
    return await documents.add_version(document, form, _file_of(received))


@routes.get("/documents/{document_id}/versions", allow=Action.DOCUMENT_READ, on=the_document)
async def list_versions_of_document(
    document: TheDocument, request: Request, response: Response, documents: Documents
) -> list[DocumentVersionRead]:
    """List the versions of a document, as an array.

    At most 1000, by number; a `Link` header with `rel="next"` leads to the rest.
    """
    query = VersionListQuery(document_id=document.id)
    return await bounded(
        request, response, query, "/document-versions", read=DocumentVersionRead, fetch=lambda page: documents.list_versions(query, page)
    )


@routes.get("/documents/{document_id}/versions/{version_name}", allow=Action.DOCUMENT_READ, on=the_document)
async def read_document_version(document: TheDocument, version_name: str, documents: Documents) -> DocumentVersionRead:
    """Read the description of one version."""
    return DocumentVersionRead.model_validate(await documents.read_version(document, version_name))


@routes.get(
    "/documents/{document_id}/versions/{version_name}/content",
    allow=Action.DOCUMENT_READ,
    on=the_document,
    responses=_CONTENT,
    response_class=Response,
    problems=(416,),
)
async def download_document_version(document: TheDocument, version_name: str, documents: Documents) -> Response:
    """Download one version of a document."""
    version = await documents.read_version(document, version_name)
    return _download(await documents.open_content(version, version.name))


@routes.get("/document-versions", allow=Action.DOCUMENT_READ, on=everything)
async def list_document_versions(
    query: Annotated[VersionListQuery, Query()], documents: Documents
) -> PageRead[DocumentVersionRead] | CursorPageRead[DocumentVersionRead]:
    """List the versions of all documents you may read."""
    return show_page(await documents.list_versions(query, query.request()), DocumentVersionRead)


def _download(content: Content) -> Response:
    return BlobResponse(content.blob, name=content.name, media_type=content.media_type, checksum=content.checksum)


def _file_of(upload: Upload) -> IncomingFile:
    try:
        media_type = _media_type.validate_python(upload.media_type or DEFAULT_MEDIA_TYPE)
    except ValidationError:
        raise InvalidError("the file part's media type is not valid", pointer="/file") from None
    return IncomingFile(upload.blob, file_name_of(upload), media_type)
