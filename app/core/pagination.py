"""Two ways through a list: numbered pages with a total, and keyset pages with a cursor."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from app.core.text import is_storable

Item = TypeVar("Item")
Out = TypeVar("Out")

MAX_OFFSET = 2**62

# json.dumps would make one for each page.
_SORTED: Final = json.JSONEncoder(sort_keys=True, default=str)
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))


class InvalidCursorError(ValueError):
    """The cursor was not made by this service for this list and these filters."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Page ``page`` (from 0) of ``size`` rows."""

    page: int
    size: int
    sort: str
    descending: bool

    @property
    def offset(self) -> int:
        """Rows to pass over, bounded to what both databases take."""
        return min(self.page * self.size, MAX_OFFSET)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a keyset page ended: the sort value and the id of its last row."""

    value: str | None
    id: UUID


@dataclass(frozen=True, slots=True)
class CursorRequest:
    """The ``limit`` rows after ``after``."""

    limit: int
    sort: str
    descending: bool
    after: Cursor | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Rows of a numbered page and the exact number of rows in the whole list."""

    items: list[Item]
    total: int
    request: PageRequest

    def map(self, make: Callable[[Item], Out]) -> "Page[Out]":
        """The same page of other things."""
        return Page([make(item) for item in self.items], self.total, self.request)


@dataclass(frozen=True, slots=True)
class CursorPage(Generic[Item]):
    """Rows of a keyset page and the cursor of the next, or None at the end."""

    items: list[Item]
    next_cursor: str | None

    def map(self, make: Callable[[Item], Out]) -> "CursorPage[Out]":
        """The same page of other things."""
        return CursorPage([make(item) for item in self.items], self.next_cursor)


def fingerprint(filters: Mapping[str, Any]) -> str:
    """A short digest of the filters and the order that a cursor is bound to."""
    text = _SORTED.encode(filters)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def encode_cursor(cursor: Cursor, bound_to: str) -> str:
    """The opaque text of a cursor."""
    text = _COMPACT.encode([bound_to, cursor.value, cursor.id.hex])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str, bound_to: str) -> Cursor:
    """Read a cursor back.

    Raises:
        InvalidCursorError: not a cursor, or one of another list, order or filter.
    """
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        bound, value, identifier = json.loads(base64.urlsafe_b64decode(padded))
        cursor = Cursor(value, UUID(hex=identifier))
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise InvalidCursorError("is not a cursor of this service") from None
    if value is not None and not (isinstance(value, str) and is_storable(value)):
        raise InvalidCursorError("is not a cursor of this service")
    if bound != bound_to:
        raise InvalidCursorError("belongs to another list, order or set of filters")
    return cursor
