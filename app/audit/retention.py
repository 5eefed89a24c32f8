"""How long events are kept."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from sqlalchemy import select

from app.audit.chain import ChainKeys
from app.core.clock import now
from app.core.errors import InvalidError
from app.db.listing import wire_columns
from app.models import AuditChain, AuditRetention


@dataclass(frozen=True, slots=True)
class Choice:
    """What an organization has chosen, in days. One that the service has not signed says nothing: then all events stay.

    Nor does one that was signed with a key that was not in use any more when the head of the chain was signed: whoever has learned it
    could make one.
    """

    days: int | None
    is_signed: bool = True

    @classmethod
    def of_row(cls, keys: ChainKeys, row: Any) -> Self:
        """What a row of ``CHOICES`` says."""
        return cls(row.retention_days, keys.rank_of(AuditRetention, row) >= max(keys.rank(row.head_key_id), 0))


CHOICES: Final = (
    select(*wire_columns(AuditRetention), AuditChain.key_id.label("head_key_id"))
    .select_from(AuditRetention)
    .outerjoin(AuditChain, AuditChain.organization_id == AuditRetention.organization_id)
)


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """What holds for every organization, in days. 0: no minimum, and kept for ever where the organization has not said otherwise."""

    minimum_days: int = 0
    default_days: int = 0

    @classmethod
    def of(cls, minimum: timedelta | None, default: timedelta | None) -> Self:
        """The same from durations of whole days, or none."""
        return cls(*(kept.days if kept is not None else 0 for kept in (minimum, default)))

    def prunable_until(self, asked: datetime | None) -> datetime | None:
        """Up to when events may go; None when all may.

        Raises:
            InvalidError: what is asked is younger than the minimum.
        """
        if not self.minimum_days:
            return asked
        newest = now() - timedelta(days=self.minimum_days)
        if asked is not None and asked > newest:
            raise InvalidError(f"events of the last {self.minimum_days} days cannot be pruned", pointer="query.occurred_to")
        return asked or newest

    def require_allowed(self, days: int | None) -> None:
        """Refuse a period of an organization that is shorter than the minimum.

        Raises:
            InvalidError: it is.
        """
        if days is not None and days < self.minimum_days:
            raise InvalidError(f"must be at least {self.minimum_days}", pointer="/retention_days")

    def effective_days(self, own: int | None) -> int | None:
        """For how long an organization's events are kept; None = for ever. A minimum that was raised later counts."""
        return max(own, self.minimum_days) if own is not None else self.default_days or None
