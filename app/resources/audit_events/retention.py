"""Prunes what is older than its organization keeps it."""

import logging
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import exists, select

from app.audit.chain import ChainKeys
from app.audit.findings import BrokenChainError
from app.audit.pruning import Pruning
from app.audit.retention import CHOICES, Choice, RetentionRules
from app.audit.trail import Subject
from app.core.clock import now
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.resources import ResourceRef, ResourceType
from app.db.engine import Database
from app.models import AuditChain, AuditEvent, AuditRetention
from app.unit_of_work import WorkContext, open_system_work

_log = logging.getLogger(__name__)

BATCH: Final = 10_000


async def prune_expired(context: WorkContext, keys: ChainKeys, rules: RetentionRules, broken: set[UUID]) -> int:
    """Prune the sealed events of every organization whose days are over; returns how many.

    Days are whole days in UTC, so an organization is pruned, and that recorded, once a day. Several processes may do it at once.
    What a broken chain holds stays, and so does everything where a choice is not signed. That is logged once: ``broken`` has the
    organizations of which it is so.
    """
    today = now().replace(hour=0, minute=0, second=0, microsecond=0)
    chosen, reasons = await _read_choices(context.database, keys)
    pruned = 0
    for own in {None, *chosen.values()}:
        days = rules.effective_days(own)
        if days is None:
            continue
        until = today - timedelta(days=days)
        for organization_id in await _find_expired(context.database, own, until):
            # What was chosen is what was read signed: the row may be another one by now.
            if organization_id in reasons or chosen.get(organization_id) != own:
                continue
            try:
                while count := await _prune_batch(context, keys, organization_id, until):
                    pruned += count
            except BrokenChainError as error:
                reasons[organization_id] = f"events past their retention stay: {error}"
    for organization_id in reasons.keys() - broken:
        _log.error("organization %s: %s", organization_id, reasons[organization_id])
    broken.clear()
    broken.update(reasons)
    return pruned


async def _read_choices(database: Database, keys: ChainKeys) -> tuple[dict[UUID, int], dict[UUID, str]]:
    """What each organization has chosen; and why nothing is pruned of those whose choice nobody has signed."""
    async with database.for_jobs.open_read() as connection:
        rows = (await connection.execute(CHOICES)).all()
    chosen = {row.organization_id: row.retention_days for row in rows if Choice.of_row(keys, row).is_signed}
    reason = "what it has chosen as the retention of its events was not set by the service: all stay until its owners choose again"
    return chosen, {row.organization_id: reason for row in rows if row.organization_id not in chosen}


async def _find_expired(database: Database, own: int | None, until: datetime) -> list[UUID]:
    """The organizations that have chosen so many days, or nothing, and have sealed events from before that moment."""
    of_it = (AuditEvent.organization_id == AuditChain.organization_id, AuditEvent.occurred_at < until)
    is_expired = exists().where(*of_it, AuditEvent.action != AuditAction.AUDIT_PRUNED.value, AuditEvent.position.is_not(None))
    chosen = select(AuditRetention.retention_days).where(AuditRetention.organization_id == AuditChain.organization_id).scalar_subquery()
    has_chosen = chosen == own if own is not None else chosen.is_(None)
    async with database.for_jobs.open_read() as connection:
        return list((await connection.execute(select(AuditChain.organization_id).where(has_chosen, is_expired))).scalars())


async def _prune_batch(context: WorkContext, keys: ChainKeys, organization_id: UUID, until: datetime) -> int:
    async with open_system_work(context, "retention of the audit trail", organization_id) as work:
        work.session.use_jobs_role()
        event_id = new_id()
        pruning = Pruning(work.session, keys, organization_id, event_id)
        count = await pruning.prune_oldest(BATCH, AuditEvent.occurred_at < until)
        if count:
            subject = Subject(ResourceRef(ResourceType.ORGANIZATION, organization_id), organization_id)
            chosen = {"occurred_before": until.isoformat()}
            work.record_told(AuditAction.AUDIT_PRUNED, subject, {"pruned": count, "chosen": chosen}, event_id=event_id)
    return count
