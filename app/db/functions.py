"""SQL functions the two databases spell differently."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BinaryExpression, ColumnElement, Select, SelectBase, String, bindparam, func, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.sql.selectable import TableValuedAlias

from app.db.base import Json, Timestamp


class _EachText(GenericFunction[Any]):
    name = "saasbase_each_text"
    inherit_cache = True


class _EachArray(GenericFunction[Any]):
    name = "saasbase_each_array"
    inherit_cache = True


class _RowsOf(GenericFunction[Any]):
    name = "saasbase_rows_of"
    inherit_cache = True


class _ArrayOf(GenericFunction[Any]):
    name = "saasbase_array_of"
    inherit_cache = True


class _TextAt(GenericFunction[str]):
    name = "saasbase_text_at"
    type = String()
    inherit_cache = True


class _JsonAt(GenericFunction[Any]):
    name = "saasbase_json_at"
    type = Json
    inherit_cache = True


class _MomentAt(GenericFunction[datetime]):
    name = "saasbase_moment_at"
    type = Timestamp()
    inherit_cache = True


class _WrittenUuid(GenericFunction[str]):
    name = "saasbase_written_uuid"
    type = String()
    inherit_cache = True


class _IsOneOf(BinaryExpression[bool]):
    inherit_cache = True


@compiles(_EachText, "sqlite")
@compiles(_EachArray, "sqlite")
def _each_in_sqlite(element: GenericFunction[Any], compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_EachText, "postgresql")
def _each_text_in_postgresql(element: _EachText, compiler: Any, **options: Any) -> str:
    return f"jsonb_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS jsonb))"


@compiles(_EachArray, "postgresql")
def _each_array_in_postgresql(element: _EachArray, compiler: Any, **options: Any) -> str:
    return f"jsonb_array_elements(CAST({compiler.process(element.clauses, **options)} AS jsonb))"


@compiles(_RowsOf, "sqlite")
def _rows_of_in_sqlite(element: _RowsOf, compiler: Any, **options: Any) -> str:
    found = _within(element, compiler, options)
    return f"json_each((SELECT json_group_array(value) FROM {found}))"  # noqa: S608 - it is SQLAlchemy's own text


@compiles(_RowsOf, "postgresql")
def _rows_of_in_postgresql(element: _RowsOf, compiler: Any, **options: Any) -> str:
    return f"LATERAL {_within(element, compiler, options)}"


def _within(element: _RowsOf, compiler: Any, options: dict[str, Any]) -> str:
    (found,) = element.clauses
    return str(compiler.process(found, **{**options, "asfrom": False}))  # as an expression it may name what it is joined to


@compiles(_ArrayOf, "sqlite")
def _array_of_in_sqlite(element: _ArrayOf, compiler: Any, **options: Any) -> str:
    return f"json_array({compiler.process(element.clauses, **options)})"


@compiles(_ArrayOf, "postgresql")
def _array_of_in_postgresql(element: _ArrayOf, compiler: Any, **options: Any) -> str:
    return f"jsonb_build_array({compiler.process(element.clauses, **options)})"


@compiles(_TextAt, "sqlite")
@compiles(_JsonAt, "sqlite")
@compiles(_MomentAt, "sqlite")
def _text_at_in_sqlite(element: GenericFunction[Any], compiler: Any, **options: Any) -> str:
    array, index = (compiler.process(part, **options) for part in element.clauses)
    return f"json_extract({array}, '$[{index}]')"


@compiles(_TextAt, "postgresql")
def _text_at_in_postgresql(element: _TextAt, compiler: Any, **options: Any) -> str:
    array, index = (compiler.process(part, **options) for part in element.clauses)
    return f"({array} ->> {index})"


@compiles(_JsonAt, "postgresql")
def _json_at_in_postgresql(element: _JsonAt, compiler: Any, **options: Any) -> str:
    array, index = (compiler.process(part, **options) for part in element.clauses)
    return f"CAST({array} ->> {index} AS jsonb)"


@compiles(_MomentAt, "postgresql")
def _moment_at_in_postgresql(element: _MomentAt, compiler: Any, **options: Any) -> str:
    array, index = (compiler.process(part, **options) for part in element.clauses)
    return f"(CAST({array} ->> {index} AS timestamp) AT TIME ZONE 'UTC')"


@compiles(_WrittenUuid, "sqlite")
def _written_uuid_in_sqlite(element: _WrittenUuid, compiler: Any, **options: Any) -> str:
    digits = compiler.process(element.clauses, **options)
    parts = (f"substr({digits}, {start}, {length})" for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12)))
    return "({})".format(" || '-' || ".join(parts))


@compiles(_WrittenUuid, "postgresql")
def _written_uuid_in_postgresql(element: _WrittenUuid, compiler: Any, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS VARCHAR)"


@compiles(_IsOneOf)
def _is_one_of_in_sqlite(element: _IsOneOf, compiler: Any, **options: Any) -> str:
    return str(compiler.visit_binary(element, **options))


@compiles(_IsOneOf, "postgresql")
def _is_one_of_in_postgresql(element: _IsOneOf, compiler: Any, **options: Any) -> str:
    value, found = (compiler.process(part, **options) for part in (element.left, element.right))
    return f"{value} = ANY (ARRAY{found})"


def each_text(parameter: str) -> TableValuedAlias:
    """The texts of a JSON array that comes as one parameter, as rows with a column ``value``: any number of them, one statement."""
    return _EachText(bindparam(parameter, type_=String())).table_valued("value", name=f"each_{parameter}")


def each_text_in(array: InstrumentedAttribute[Any]) -> TableValuedAlias:
    """The texts of a JSON array in a column, as rows with a column ``value``."""
    return _EachText(array).table_valued("value", name="each_text")


def each_array(parameter: str) -> TableValuedAlias:
    """The same for a JSON array of arrays; ``text_at`` reads into each."""
    return _EachArray(bindparam(parameter, type_=String())).table_valued("value", name=f"each_{parameter}")


def rows_of(found: Select[Any], name: str) -> TableValuedAlias:
    """The rows of a select of one column, labelled ``value``, that may name what it is joined to (SQLite knows no LATERAL)."""
    return _RowsOf(found.scalar_subquery()).table_valued("value", name=name)


def array_of(*values: ColumnElement[Any]) -> ColumnElement[Any]:
    """A JSON array of texts and identifiers; ``text_at`` reads into it."""
    return _ArrayOf(*values)


def text_at(array: ColumnElement[Any], index: int) -> ColumnElement[str]:
    """The text at a place of a JSON array."""
    return _TextAt(array, literal_column(str(index)))


def json_at(array: ColumnElement[Any], index: int) -> ColumnElement[Any]:
    """The JSON at a place of a JSON array, where it stands as ``written_json``: a column keeps it as it would keep the value itself."""
    return _JsonAt(array, literal_column(str(index)))


def written_json(value: Any) -> str | None:
    """JSON as a text, in the spelling that columns have."""
    return json.dumps(value, ensure_ascii=False) if value is not None else None


def moment_at(array: ColumnElement[Any], index: int) -> ColumnElement[datetime]:
    """The moment at a place of a JSON array, where it stands as ``written_moment``."""
    return _MomentAt(array, literal_column(str(index)))


def written_moment(value: datetime) -> str:
    """A moment as a text, in the spelling that SQLite's columns have: in UTC, which it does not say."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def written_uuid(column: ColumnElement[UUID]) -> ColumnElement[str]:
    """An identifier as a text, as Python writes it (SQLite's columns have no hyphens)."""
    return _WrittenUuid(column)


def word(value: str) -> ColumnElement[str]:
    """A word of this service's own, written into the statement: never a caller's.

    As a parameter PostgreSQL could not tell what it plans for, would expect less of a plan for every value, and plan each time.
    """
    return literal_column(f"'{value}'", String)


def is_one_of(value: InstrumentedAttribute[Any] | ColumnElement[Any], found: SelectBase) -> ColumnElement[bool]:
    """The same as ``value IN (found)``, for a select that finds few of very many values.

    PostgreSQL reads the table from end to end for an OR over ``IN (SELECT ...)``; found first, as an array, the values are looked
    up in each column's index.
    """
    within = value.in_(found)
    return _IsOneOf(within.left, within.right, within.operator, within.type)


def unindexed(value: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    """The same value, to sort by where few rows of very many are visible.

    PostgreSQL cannot know how few, and would rather walk the column's whole index for the first of them than sort what it finds.
    """
    return func.coalesce(value, value)
