"""Which gaps are believed: those that a prune has left, with the event that tells of it behind them in the chain."""

from typing import Any, Final

from sqlalchemy import ColumnElement, and_

from app.audit.chain import ChainKeys
from app.core.events import AuditAction
from app.models import AuditEvent, AuditGap

# To be joined to a gap, which may have none.
TELLS: Final[ColumnElement[bool]] = and_(
    AuditEvent.id == AuditGap.prune_event_id,
    AuditEvent.organization_id == AuditGap.organization_id,
    AuditEvent.action == AuditAction.AUDIT_PRUNED.value,
)
TOLD: Final = (AuditEvent.id.label("told_by"), AuditEvent.position.label("told_at"), AuditEvent.key_id.label("told_with"))


def is_left_by_a_prune(keys: ChainKeys, gap: Any, head_key_id: str | None) -> bool:
    """Whether a gap, with the columns of what tells of it, is signed, and with no older key than that event.

    It was signed just before the event was sealed, so whatever the gap covers was sealed with no newer key: nobody who has an old one
    can make a gap where a newer one has sealed. An event that is not sealed yet will be with no older key than the head was.
    """
    if gap.told_by is None or gap.last_position < gap.first_position:
        return False
    if gap.told_at is not None and not (isinstance(gap.told_at, int) and gap.told_at > gap.last_position):
        return False
    told_with = gap.told_with if gap.told_at is not None else head_key_id
    return keys.rank_of(AuditGap, gap) >= max(keys.rank(told_with), 0)
