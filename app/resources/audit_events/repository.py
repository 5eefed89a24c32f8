"""SQL of the audit trail."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, String, bindparam, cast, delete, or_

from app.audit.chain import ChainKeys
from app.audit.pruning import Pruning
from app.audit.retention import CHOICES, Choice
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.listing import Filter, Listing, as_pattern, equals, like
from app.db.repository import Repository, equal_to
from app.db.session import TenantSession
from app.models import AuditEvent, AuditRetention
from app.resources.audit_events.schemas import AuditEventListQuery, PruneQuery
from app.unit_of_work import UnitOfWork


def _has_text(pattern: BindParameter[Any]) -> ColumnElement[bool]:
    in_details = bindparam(f"{pattern.key}_in_details", type_=String())
    texts = (like(column, pattern) for column in (AuditEvent.action, AuditEvent.actor_id))
    return or_(*texts, like(cast(AuditEvent.details, String), in_details))


def _patterns(name: str, text: str) -> Mapping[str, Any]:
    as_written = json.dumps(text, ensure_ascii=False)[1:-1]  # as a text that has it is written in JSON
    return {name: as_pattern(text), f"{name}_in_details": as_pattern(as_written)}


class AuditEventRepository(Repository):
    """Selects over ``audit_events``."""

    model = AuditEvent
    listing: ClassVar[Listing] = Listing(
        AuditEvent,
        {"occurred_at": AuditEvent.occurred_at, "action": AuditEvent.action},
        {
            "organization_id": equals(AuditEvent.organization_id),
            "project_id": equals(AuditEvent.project_id),
            "action": equals(AuditEvent.action),
            "outcome": equals(AuditEvent.outcome),
            "actor_type": equals(AuditEvent.actor_type),
            "actor_id": equals(AuditEvent.actor_id),
            "resource_type": equals(AuditEvent.resource_type),
            "resource_id": equals(AuditEvent.resource_id),
            "correlation_id": equals(AuditEvent.correlation_id),
            "ip": equals(AuditEvent.ip),
            "on_behalf_of": equals(AuditEvent.on_behalf_of),
            "text": Filter(_has_text, type_=String(), write=_patterns),
            "occurred_from": Filter(lambda value: AuditEvent.occurred_at >= value, type_=AuditEvent.occurred_at.type),
            "occurred_to": Filter(lambda value: AuditEvent.occurred_at <= value, type_=AuditEvent.occurred_at.type),
        },
    )

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def prune(self, query: PruneQuery, keys: ChainKeys, event_id: UUID) -> int:
        """Remove the chosen events of the organization, but for those that tell of prunes; the event with that id will tell of this one."""
        self._session.use_jobs_role()
        return await Pruning(self._session, keys, query.organization_id, event_id).prune(
            *equal_to({AuditEvent.project_id: query.project_id, AuditEvent.action: query.action}),
            *([AuditEvent.occurred_at <= query.occurred_to] if query.occurred_to is not None else []),
        )

    async def list_visible(self, query: AuditEventListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The events of organizations and projects whose members the actor manages."""
        return await self.page(query.given(), request, self._work.visible_rows(self.model))


class AuditRetentionRepository(Repository):
    """Statements over ``audit_retentions``, which has one row for an organization, or none."""

    model = AuditRetention

    def __init__(self, session: TenantSession, keys: ChainKeys) -> None:
        super().__init__(session)
        self._keys = keys

    async def read(self) -> Choice:
        """What the organization has chosen."""
        row = (await self._session.execute(CHOICES)).one_or_none()
        return Choice.of_row(self._keys, row) if row is not None else Choice(None)

    async def write(self, organization_id: UUID, days: int | None) -> Choice:
        """Put this choice in the place of another, as the first that the transaction does; returns the one before.

        Raises:
            ConflictError: somebody else does the same.
        """
        self._session.use_jobs_role()
        before = await self.read()
        if before != Choice(days):
            await self._session.execute(delete(AuditRetention))
            if days is not None:
                self.insert(self._keys.sign(AuditRetention, {"organization_id": organization_id, "retention_days": days}))
        return before
