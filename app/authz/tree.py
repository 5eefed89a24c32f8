"""The resource tree as the tables have it: by which columns a row hangs below its scopes, and by which a resource is found."""

from typing import Any, Final, cast

from sqlalchemy.orm import InstrumentedAttribute

from app.authz.engine import ScopeColumns
from app.core.resources import ResourceType
from app.db.base import Base
from app.models import ApiCall, ApiKey, AuditEvent, Document, DocumentVersion, Execution, Organization, Project

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
    ApiCall: {
        ResourceType.API_CALL: ApiCall.id,
        ResourceType.PROJECT: ApiCall.project_id,
        ResourceType.ORGANIZATION: ApiCall.organization_id,
    },
    # Executions and keys are no level of their own: what may be done to them is asked on the project or organization they belong to.
    Execution: {ResourceType.PROJECT: Execution.project_id, ResourceType.ORGANIZATION: Execution.organization_id},
    ApiKey: {ResourceType.PROJECT: ApiKey.project_id, ResourceType.ORGANIZATION: ApiKey.organization_id},
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
    ResourceType.API_CALL: ApiCall.id,
}


def model_of(resource_type: ResourceType) -> type[Base]:
    """The table of a type of resource."""
    return cast("type[Base]", KEYS[resource_type].class_)
