"""Builds audit events. They are written by the unit of work, in the transaction of what they tell about."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.core.actors import Identity
from app.core.clock import now
from app.core.events import AuditAction, Outcome
from app.core.identifiers import new_id
from app.core.resources import ResourceRef

REDACTED = "***"
# Names that speak of a secret, however they are written; not those that only tell which key it was.
_SECRET = re.compile(
    r"secret|token|passw(?:or)?d|passphrase|authori[sz]ation|pepper|credential|cookie|jwt"
    r"|(?:api|private|access)[\W_]?key(?![\W_]?(?:ids?|name|prefix)\Z)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from."""

    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about, and where it belongs in the tree."""

    ref: ResourceRef
    organization_id: UUID
    project_id: UUID | None = None


def make_event(  # noqa: PLR0913 - the parts of an event
    identity: Identity,
    origin: Origin,
    action: AuditAction | str,
    subject: Subject,
    details: Mapping[str, Any],
    *,
    outcome: Outcome = Outcome.SUCCESS,
    event_id: UUID | None = None,
) -> dict[str, Any]:
    """The values of one row of ``audit_events``; details whose name speaks of a secret are blanked, however deep they stand."""
    return {
        "id": event_id or new_id(),
        "occurred_at": now(),
        "organization_id": subject.organization_id,
        "project_id": subject.project_id,
        "actor_type": identity.actor.type.value,
        "actor_id": identity.actor.id,
        "on_behalf_of": identity.principal.subject if identity.principal is not None else None,
        "auth_method": identity.method,
        "action": str(action),
        "outcome": outcome.value,
        "resource_type": subject.ref.type.value,
        "resource_id": subject.ref.id,
        "ip": origin.ip,
        "user_agent": origin.user_agent,
        "request_id": origin.request_id,
        "correlation_id": origin.correlation_id,
        "details": _without_secrets(details),
    }


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: REDACTED if _is_secret(key, inner) else _without_secrets(inner) for key, inner in value.items()}
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value


def _is_secret(name: str, value: Any) -> bool:
    is_count = isinstance(value, int) and name.lower().endswith(("tokens", "keys"))  # of a language model; those that were imported
    return not is_count and _SECRET.search(name) is not None
