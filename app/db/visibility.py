"""The rows a list may show, and how the first of them are found without a look at the others."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, or_, select, true, union
from sqlalchemy.orm import InstrumentedAttribute

from app.db.base import Base
from app.db.functions import is_one_of, rows_of

FILTERED: Final = "rows_are_authorized_for"
_BY: Final = "rows_are_visible_by"


class VisibleRows:
    """The rows of a table that one of several columns makes visible: for each column a select of the values that do.

    ``predicate`` is true for them.
    """

    def __init__(self, ways: Mapping[InstrumentedAttribute[Any], Select[Any]]) -> None:
        self._ways = ways
        self.predicate: ColumnElement[bool] = or_(*(is_one_of(column, found) for column, found in ways.items()))

    def are_first(
        self, statement: Select[Any], key: InstrumentedAttribute[Any], order: Sequence[ColumnElement[Any]], limit: int
    ) -> ColumnElement[bool]:
        """True for the first visible rows of the statement in an order; for few others.

        Of each value only the first rows are read, by the index that starts with its column: what else is visible is not felt.
        """
        others = [condition for condition in statement._where_criteria if condition is not self.predicate]  # noqa: SLF001 - no public way
        found = []
        for column, values in self._ways.items():
            if column is key:
                found.append(values)
                continue
            each = values.distinct().subquery()
            first = select(key.label("value")).where(column == each.c[0], *others).order_by(*order).limit(limit).correlate(each)
            rows = rows_of(first, f"first_by_{column.key}")
            found.append(select(rows.c.value).select_from(each.join(rows, true())))
        return is_one_of(key, union(*found))


def confine_to(statement: Select[Any], model: type[Base], *visible: VisibleRows) -> Select[Any]:
    """Leave the rows of ``model`` that are visible in every given way; only then does an unpinned list pass the tenant fence."""
    marked = statement.get_execution_options().get(FILTERED, frozenset())
    options = {FILTERED: marked | {model.__tablename__}, _BY: visible[0]}
    return statement.where(*(rows.predicate for rows in visible)).execution_options(**options)


def only_first(
    statement: Select[Any], key: InstrumentedAttribute[Any], order: Sequence[ColumnElement[Any]], limit: int, offset: int = 0
) -> Select[Any]:
    """The first rows of a select over one table, by their unique ``key``, in an order; without ``offset`` of them."""
    visible: VisibleRows | None = statement.get_execution_options().get(_BY)
    narrowed = statement if visible is None else statement.where(visible.are_first(statement, key, order, offset + limit))
    return narrowed.order_by(*order).limit(limit).offset(offset or None)
