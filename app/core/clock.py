"""The one clock."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present in UTC with microseconds."""
    return datetime.now(UTC)
