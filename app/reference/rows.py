"""What becomes of each row of the reference: ids, times, names and words stay; what it does not have is filled in."""

import re
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from app.core.actors import MAX_ACTOR_ID, ActorType
from app.core.events import AuditAction, Outcome
from app.core.keys import SHA256
from app.core.permissions import Role
from app.core.resources import ResourceType
from app.db.base import Base
from app.http.schemas import fits_a_path
from app.models import ApiCall, ApiKey, ApiKeySecret, AuditEvent, Execution, Membership, Organization, Project
from app.models.audit_event import MAX_CORRELATION
from app.models.organization import MAX_SLUG
from app.reference.values import RottenRowError, RowReader
from app.resources.api_calls.schemas import ApiCallCreate, ApiCallStatus
from app.resources.api_calls.service import digest_of
from app.resources.executions.schemas import ExecutionStatus
from app.unit_of_work import SYSTEM

IMPORTED: Final = "imported"
_PREFIX: Final = re.compile(r"[0-9a-z]{12}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")

Values = dict[str, Any]


@dataclass(slots=True)
class Place:
    """An organization that is being imported, and what of it the rows below have to know."""

    id: UUID
    project_ids: set[UUID] = field(default_factory=set)
    parent_ids: set[str] = field(default_factory=set)
    roots: dict[UUID, UUID] = field(default_factory=dict)
    left_out: set[UUID] = field(default_factory=set)
    has_owner: bool = False

    def require_project(self, row: RowReader) -> UUID:
        """The project of a row.

        Raises:
            RottenRowError: it is no project of this organization that was imported.
        """
        project_id = row.uuid("project_id")
        if project_id not in self.project_ids:
            raise RottenRowError(f"its project {project_id} is not in its organization, or was left out")
        return project_id


def read_organization(row: RowReader) -> list[tuple[type[Base], Values]]:
    """An organization."""
    organization_id = row.uuid("id")
    slug = row.string("slug", MAX_SLUG, f"org-{organization_id.hex[:12]}")
    try:
        fits_a_path(slug)
    except ValueError:
        slug = f"org-{organization_id.hex[:12]}"
        row.changes.append(f"slug could not be part of a path: now {slug}")
    values = {"id": organization_id, "slug": slug, "name": row.string("name", fallback=slug), "metadata_": row.json("metadata_json")}
    return [(Organization, {**values, **recorded(row)})]


def read_project(row: RowReader, place: Place) -> list[tuple[type[Base], Values]]:
    """A project."""
    values = {"id": row.uuid("id"), "name": row.string("name"), "metadata_": row.json("metadata_json"), **recorded(row)}
    place.project_ids.add(values["id"])
    return [(Project, {**values, "organization_id": place.id})]


def read_api_call(row: RowReader, place: Place, nth_of_key: int) -> list[tuple[type[Base], Values]]:
    """An API call; of those with the same idempotency key the first one keeps it."""
    call: Values = {
        "name": row.string("name"),
        "operation_key": row.string("operation_key"),
        "external_request_id": row.string_or_none("external_request_id"),
        "idempotency_key": row.string_or_none("idempotency_key"),
        "correlation_id": row.string_or_none("correlation_id", MAX_CORRELATION),
        "request_payload": row.json("request_payload_json"),
        "metadata": row.json("metadata_json"),
    }
    if call["idempotency_key"] is not None and nth_of_key > 1:
        row.changes.append("idempotency_key is that of an earlier call: left empty")
        call["idempotency_key"] = None
    values = {
        **call,
        "id": row.uuid("id"),
        "organization_id": place.id,
        "project_id": place.require_project(row),
        "request_digest": digest_of(ApiCallCreate.model_construct(**call)),
        "status": row.choice("status", ApiCallStatus).value,
        "requested_at": row.moment("requested_at"),
        "responded_at": row.moment_or_none("responded_at"),
        "response_payload": row.json("response_payload_json"),
        **recorded(row),
    }
    return [(ApiCall, {**values, "metadata_": values.pop("metadata")})]


def read_execution(row: RowReader, place: Place, own_id: str) -> list[tuple[type[Base], Values]]:
    """An execution. The parent has to come before it in the same organization, else it begins a tree of its own."""
    actor_type, actor_id = row.choice("actor_type", ActorType), row.actor_id()
    started_at, ended_at = row.moment("started_at"), row.moment_or_none("ended_at")
    target_type = row.choice("target_resource_type", ResourceType).value if row.string_or_none("target_resource_type") else None
    execution_id, parent_id = row.uuid("id"), row.uuid_or_none("parent_execution_id")
    if parent_id is not None and parent_id not in place.roots:
        row.changes.append(f"its parent {parent_id} is not in its organization before it, or was left out: now without one")
        parent_id = None
    root_id = place.roots[parent_id] if parent_id is not None else execution_id
    values = {
        "id": execution_id,
        "organization_id": place.id,
        "project_id": place.require_project(row),
        "operation": row.string("operation"),
        "status": row.choice("status", ExecutionStatus).value,
        "actor_type": actor_type.value,
        "actor_id": actor_id,
        "target_type": target_type,
        "target_id": row.uuid("target_resource_id") if target_type is not None else None,
        "correlation_id": row.string_or_none("correlation_id", MAX_CORRELATION),
        "parent_execution_id": parent_id,
        "root_execution_id": root_id,
        "agent_version": row.string_or_none("agent_version"),
        "model_provider": row.string_or_none("model_provider"),
        "model_name": row.string_or_none("model_name"),
        "confidence": row.number_or_none("confidence"),
        "warnings": row.strings("warnings_json"),
        "provenance": row.json("provenance_json"),
        "started_at": started_at,
        "ended_at": ended_at,
        "input": row.json("input_json"),
        "output": row.json("output_json"),
        "metadata_": row.json("metadata_json"),
        "tags": [],
        "created_at": started_at,
        "updated_at": ended_at or started_at,
        "created_by_subject": f"{actor_type.value.lower()}:{actor_id}",
        "revision": 1,
    }
    if own_id in place.parent_ids:
        place.roots[execution_id] = root_id
    return [(Execution, values)]


