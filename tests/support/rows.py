"""Rows written straight into the tables, for worlds that no sequence of requests would make fast enough, or at all."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import insert

from app.core.actors import Actor
from app.core.keys import KeyToken, hash_secret
from app.core.permissions import Role
from app.core.resources import ResourceRef, ResourceType
from app.db.base import Base
from app.db.engine import Database
from app.models import (
    ApiCall,
    ApiKey,
    ApiKeySecret,
    AuditChain,
    AuditCheckpoint,
    AuditEvent,
    AuditGap,
    AuditRetention,
    Document,
    DocumentVersion,
    Execution,
    ExecutionEvent,
    Group,
    GroupMember,
    Membership,
    Organization,
    Project,
)
from tests.support.database import behind

BEGINNING = datetime(2024, 2, 29, 12, tzinfo=UTC)
_RECORDED = {"created_at": BEGINNING, "updated_at": BEGINNING, "created_by_subject": "user:maker", "revision": 1}
_CONTENT = {"media_type": "text/plain", "size_bytes": 1, "checksum": "0" * 64, "storage_uri": "disk:none"}

Rows = list[tuple[type[Base], dict[str, Any]]]


class Place:
    """A resource of a world, with what lies above it."""

    def __init__(self, ref: ResourceRef, organization_id: UUID, project_id: UUID | None = None) -> None:
        self.ref = ref
        self.organization_id = organization_id
        self.project_id = project_id

    @property
    def scopes(self) -> Mapping[ResourceType, UUID]:
        """The resource and everything above it."""
        above = {ResourceType.ORGANIZATION: self.organization_id}
        if self.project_id is not None:
            above[ResourceType.PROJECT] = self.project_id
        return {**above, self.ref.type: self.ref.id}

    def __repr__(self) -> str:
        return f"{self.ref.type.value}:{self.ref.id}"


def organization(name: str) -> tuple[Place, Rows]:
    """An organization whose slug is ``name``."""
    place_id = uuid4()
    row = {"id": place_id, "slug": name, "name": name, "metadata": {}, **_RECORDED}
    return Place(ResourceRef(ResourceType.ORGANIZATION, place_id), place_id), [(Organization, row)]


def project(parent: Place, name: str = "project") -> tuple[Place, Rows]:
    """A project of an organization."""
    place_id = uuid4()
    row = {"id": place_id, "organization_id": parent.organization_id, "name": name, "metadata": {}, **_RECORDED}
    return Place(ResourceRef(ResourceType.PROJECT, place_id), parent.organization_id, place_id), [(Project, row)]


def document(parent: Place, name: str = "document") -> tuple[Place, Rows]:
    """A document with one version."""
    place_id, version_id = uuid4(), uuid4()
    common = {"organization_id": parent.organization_id, "project_id": parent.ref.id, "name": name, "metadata": {}, **_CONTENT}
    current = {"current_version_id": version_id, "current_version_number": 1, "current_version_name": "v1"}
    version = {"document_id": place_id, "version_number": 1, "version_name": "v1"}
    author = {"created_at": BEGINNING, "created_by_subject": "user:maker"}
    return Place(ResourceRef(ResourceType.DOCUMENT, place_id), parent.organization_id, parent.ref.id), [
        (Document, {"id": place_id, **common, **current, **_RECORDED}),
        (DocumentVersion, {"id": version_id, **common, **version, **author}),
    ]


def api_call(parent: Place) -> tuple[Place, Rows]:
    """A call of a project."""
    place_id = uuid4()
    row = {
        "id": place_id,
        "organization_id": parent.organization_id,
        "project_id": parent.ref.id,
        "name": "call",
        "operation_key": "ocr",
        "request_digest": "0" * 64,
        "status": "RECEIVED",
        "requested_at": BEGINNING,
        "request_payload": {},
        "response_payload": {},
        "metadata": {},
        **_RECORDED,
    }
    return Place(ResourceRef(ResourceType.API_CALL, place_id), parent.organization_id, parent.ref.id), [(ApiCall, row)]


def execution(parent: Place) -> Rows:
    """An execution of a project, with what it told."""
    row = {
        "id": uuid4(),
        "organization_id": parent.organization_id,
        "project_id": parent.ref.id,
        "operation": "tag",
        "status": "RUNNING",
        "actor_type": "AGENT",
        "actor_id": "tagger",
        "warnings": [],
        "provenance": {},
        "tags": [],
        "started_at": BEGINNING,
        "input": {},
        "output": {},
        "metadata": {},
        **_RECORDED,
    }
    told = {
        "id": uuid4(),
        "organization_id": parent.organization_id,
        "project_id": parent.ref.id,
        "execution_id": row["id"],
        "occurred_at": BEGINNING,
        "name": "step",
        "data": {},
        "created_at": BEGINNING,
        "created_by_subject": "user:maker",
    }
    return [(Execution, row), (ExecutionEvent, told)]


def api_key(scope: Place, **columns: Any) -> Rows:
    """A key of an organization or a project, without a secret."""
    row = {
        "id": uuid4(),
        "organization_id": scope.organization_id,
        "project_id": scope.project_id,
        "name": "key",
        "prefix": "none",
        "scope_type": scope.ref.type.value,
        "scope_id": scope.ref.id,
        "role": Role.PROJECT_VIEWER.value,
        "actions": None,
        "metadata": {},
        **_RECORDED,
    }
    return [(ApiKey, {**row, **columns})]


def secret(scope: Place, key_id: UUID, token: KeyToken, pepper: bytes) -> Rows:
    """What proves a key of an organization or a project."""
    stored = {"hash": hash_secret(token.secret, token.algorithm, pepper), "hash_algorithm": token.algorithm}
    told = {"prefix": token.prefix, "api_key_id": key_id, "organization_id": scope.organization_id}
    return [(ApiKeySecret, {**told, **stored, "created_at": BEGINNING})]


def event(about: Place) -> Rows:
    """An audit event about a resource."""
    row = {
        "id": uuid4(),
        "occurred_at": BEGINNING,
        "organization_id": about.organization_id,
        "project_id": about.project_id,
        "actor_type": "USER",
        "actor_id": "maker",
        "auth_method": "header",
        "action": "PROJECT_UPDATED",
        "outcome": "SUCCESS",
        "resource_type": about.ref.type.value,
        "resource_id": about.ref.id,
        "details": {},
    }
    return [(AuditEvent, row)]


def chain(tenant: Place) -> Rows:
    """What stands beside the trail of an organization, signed by nobody."""
    of_it, signature = {"organization_id": tenant.organization_id}, {"key_id": "none", "mac": "0" * 64}
    return [
        (AuditChain, {**of_it, "position": 1, "hash": "0" * 64, "sealed_at": BEGINNING, **signature}),
        (AuditGap, {**of_it, "first_position": 1, "last_position": 1, "last_hash": "0" * 64, "prune_event_id": uuid4(), **signature}),
        (AuditCheckpoint, {**of_it, "id": uuid4(), "position": 1, "hash": "0" * 64, "created_at": BEGINNING, **signature}),
        (AuditRetention, {**of_it, "retention_days": 36500, **signature}),
    ]


def group(tenant: Place, name: str) -> Rows:
    """A group of an organization."""
    return [(Group, {"organization_id": tenant.organization_id, "group_id": name, "name": name, "metadata": {}, **_RECORDED})]


def member(tenant: Place, of: str, who: Actor, expires_at: datetime | None = None) -> Rows:
    """An actor in a group."""
    row = {
        "organization_id": tenant.organization_id,
        "group_id": of,
        "member_type": who.type.value,
        "member_id": who.id,
        "added_at": BEGINNING,
        "added_by_subject": "user:maker",
        "expires_at": expires_at,
    }
    return [(GroupMember, row)]


def grant(on: Place, who: Actor, role: Role, expires_at: datetime | None = None) -> Rows:
    """A role for an actor on a resource."""
    row = {
        "id": uuid4(),
        "organization_id": on.organization_id,
        "project_id": on.project_id,
        "resource_type": on.ref.type.value,
        "resource_id": on.ref.id,
        "actor_type": who.type.value,
        "actor_id": who.id,
        "role": role.value,
        "granted_at": BEGINNING,
        "granted_by_subject": "user:maker",
        "expires_at": expires_at,
    }
    return [(Membership, row)]


async def write(database: Database, rows: Iterable[tuple[type[Base], dict[str, Any]]], *, instead_of: Iterable[type[Base]] = ()) -> None:
    """Write rows, parents first, in one transaction, in place of everything in the tables of ``instead_of``."""
    by_table: dict[str, list[dict[str, Any]]] = {}
    for model, values in rows:
        by_table.setdefault(model.__tablename__, []).append(values)
    async with behind(database) as connection:
        for model in instead_of:
            await connection.execute(model.__table__.delete())  # type: ignore[attr-defined]
        for table in Base.metadata.sorted_tables:
            if table.name in by_table:
                await connection.execute(insert(table), by_table[table.name])
