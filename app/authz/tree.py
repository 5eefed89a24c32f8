"""The resource tree as the tables have it: by which columns a row hangs below its scopes, and by which a resource is found."""

from typing import Any, Final

from sqlalchemy.orm import InstrumentedAttribute

from app.authz.engine import ScopeColumns
from app.core.resources import ResourceType
from app.db.base import Base
from app.models import AuditEvent, Document, DocumentVersion, Organization, Project

# For each table that can be located or listed: the column that names each scope of a row, nearest first.
SCOPES: Final[dict[type[Base], ScopeColumns]] = {
    Organization: {ResourceType.ORGANIZATION: Organization.id},
    Project: {ResourceType.PROJECT: Project.id, ResourceType.ORGANIZATION: Project.organization_id},
    Document: {
        ResourceType.DOCUMENT: Document.id,
        ResourceType.PROJECT: Document.project_id,
        ResourceType.ORGANIZATION: Document.organization_id,
    },
    DocumentVersion: {
        ResourceType.DOCUMENT: DocumentVersion.document_id,
        ResourceType.PROJECT: DocumentVersion.project_id,
        ResourceType.ORGANIZATION: DocumentVersion.organization_id,
    },
    AuditEvent: {
        ResourceType.PROJECT: AuditEvent.project_id,
        ResourceType.ORGANIZATION: AuditEvent.organization_id,
    },
}

# The column by which a resource of a type is found.
KEYS: Final[dict[ResourceType, InstrumentedAttribute[Any]]] = {
    ResourceType.ORGANIZATION: Organization.id,
    ResourceType.PROJECT: Project.id,
    ResourceType.DOCUMENT: Document.id,
}
