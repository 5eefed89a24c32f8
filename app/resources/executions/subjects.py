"""What audit events about an execution are about: what it works on, else its project."""

from typing import Any

from app.audit.trail import Subject
from app.core.resources import ResourceRef, ResourceType


def subject_of(row: Any) -> Subject:
    """The subject of an event about this execution."""
    project = ResourceRef(ResourceType.PROJECT, row.project_id)
    target = ResourceRef(ResourceType(row.target_type), row.target_id) if row.target_type is not None else project
    return Subject(target, row.organization_id, row.project_id)