def read_api_key(row: RowReader, place: Place) -> list[tuple[type[Base], Values]]:
    """An API key with its secret: who shows the token goes on to be known by it."""
    key_id, prefix, hash_ = row.uuid("id"), row.matching("prefix", _PREFIX), row.matching("secret_hash", _HASH)
    scope_type, role = row.choice("scope_type", ResourceType), row.choice("role", Role)
    if scope_type not in {ResourceType.ORGANIZATION, ResourceType.PROJECT} or not role.fits(scope_type):
        raise RottenRowError(f"its role {role} cannot be held on a scope of type {scope_type}")
    project_id = place.require_project(row) if scope_type is ResourceType.PROJECT else None
    if row.uuid("scope_id") != (project_id or place.id):
        raise RottenRowError("its scope is not in its organization")
    values = recorded(row)
    key = {
        **values,
        "id": key_id,
        "organization_id": place.id,
        "project_id": project_id,
        "name": row.string("name"),
        "prefix": prefix,
        "scope_type": scope_type.value,
        "scope_id": project_id or place.id,
        "role": role.value,
        "expires_at": row.moment_or_none("expires_at"),
        "last_used_at": row.moment_or_none("last_used_at"),
        "revoked_at": row.moment_or_none("revoked_at"),
        "metadata_": row.json("metadata_json"),
        "may_act_for_others": False,
    }
    secret = {"api_key_id": key_id, "prefix": prefix, "hash": hash_, "hash_algorithm": SHA256}
    return [(ApiKey, key), (ApiKeySecret, {**secret, "organization_id": place.id, "created_at": values["created_at"]})]


def read_membership(row: RowReader, place: Place, key_role: str | None, key_scope_id: str | None) -> list[tuple[type[Base], Values]]:
    """A grant. Rights are not repaired: what is not exactly what it should be is left out."""
    resource_type, resource_id = row.choice("resource_type", ResourceType), row.uuid("resource_id")
    actor_type, actor_id = row.choice("actor_type", ActorType), row.exact("actor_id", MAX_ACTOR_ID)
    role = row.choice("role", Role)
    if not role.fits(resource_type):
        raise RottenRowError(f"its role {role} cannot be held on a resource of type {resource_type}")
    project_id = place.require_project(row) if resource_type is not ResourceType.ORGANIZATION else None
    if resource_id in place.left_out:
        raise RottenRowError(f"what it is on, {resource_id}, was left out")
    expires_at = None
    if actor_type is ActorType.API_KEY:
        if (key_role, key_scope_id) != (role.value, str(resource_id)) or row.uuid("actor_id") in place.left_out:
            raise RottenRowError("an API key holds the role it was made with and no other, or the key is gone or was left out")
        expires_at = row.moment_or_none("key_expires_at")
    elif role is Role.ORG_OWNER and actor_type in {ActorType.USER, ActorType.SERVICE}:
        place.has_owner = True
    values = {
        "id": row.uuid("id"),
        "organization_id": place.id,
        "project_id": project_id,
        "resource_type": resource_type.value,
        "resource_id": resource_id,
        "actor_type": actor_type.value,
        "actor_id": actor_id,
        "role": role.value,
        "granted_at": row.moment("granted_at"),
        "granted_by_subject": SYSTEM.actor.subject,
        "expires_at": expires_at,
    }
    return [(Membership, values)]


def read_audit_event(row: RowReader, place: Place) -> list[tuple[type[Base], Values]]:
    """An audit event, with its own time, marked as imported: the reference's word for it is all there is."""
    values = {
        "id": row.uuid("id"),
        "occurred_at": row.moment("occurred_at"),
        "organization_id": place.id,
        "project_id": row.uuid_or_none("project_id"),
        "actor_type": row.choice("actor_type", ActorType).value,
        "actor_id": row.actor_id(),
        "auth_method": IMPORTED,
        "action": row.choice("action", AuditAction).value,
        "outcome": Outcome.SUCCESS.value,
        "resource_type": row.choice("resource_type", ResourceType).value,
        "resource_id": row.uuid("resource_id"),
        "correlation_id": row.string_or_none("correlation_id", MAX_CORRELATION),
        "details": row.json("details_json"),
    }
    return [(AuditEvent, values)]


def recorded(row: RowReader) -> Values:
    """Author and times of a row."""
    return {
        "created_at": row.moment("created_at"),
        "updated_at": row.moment("updated_at"),
        "created_by_subject": row.subject(),
        "revision": 1,
    }
