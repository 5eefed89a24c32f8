"""The tables, one aggregate per file. Alembic and the tenant fence read this package."""

from app.models.api_call import ApiCall
from app.models.api_key import ApiKey, ApiKeySecret
from app.models.audit_chain import AuditChain, AuditCheckpoint, AuditGap, AuditRetention
from app.models.audit_event import AuditEvent
from app.models.document import Document, DocumentVersion
from app.models.execution import Execution, ExecutionEvent
from app.models.group import Group, GroupMember
from app.models.installation import Installation
from app.models.membership import Membership
from app.models.organization import Organization
from app.models.project import Project
from app.models.rate_bucket import RateBucket
from app.models.unsent_tuple import UnsentTuple

__all__ = [
    "ApiCall",
    "ApiKey",
    "ApiKeySecret",
    "AuditChain",
    "AuditCheckpoint",
    "AuditEvent",
    "AuditGap",
    "AuditRetention",
    "Document",
    "DocumentVersion",
    "Execution",
    "ExecutionEvent",
    "Group",
    "GroupMember",
    "Installation",
    "Membership",
    "Organization",
    "Project",
    "RateBucket",
    "UnsentTuple",
]
