"""The rows a list may show, and how the first of them are found, and all of them counted, without a look at the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sqlalchemy import BigInteger, BindParameter, ColumnElement, ScalarSelect, Select, and_, cast, func, not_, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute

from app.db.base import Base
from app.db.functions import is_one_of, rows_of

FILTERED: Final = "rows_are_authorized_for"

Column = InstrumentedAttribute[Any]
Given = Mapping[Column, BindParameter[Any]]


@dataclass(frozen=True, slots=True)
class Way:
    """How one column of a table makes rows visible.

    ``values`` selects the values that do, each once; ``others`` those of them that lie within none of a way above. ``within`` has, for
    columns of ways above, what lies above a value, beside it in those selects. ``above`` finds the same by the value alone; it is empty
    where rows may outlive what they hang below.
    """

    values: Select[Any]
    others: Select[Any]
    within: Mapping[Column, ColumnElement[Any]] = field(default_factory=dict)
    above: Mapping[Column, Callable[[ColumnElement[Any]], ScalarSelect[Any]]] = field(default_factory=dict)


class Part(Protocol):
    """A part of a list's rows; the parts of one list share none. Rows meet what is asked of the columns in ``meets`` anyhow."""

    @property
    def meets(self) -> frozenset[Column]:
        """Those columns."""

    def first(self, ordered: Select[Any], conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
        """The first of them: ``ordered`` selects columns, the key before others, in an order and up to a limit."""

    def count(self, counted: Select[Any], conditions: Sequence[ColumnElement[bool]]) -> ScalarSelect[int]:
        """How many they are; ``counted`` counts all there are."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The rows that meet some conditions, decided once for the statement or row by row by what an index finds."""

    conditions: tuple[ColumnElement[bool], ...] = ()
    meets: frozenset[Column] = frozenset()

    def first(self, ordered: Select[Any], conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
        """See ``Part.first``."""
        return ordered.where(*self.conditions, *conditions)

    def count(self, counted: Select[Any], conditions: Sequence[ColumnElement[bool]]) -> ScalarSelect[int]:
        """See ``Part.count``."""
        return counted.where(*self.conditions, *conditions).scalar_subquery()


@dataclass(frozen=True, slots=True)
class Each:
    """The rows of each of some values, which are many for each: found value by value, by the index that starts with the column."""

    column: Column
    key: Column
    values: Select[Any]
    conditions: tuple[ColumnElement[bool], ...] = ()
    meets: frozenset[Column] = frozenset()

    def first(self, ordered: Select[Any], conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
        """See ``Part.first``."""
        each = self.values.subquery()
        first = (
            ordered.with_only_columns(self.key.label("value"))
            .where(self.column == each.c[0], *self.conditions, *conditions)
            .correlate(each)
        )
        rows = rows_of(first, f"first_by_{self.column.key}")
        return ordered.where(is_one_of(self.key, select(rows.c.value).select_from(each.join(rows, true()))))

    def count(self, counted: Select[Any], conditions: Sequence[ColumnElement[bool]]) -> ScalarSelect[int]:
        """See ``Part.count``."""
        each = self.values.subquery()
        number = counted.with_only_columns(func.count().label("value"), maintain_column_froms=True)
        number = number.where(self.column == each.c[0], *self.conditions, *conditions).correlate(each)
        rows = rows_of(number, f"number_by_{self.column.key}")
        total = cast(func.coalesce(func.sum(rows.c.value), 0), BigInteger)  # else PostgreSQL answers a decimal
        return select(total).select_from(each.join(rows, true())).scalar_subquery()


class VisibleRows:
    """The rows of a table that one of several columns makes visible, nearest first.

    ``predicate`` is true for them.
    """

    def __init__(self, key: Column, ways: Mapping[Column, Way]) -> None:
        self._key = key
        self._ways = ways
        self.predicate: ColumnElement[bool] = or_(*(is_one_of(column, way.values) for column, way in ways.items()))

    def parts(self, given: Given) -> list[Part]:
        """The visible rows of a list that asks for these values of columns.

        When it asks for one value of a way, whether that is visible as a whole is found out once, and else only what lies within.
        """
        columns = list(self._ways)
        anchor = next((column for column in columns if column in given and self._is_anchor(column)), None)
        if anchor is None:
            return [self._by(column, given) for column in columns]
        is_visible = self._is_visible(anchor, given)
        nearer = columns[: columns.index(anchor)]
        return [Whole((is_visible,)), *(self._by(column, given, not_(is_visible)) for column in nearer)]

    def _is_anchor(self, column: Column) -> bool:
        columns = list(self._ways)
        return self._ways[column].above.keys() >= set(columns[columns.index(column) + 1 :])

    def _by(self, column: Column, given: Given, *conditions: ColumnElement[bool]) -> Part:
        way = self._ways[column]
        values = way.values if conditions else way.others
        meets = frozenset(way.within.keys() & given.keys())  # asked once more, it would tempt PostgreSQL to read all rows that meet it
        values = values.where(*(way.within[above] == given[above] for above in meets))
        if column in given:
            values = values.where(values.selected_columns[0] == given[column])
        if column is self._key:
            return Whole((*conditions, is_one_of(column, values)), meets)
        return Each(column, self._key, values, conditions, meets)

    def _is_visible(self, anchor: Column, given: Given) -> ColumnElement[bool]:
        """Whether all rows of one value are visible: asked in a select of its own, which the databases run once and before all else."""
        way, value = self._ways[anchor], given[anchor]
        by_any = [value.in_(way.values), *(find(value).in_(self._ways[column].values) for column, find in way.above.items())]
        is_there = [find(value) == given[column] for column, find in way.above.items() if column in given]
        asked = select(and_(or_(*by_any), *is_there).label("is_visible")).cte(f"all_of_{anchor.key}")
        return select(asked.c.is_visible).scalar_subquery()


def confine_to(statement: Select[Any], model: type[Base], *visible: VisibleRows) -> Select[Any]:
    """Leave the rows of ``model`` that are visible in every given way; only then does an unpinned list pass the tenant fence."""
    marked = statement.get_execution_options().get(FILTERED, frozenset())
    filtered = marked | {model.__tablename__}
    return statement.where(*(rows.predicate for rows in visible)).execution_options(**{FILTERED: filtered})
