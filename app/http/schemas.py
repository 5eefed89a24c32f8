"""The wire shapes every resource shares, and the one set of types for text that comes in."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
)
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function, no_info_before_validator_function

from app.core.actors import MAX_ACTOR_ID, Actor, ActorType
from app.core.errors import InvalidError
from app.core.pagination import (
    MAX_OFFSET,
    Cursor,
    CursorPage,
    CursorRequest,
    InvalidCursorError,
    Page,
    PageRequest,
    decode_cursor,
    fingerprint,
)
from app.core.resources import ResourceRef, ResourceType
from app.core.text import MAX_JSON_BYTES, InvalidTextError, check_json, clean_identifier
from app.db.base import MAX_NAME
from app.http.conditional import etag_of
from app.http.described import Described
from app.models.audit_event import MAX_CORRELATION

ItemT = TypeVar("ItemT", bound=BaseModel)

_DATE = re.compile(r"\s*\d{4}-")

DEFAULT_SIZE = 20
MAX_SIZE = 500


def _clean(longest: int) -> Callable[[str], str]:
    def clean(value: str) -> str:
        try:
            return clean_identifier(value, longest)
        except InvalidTextError as error:
            raise ValueError(f"this value {error}") from None

    return clean


def blank_is_absent(value: Any) -> Any:
    """A filter without a text filters nothing."""
    return None if isinstance(value, str) and not value.strip() else value


def fits_a_path(value: str) -> str:
    """Refuse what no path could name: a segment has no slash, and dots lead elsewhere."""
    if "/" in value or value in {".", ".."}:
        raise ValueError("this value could not be part of a path")
    return value


def _json_object(value: dict[str, Any]) -> dict[str, Any]:
    try:
        return check_json(value)
    except InvalidTextError as error:
        raise ValueError(f"this value {error}") from None


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("this value is no number")  # noqa: TRY004 - what pydantic turns into a 422
    return value


def _written_out(value: Any) -> Any:
    """Refuse a number, of which nobody knows whether it counts seconds or milliseconds."""
    if isinstance(value, (int, float)) or (isinstance(value, str) and not _DATE.match(value)):
        raise ValueError("this value is no date and time: 2026-11-20T18:11:56Z")
    return value


def _as_utc(value: datetime) -> datetime:
    if not 1900 <= value.year <= 9000:  # noqa: PLR2004 - what both databases and every client can hold
        raise ValueError("the year is out of range")
    return value.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Text:
    """Marks a string that comes in: trimmed, not empty, at most ``longest`` characters, no control characters, valid Unicode."""

    longest: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Clean the string after it was checked to be one."""
        return no_info_after_validator_function(_clean(self.longest), handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Show the bounds."""
        return {**handler(schema), "minLength": 1, "maxLength": self.longest}


@dataclass(frozen=True, slots=True)
class BlankIsAbsent:
    """Marks a filter: without a text it filters nothing."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take a blank text for none."""
        return no_info_before_validator_function(blank_is_absent, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Show no least length, for there is none."""
        shown = handler(schema)
        for kind in shown.get("anyOf", ()):
            kind.pop("minLength", None)
        return shown


Flag = Annotated[bool, Field(strict=True)]
NO_FLAG = BeforeValidator(_no_flag)  # beside a number in a body: true and false would count as 1 and 0
Name = Annotated[str, Text(MAX_NAME)]
ActorId = Annotated[str, Text(MAX_ACTOR_ID)]
CorrelationId = Annotated[str, Text(MAX_CORRELATION)]
Search = Annotated[Name | None, BlankIsAbsent()]
CorrelationKey = Annotated[CorrelationId, AfterValidator(fits_a_path)]
CorrelationSearch = Annotated[CorrelationId | None, BlankIsAbsent()]
Moment = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_as_utc)]
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_json_object),
    Field(description=f"Any JSON object: at most {MAX_JSON_BYTES // 1024} KiB, 32 levels deep.", examples=[{"plan": "pro"}]),
]


def columns_of(row: Any) -> dict[str, Any]:
    """The columns of a row, whether the database answered it or a repository has just written it."""
    return dict(row._mapping) if hasattr(row, "_mapping") else dict(vars(row))  # noqa: SLF001 - the public name of a row's mapping


class Schema(Described):
    """Base of what the service answers; read from rows by attribute."""

    model_config = ConfigDict(from_attributes=True)


class Command(Described):
    """Base of what a client sends: unknown fields are refused, so a typo or an id smuggled in never passes silently."""

    model_config = ConfigDict(extra="forbid")


class Resource(Schema):
    """A single object with an address, a revision and so an entity tag."""

    collection: ClassVar[str]
    id: UUID
    created_at: datetime
    updated_at: datetime
    created_by_subject: str
    """Who created it: `user:alice`."""
    revision: Annotated[int, Field(exclude=True)]

    @property
    def address(self) -> str:
        """Its path below the base path."""
        return f"{self.collection}/{self.id}"

    @property
    def etag(self) -> str:
        """The strong entity tag of this revision."""
        return etag_of(self)

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """Read a row of the database."""
        return cls.model_validate(row)


class ActorRef(Schema):
    """An actor."""

    type: ActorType
    id: str

    @classmethod
    def of(cls, actor: Actor) -> Self:
        """Its wire form."""
        return cls(type=actor.type, id=actor.id)


class ResourceRefRead(Schema):
    """A resource."""

    type: ResourceType
    id: UUID

    @classmethod
    def of(cls, ref: ResourceRef) -> Self:
        """Its wire form."""
        return cls(type=ref.type, id=ref.id)


class PageRead(BaseModel, Generic[ItemT]):
    """A numbered page."""

    items: list[ItemT]
    total_items: int
    page: int
    size: int
    total_pages: int
    has_next: bool
    has_previous: bool


class CursorPageRead(BaseModel, Generic[ItemT]):
    """A keyset page."""

    items: list[ItemT]
    next_cursor: str | None
    has_more: bool


def lower_case(value: Any) -> Any:
    """Sort columns and directions are matched without regard to case."""
    return value.lower() if isinstance(value, str) else value


class ListQuery(Described):
    """Query parameters of a list: numbered pages (`page`, `size`) or keyset pages (`limit`, `cursor`), filters beside them."""

    default_sort: ClassVar[str]

    page: Annotated[int, Field(ge=0, le=MAX_OFFSET)] | None = None
    """Number of the page, from 0. Default 0."""
    size: Annotated[int, Field(ge=1, le=MAX_SIZE)] | None = None
    """Rows on a page, 1 to 500. Default 20."""
    sort: StrEnum | None = None  # each list narrows it to its own columns
    direction: Annotated[Literal["asc", "desc"], BeforeValidator(lower_case)] | None = None
    """`asc` (default) or `desc`, in any case."""
    cursor: Annotated[str, Field(max_length=4096)] | None = None
    """Continue a keyset page: its `next_cursor`."""
    limit: Annotated[int, Field(ge=1, le=MAX_SIZE)] | None = None
    """Ask for keyset pages of this many rows (1 to 500): they cost the same however long the list is."""

    def filters(self) -> Mapping[str, Any]:
        """The filters that were given."""
        return self.model_dump(mode="json", exclude=set(ListQuery.model_fields), exclude_none=True)

    def given(self) -> dict[str, Any]:
        """The same as values."""
        own = type(self).model_fields.keys() - ListQuery.model_fields.keys()
        return {name: value for name in own if (value := getattr(self, name)) is not None}

    def request(self) -> PageRequest | CursorRequest:
        """The page that is asked for.

        Raises:
            InvalidError: both ways of paging at once, or a cursor of another list, order or filter.
        """
        sort = self.sort.value if self.sort is not None else self.default_sort
        descending = self.direction == "desc"
        if self.cursor is None and self.limit is None:
            return PageRequest(self.page or 0, self.size or DEFAULT_SIZE, sort, descending)
        if self.page is not None or self.size is not None:
            raise InvalidError("cannot be combined with page or size", pointer="query.cursor" if self.cursor else "query.limit")
        return self.keyset(self.limit or DEFAULT_SIZE)

    def keyset(self, limit: int) -> CursorRequest:
        """The keyset page of ``limit`` rows from the cursor on.

        Raises:
            InvalidError: a cursor of another list, order or filter.
        """
        sort = self.sort.value if self.sort is not None else self.default_sort
        descending = self.direction == "desc"
        bound_to = fingerprint({"list": type(self).__name__, "sort": sort, "descending": descending, **self.filters()})
        return CursorRequest(limit, sort, descending, read_cursor(self.cursor, bound_to), bound_to)


def read_cursor(cursor: str | None, bound_to: str) -> Cursor | None:
    """Where to continue, if a cursor says so.

    Raises:
        InvalidError: a cursor of another list, order or filter.
    """
    try:
        return decode_cursor(cursor, bound_to) if cursor is not None else None
    except InvalidCursorError as error:
        raise InvalidError(str(error), pointer="query.cursor", code="invalid_cursor") from None


@cache
def _rows_of(read: type[ItemT]) -> TypeAdapter[list[ItemT]]:
    return TypeAdapter(list[read])  # type: ignore[valid-type] # it is a value here


def show_rows(rows: Sequence[Any], read: type[ItemT]) -> list[ItemT]:
    """The wire form of rows."""
    return _rows_of(read).validate_python(rows, from_attributes=True)


def show_page(page: Page[Any] | CursorPage[Any], read: type[ItemT]) -> PageRead[ItemT] | CursorPageRead[ItemT]:
    """The wire form of a page of rows."""
    items = show_rows(page.items, read)
    if isinstance(page, CursorPage):
        return CursorPageRead(items=items, next_cursor=page.next_cursor, has_more=page.next_cursor is not None)
    size, number = page.request.size, page.request.page
    pages = -(-page.total // size)
    return PageRead(
        items=items,
        total_items=page.total,
        page=number,
        size=size,
        total_pages=pages,
        has_next=number + 1 < pages,
        has_previous=number > 0,
    )
