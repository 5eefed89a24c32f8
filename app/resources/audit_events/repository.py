"""SQL of the audit trail."""

import json
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Row, String, cast, delete, or_, select

from app.audit.chain import ChainKeys
from app.audit.pruning import Pruning
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.repository import Repository, SortColumns, contains, equal_to, wire_columns
from app.models import AuditEvent, AuditRetention
from app.resources.audit_events.schemas import AuditEventListQuery, PruneQuery
from app.unit_of_work import UnitOfWork


class AuditEventRepository(Repository):
    """Selects over ``audit_events``."""

    model = AuditEvent
    sort_columns: ClassVar[SortColumns] = {"occurred_at": AuditEvent.occurred_at, "action": AuditEvent.action}

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def prune(self, query: PruneQuery, keys: ChainKeys, event_id: UUID) -> int:
        """Remove the chosen events of the organization, but for those that tell of prunes; the event with that id will tell of this one."""
        self._work.use_jobs_role()
        return await Pruning(self._session, keys, query.organization_id, event_id).prune(
            *equal_to({AuditEvent.project_id: query.project_id, AuditEvent.action: query.action}),
            *([AuditEvent.occurred_at <= query.occurred_to] if query.occurred_to is not None else []),
        )

    async def list_visible(self, query: AuditEventListQuery, request: PageRequest | CursorRequest) -> Page[Row[Any]] | CursorPage[Row[Any]]:
        """The events of organizations and projects whose members the actor manages."""
        exact = {
            AuditEvent.organization_id: query.organization_id,
            AuditEvent.project_id: query.project_id,
            AuditEvent.action: query.action,
            AuditEvent.outcome: query.outcome,
            AuditEvent.actor_type: query.actor_type,
            AuditEvent.actor_id: query.actor_id,
            AuditEvent.resource_type: query.resource_type,
            AuditEvent.resource_id: query.resource_id,
            AuditEvent.correlation_id: query.correlation_id,
            AuditEvent.ip: query.ip,
            AuditEvent.on_behalf_of: query.on_behalf_of,
        }
        statement = self._work.only_visible(select(*wire_columns(AuditEvent)), AuditEvent)
        statement = statement.where(*equal_to(exact))
        if query.text is not None:
            in_json = json.dumps(query.text, ensure_ascii=False)[1:-1]  # as a text that has it is written there
            found = contains(cast(AuditEvent.details, String), in_json)
            statement = statement.where(or_(*(contains(column, query.text) for column in (AuditEvent.action, AuditEvent.actor_id)), found))
        if query.occurred_from is not None:
            statement = statement.where(AuditEvent.occurred_at >= query.occurred_from)
        if query.occurred_to is not None:
            statement = statement.where(AuditEvent.occurred_at <= query.occurred_to)
        return await self.page(statement, request)


class AuditRetentionRepository(Repository):
    """Statements over ``audit_retentions``, which has one row for an organization, or none."""

    model = AuditRetention

    async def read(self) -> int | None:
        """What the organization has chosen."""
        return (await self._session.execute(select(AuditRetention.retention_days))).scalar_one_or_none()

    async def write(self, organization_id: UUID, days: int | None) -> None:
        """Put another choice in its place.

        Raises:
            ConflictError: somebody else does the same.
        """
        await self._session.execute(delete(AuditRetention))
        if days is not None:
            await self.insert({"organization_id": organization_id, "retention_days": days})
