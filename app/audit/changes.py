"""What an audit event tells of a change: which fields, and what they held before and hold now."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

# Of what applications keep there, which can be large or private, the trail tells only that it changed.
UNTOLD: Final = frozenset({"metadata", "request_payload", "response_payload"})


def changes_of(row: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Details for the change of a row, as it was found, to these values."""
    told = sorted(values.keys() - UNTOLD)
    details: dict[str, Any] = {"changed": sorted(values)}
    if told:
        details["before"] = {name: as_told(getattr(row, name)) for name in told}
        details["after"] = {name: as_told(values[name]) for name in told}
    return details


def as_told(value: Any) -> Any:
    """A value as it stands in details, which are JSON."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, UUID) else value
