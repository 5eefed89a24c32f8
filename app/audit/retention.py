"""How long events are kept."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from app.core.clock import now
from app.core.errors import InvalidError


@dataclass(frozen=True, slots=True)
class Choice:
    """What an organization has chosen, in days. One that the service has not signed says nothing: then all events stay."""

    days: int | None
    is_signed: bool = True


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
