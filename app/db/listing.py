"""Lists: what each shows, and its statements, built once for every shape a request can give them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    String,
    bindparam,
    func,
    inspect,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeEngine

from app.db.base import Base
from app.db.functions import is_one_of
from app.db.visibility import Part, VisibleRows, Whole

Sortable = ColumnElement[Any] | InstrumentedAttribute[Any]
SortColumns = Mapping[str, InstrumentedAttribute[Any]]

TOTAL: Final = "rows_in_all"
AFTER_VALUE: Final = "after_value"
AFTER_ID: Final = "after_id"
SKIPPED: Final = "skipped"
_GIVEN: Final = "given_"


def wire_columns(model: type[Base]) -> tuple[ColumnElement[Any], ...]:
    """Every column of a table, mapped, under its name on the wire (``metadata_`` is ``metadata``)."""
    return tuple(getattr(model, attribute.key).label(attribute.columns[0].name) for attribute in inspect(model).column_attrs)


def _itself(name: str, value: Any) -> Mapping[str, Any]:
    return {name: value}


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition with a place for the value that a request gives.

    ``column`` is set when it asks for one value of that. ``write`` makes the parameters of the value's, whose name it gets.
    """

    condition: Callable[[BindParameter[Any]], ColumnElement[bool]]
    column: InstrumentedAttribute[Any] | None = None
    type_: TypeEngine[Any] | None = None
    write: Callable[[str, Any], Mapping[str, Any]] = _itself


Filters = Mapping[str, Filter]


class Shape(NamedTuple):
    """All that makes the statement for one request another than that for the next, but for values."""

    given: tuple[str, ...]
    sort: str
    descending: bool
    size: int
    is_numbered: bool = False
    is_after: bool = False
    is_after_null: bool = False


def equals(column: InstrumentedAttribute[Any]) -> Filter:
    """Rows with exactly this value."""
    return Filter(lambda value: column == value, column, column.type)


def contains(*columns: InstrumentedAttribute[str]) -> Filter:
    """Rows with this text in one of the columns, literally and without regard to case: ``%`` and ``_`` mean themselves."""
    return Filter(
        lambda value: or_(*(like(column, value) for column in columns)),
        type_=String(),
        write=lambda name, text: {name: as_pattern(text)},
    )


def like(column: ColumnElement[str] | InstrumentedAttribute[str], pattern: BindParameter[Any]) -> ColumnElement[bool]:
    """Whether the column, in lower case, is like a pattern that ``as_pattern`` made."""
    return func.lower(column).like(pattern, escape="/")


def as_pattern(text: str) -> str:
    """The pattern of whatever contains a text, in lower case."""
    escaped = text.lower().replace("/", "//").replace("%", "/%").replace("_", "/_")
    return f"%{escaped}%"


class Listing:
    """What a list over one table shows, by what it is filtered and sorted. The unique ``id`` breaks every tie."""

    def __init__(
        self,
        model: type[Base],
        sorts: SortColumns,
        filters: Filters | None = None,
        *conditions: ColumnElement[bool],
    ) -> None:
        self.model = model
        self._sorts = sorts
        self._filters = filters or {}
        self._conditions = conditions
        self._columns = wire_columns(model)

    @property
    def sorts(self) -> SortColumns:
        """The columns it can be sorted by."""
        return self._sorts

    @property
    def filters(self) -> Filters:
        """By what it can be filtered."""
        return self._filters

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of the filters that are given."""
        return {key: value for name, of in given.items() for key, value in self._filters[name].write(_GIVEN + name, of).items()}

    def statement(self, shape: Shape, visible: Sequence[VisibleRows]) -> Select[Any]:
        """The select of a page, one statement with its total when pages are numbered.

        It costs one index range for each value that makes rows visible, whatever lies before it; a total costs as many
        index entries as it has rows.
        """
        binds = {name: bindparam(_GIVEN + name, type_=self._filters[name].type_) for name in shape.given}
        asked = [(self._filters[name].column, self._filters[name].condition(bind)) for name, bind in binds.items()]
        always = [*self._conditions, *(rows.predicate for rows in visible[1:])]
        columns = {column: binds[name] for name in shape.given if (column := self._filters[name].column) is not None}
        parts: Sequence[Part] = visible[0].parts(columns) if visible else [Whole()]
        of_parts = [(part, [*always, *(condition for column, condition in asked if column not in part.meets)]) for part in parts]
        if not shape.is_numbered:
            return self._page(shape, of_parts)
        counted = select(func.count()).select_from(self.model)
        total = reduce(add, (part.count(counted, conditions) for part, conditions in of_parts))
        return self._page(shape, of_parts).add_columns(total.label(TOTAL))

    def _page(self, shape: Shape, parts: Sequence[tuple[Part, list[ColumnElement[bool]]]]) -> Select[Any]:
        column, limit = self._sorts[shape.sort], literal_column(str(shape.size), Integer())
        stretches = self._stretches(column, shape)
        whole = select(*self._columns).order_by(*self._in_order(column, self._key, shape)).limit(limit)
        (part, conditions), *others = parts
        if not others and len(stretches) == 1 and isinstance(part, Whole) and not shape.is_numbered:
            return part.first(whole, [*conditions, *stretches[0]])
        skipped = bindparam(SKIPPED, type_=BigInteger()) if shape.is_numbered else None
        ordered = select(self._key.label("row_id"), column.label("place")).order_by(*self._by(column, self._key, shape))
        ordered = ordered.limit(limit if skipped is None else limit + skipped)
        found = [part.first(ordered, [*conditions, *stretch]).subquery() for part, conditions in parts for stretch in stretches]
        every = union_all(*(select(rows) for rows in found)).subquery("found")
        first = select(every.c.row_id).order_by(*self._in_order(every.c.place, every.c.row_id, shape)).limit(limit).offset(skipped)
        return whole.where(is_one_of(self._key, first))

    def _stretches(self, column: InstrumentedAttribute[Any], shape: Shape) -> list[list[ColumnElement[bool]]]:
        """What a page may reach of a list: rows with a value and those with none, which lie in two places of an index."""
        identifier = bindparam(AFTER_ID, type_=self._key.type)
        beyond = self._key < identifier if shape.descending else self._key > identifier
        if shape.is_after_null:
            return [[column.is_(None), beyond]]
        here, there = tuple_(column, self._key), tuple_(bindparam(AFTER_VALUE, type_=column.type), identifier)
        follows = [here < there if shape.descending else here > there] if shape.is_after else []
        return [[column.is_not(None), *follows], [column.is_(None)]] if is_nullable(column) else [follows]

    def _by(self, place: Sortable, key: Sortable, shape: Shape) -> list[ColumnElement[Any]]:
        return [place.desc(), key.desc()] if shape.descending else [place.asc(), key.asc()]

    def _in_order(self, place: Sortable, key: Sortable, shape: Shape) -> list[ColumnElement[Any]]:
        # The databases disagree on where NULL sorts; here it is last, whatever the direction.
        return [*([place.is_(None)] if is_nullable(self._sorts[shape.sort]) else []), *self._by(place, key, shape)]

    @property
    def _key(self) -> InstrumentedAttribute[Any]:
        model: Any = self.model
        key: InstrumentedAttribute[Any] = model.id
        return key


def is_nullable(column: InstrumentedAttribute[Any]) -> bool:
    """Whether rows may lack a value."""
    return bool(column.property.columns[0].nullable)
