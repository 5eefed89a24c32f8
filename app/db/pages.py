"""Pages of lists: a statement for each, by the shortest way to the driver."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Select, String, Uuid
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeEngine

from app.core.errors import InvalidError
from app.core.pagination import Cursor, CursorPage, CursorRequest, Page, PageRequest, encode_cursor
from app.db.base import Timestamp
from app.db.listing import AFTER_ID, AFTER_VALUE, SKIPPED, Listing, Shape, is_nullable
from app.db.lookups import Lookup
from app.db.session import TenantSession
from app.db.tenancy import fenced
from app.db.visibility import FILTERED, VisibleRows

_SHAPES: Final = 1024  # of all lists together: what is asked for again and again fits in


async def fetch_page(
    session: TenantSession,
    listing: Listing,
    given: Mapping[str, Any],
    request: PageRequest | CursorRequest,
    visible: tuple[VisibleRows, ...] = (),
) -> Page[Any] | CursorPage[Any]:
    """The asked page of a list, of the rows that are visible in every given way; what it costs says ``Listing.statement``.

    One statement, but for a page past the end of the list.
    """
    if isinstance(request, PageRequest):
        return await _fetch_numbered(session, listing, given, request, visible)
    after = request.after
    shape = Shape(
        given=tuple(sorted(given)),
        sort=request.sort,
        descending=request.descending,
        size=request.limit + 1,
        is_after=after is not None and after.value is not None,
        is_after_null=after is not None and after.value is None,
    )
    parameters = listing.parameters(given)
    if after is not None:
        parameters[AFTER_ID] = after.id
        parameters[AFTER_VALUE] = _read_value(listing.sorts[request.sort], after.value)
    found = await _fetch(session, listing, shape, visible, parameters)
    rows_shown = found[: request.limit]
    if len(found) <= request.limit:
        return CursorPage(rows_shown, None)
    last = rows_shown[-1]
    cursor = Cursor(_write_value(getattr(last, listing.sorts[request.sort].key)), last.id)
    return CursorPage(rows_shown, encode_cursor(cursor, request.fingerprint))


async def _fetch_numbered(
    session: TenantSession, listing: Listing, given: Mapping[str, Any], request: PageRequest, visible: tuple[VisibleRows, ...]
) -> Page[Any]:
    shape = Shape(tuple(sorted(given)), request.sort, request.descending, request.size, is_numbered=True)
    parameters = listing.parameters(given)
    rows = await _fetch(session, listing, shape, visible, {**parameters, SKIPPED: request.offset})
    if rows or not request.offset:
        return Page(rows, rows[0].rows_in_all if rows else 0, request)
    first = await _fetch(session, listing, shape._replace(size=1), visible, {**parameters, SKIPPED: 0})
    return Page([], first[0].rows_in_all if first else 0, request)


async def _fetch(
    session: TenantSession, listing: Listing, shape: Shape, visible: tuple[VisibleRows, ...], parameters: Mapping[str, Any]
) -> list[Any]:
    """What is read without a transaction goes as a look-up."""
    if not session.fence.is_read_only:
        return list((await session.execute(_statement(listing, shape, visible), parameters)).all())
    lookup = _lookup(listing, shape, visible, is_pinned=session.fence.pin is not None)
    return await session.look_up_all(lookup, parameters)


@lru_cache(_SHAPES)
def _statement(listing: Listing, shape: Shape, visible: tuple[VisibleRows, ...]) -> Select[Any]:
    tables = frozenset({listing.model.__tablename__}) if visible else frozenset()
    return listing.statement(shape, visible).execution_options(**{FILTERED: tables})


@lru_cache(_SHAPES)
def _lookup(listing: Listing, shape: Shape, visible: tuple[VisibleRows, ...], *, is_pinned: bool) -> Lookup:
    return Lookup(fenced(_statement(listing, shape, visible), is_pinned=is_pinned))


def _write_value(value: Any) -> str | None:
    if value is None:
        return None
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _read_value(column: InstrumentedAttribute[Any], text: str | None) -> Any:
    """The value as which ``_write_value`` wrote this; whatever it would have written otherwise, or the column cannot hold, is none.

    A driver would raise for a number that is too large, and each database has its own idea of a date.
    """
    if text is None and is_nullable(column):
        return None
    try:
        value = _parse(column.type, text) if text is not None else None
    except ValueError:
        value = None
    if value is None or _write_value(value) != text:
        raise InvalidError("is not a cursor of this list", pointer="query.cursor", code="invalid_cursor")
    return value


def _parse(type_: TypeEngine[Any], text: str) -> Any:
    """Read a value; None for one that a column of the type cannot hold."""
    match type_:
        case Timestamp():
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        case Integer():
            number, bits = int(text), 63 if isinstance(type_, BigInteger) else 31
            return number if -(2**bits) <= number < 2**bits else None
        case Uuid():
            return UUID(text)
        case String(length=longest):
            return text if longest is None or len(text) <= longest else None
    raise TypeError(f"no list can be sorted by a column of type {type_!r} yet")
