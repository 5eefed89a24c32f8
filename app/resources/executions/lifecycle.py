"""How an execution begins and ends: what is written into its row, and what is recorded. Without SQL, for one or for many."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.authz.engine import Located
from app.core.clock import now
from app.core.errors import ConflictError, InvalidError
from app.core.events import AuditAction
from app.core.text import InvalidTextError, check_json
from app.resources.executions.schemas import ExecutionCancel, ExecutionComplete, ExecutionFail, ExecutionStatus, StartFields
from app.resources.executions.subjects import subject_of
from app.unit_of_work import UnitOfWork

AnyEnd = ExecutionComplete | ExecutionFail | ExecutionCancel


@dataclass(frozen=True, slots=True)
class Ending:
    """What an end writes into the row, beside its time, and what the event of it tells."""

    action: AuditAction
    values: dict[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)


def starting(work: UnitOfWork, project: Located, new: StartFields, execution_id: UUID, root: UUID | None) -> dict[str, Any]:
    """The row of an execution that its caller starts now."""
    moment, principal = now(), work.identity.principal
    return {
        **new.model_dump(include=set(StartFields.model_fields)),
        "id": execution_id,
        "organization_id": project.organization_id,
        "project_id": project.id,
        "target_type": new.target_type.value if new.target_type else None,
        "root_execution_id": root or execution_id,
        "kind": new.kind.value if new.kind else None,
        "status": ExecutionStatus.RUNNING.value,
        "actor_type": work.actor.type.value,
        "actor_id": work.actor.id,
        "on_behalf_of": principal.subject if principal is not None else None,
        "correlation_id": new.correlation_id or work.origin.correlation_id,
        "started_at": moment,
        "ended_at": None,
        "deadline_at": deadline(moment, new.timeout_seconds),
        "heartbeat_at": None,
        "usage": None,
        "cost": None,
        "trace_id": None,
        "span_id": None,
        "parent_span_id": None,
        "output": {},
        "created_at": moment,
        "updated_at": moment,
        "created_by_subject": work.actor.subject,
        "revision": 1,
    }


def ending(told: AnyEnd, metadata: Mapping[str, Any]) -> Ending:
    """How an execution ends that has this metadata.

    A result may replace the metadata; an error, or the reason why it was stopped, is kept in it.

    Raises:
        InvalidError: merged, the metadata would be larger than metadata may be.
    """
    if isinstance(told, ExecutionComplete):
        replaced = {"metadata": told.metadata} if told.metadata is not None else {}
        return _ending(AuditAction.EXECUTION_COMPLETED, ExecutionStatus.COMPLETED, told, output=told.output, **replaced)
    if isinstance(told, ExecutionFail):
        error = {"error_code": told.error_code, "error_message": told.error_message}
        merged = _merged(metadata, told.metadata, {name: text for name, text in error.items() if text is not None})
        return _ending(AuditAction.EXECUTION_FAILED, ExecutionStatus.FAILED, told, error, metadata=merged)
    reason = {"cancel_reason": told.reason} if told.reason is not None else {}
    merged = _merged(metadata, told.metadata, reason)
    return _ending(AuditAction.EXECUTION_CANCELLED, ExecutionStatus.CANCELLED, told, {"reason": told.reason}, metadata=merged)


def require_running(status: str) -> None:
    """What has ended stays as it ended.

    Raises:
        ConflictError: it has ended.
    """
    if status != ExecutionStatus.RUNNING:
        raise ConflictError(f"The execution has ended: it is {status}.", code="already_ended")


def deadline(moment: datetime, timeout_seconds: float | None) -> datetime | None:
    """When an execution is ended unless it is heard of."""
    return moment + timedelta(seconds=timeout_seconds) if timeout_seconds is not None else None


def record(work: UnitOfWork, action: AuditAction, row: Any, **details: Any) -> None:
    """Record what happened to an execution, under its own correlation."""
    work.record(action, subject_of(row), correlation_id=row.correlation_id, execution_id=str(row.id), **details)


def record_start(work: UnitOfWork, row: Any) -> None:
    """Record that an execution was started."""
    details = {"operation": row.operation, "model_provider": row.model_provider, "model_name": row.model_name}
    record(work, AuditAction.EXECUTION_STARTED, row, **details)


def _merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return check_json({name: value for part in parts for name, value in part.items()})
    except InvalidTextError as error:
        raise InvalidError(f"{error} when it is merged", pointer="/metadata") from None


def _ending(action: AuditAction, status: ExecutionStatus, told: AnyEnd, details: Mapping[str, Any] | None = None, **values: Any) -> Ending:
    return Ending(action, {"status": status.value, **told.spent(), **values}, details or {})
