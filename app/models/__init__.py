"""The tables, one aggregate per file. Alembic and the tenant fence read this package."""

from app.models.audit_event import AuditEvent
from app.models.document import Document, DocumentVersion
from app.models.group import Group, GroupMember
from app.models.membership import Membership
from app.models.organization import Organization
from app.models.project import Project

__all__ = ["AuditEvent", "Document", "DocumentVersion", "Group", "GroupMember", "Membership", "Organization", "Project"]
