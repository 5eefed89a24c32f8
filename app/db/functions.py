"""SQL functions the two databases spell differently."""

from typing import Any

from sqlalchemy import String, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.sql.selectable import TableValuedAlias


class _EachText(GenericFunction[Any]):
    name = "saasbase_each_text"
    inherit_cache = True


@compiles(_EachText, "sqlite")
def _each_in_sqlite(element: _EachText, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_EachText, "postgresql")
def _each_in_postgresql(element: _EachText, compiler: Any, **options: Any) -> str:
    return f"jsonb_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS jsonb))"


def each_text(parameter: str) -> TableValuedAlias:
    """The texts of a JSON array that comes as one parameter, as rows with a column ``value``: any number of them, one statement."""
    return _EachText(bindparam(parameter, type_=String())).table_valued("value", name=f"each_{parameter}")
