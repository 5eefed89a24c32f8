"""Rows that wait for the commit: written by the driver itself when nothing else is changed, in one message where that can be.

A transaction of SQLAlchemy's sends four messages for a row and its audit event, and costs several times what the database does for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import CTE, Dialect, Engine, Insert, Text, bindparam, func, insert, literal_column, select, text, true

from app.core.errors import AppError
from app.db.base import Base
from app.db.confinement import SETTING, Tenants
from app.db.errors import is_refused, overtaken
from app.db.fair_pool import borrowed
from app.db.group_commit import GroupCommit
from app.db.lookups import Process

# Of more rows each number would be a statement of its own.
MAX_ROWS: Final = 8

Shape = tuple[tuple[type[Base], tuple[str, ...]], ...]
"""For each row its table and the names of its columns."""


@dataclass(frozen=True, slots=True)
class Insertion:
    """Rows of one table, by the names of columns, and the error for a constraint they violate."""

    model: type[Base]
    rows: Sequence[Mapping[str, Any]]
    conflict: Callable[[str | None], AppError] = overtaken


@cache
def insert_into(model: type[Base]) -> Insert:
    """The insert of rows that the service has made all values of, by the names of columns; without the work mapped objects need."""
    return insert(model).execution_options(dml_strategy="raw")


@dataclass(frozen=True, slots=True)
class _Statement:
    """As the driver takes it, and where each of its values stands: in which row and column, and how the driver wants it."""

    sql: str
    places: tuple[tuple[int, str, Process | None], ...]

    def values_of(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [rows[number][column] if process is None else process(rows[number][column]) for number, column, process in self.places]


class Writer:
    """Writes rows, each time in a transaction of its own. Make it once: it keeps what the statements of each shape were compiled to."""

    def __init__(self, engine: Engine, *, checkout_seconds: float, in_transaction: bool) -> None:
        self._engine = engine
        self._in_transaction = in_transaction
        self._statements: dict[tuple[Shape, str | None], tuple[_Statement, ...]] = {}
        self._group = GroupCommit(engine, checkout_seconds) if engine.dialect.name == "sqlite" else None

    async def write(self, insertions: Sequence[Insertion], tenants: Tenants | None) -> bool:
        """Whether the rows were written, and are durable; not when the database refuses one.

        ``tenants`` are told to PostgreSQL. Raises whatever else the driver raises: then nobody knows. But PoolTimeoutError when no
        connection was free.
        """
        rows = [row for insertion in insertions for row in insertion.rows]
        shape = tuple((insertion.model, tuple(row)) for insertion in insertions for row in insertion.rows)
        told = tenants.expression if tenants is not None else None
        statements = self._statements.get((shape, told))
        if statements is None:
            statements = self._statements[shape, told] = tuple(_compile(shape, tenants, self._engine.dialect))
        if tenants is not None:
            rows.append(_named(tenants))
        sent = [(statement.sql, statement.values_of(rows)) for statement in statements]
        if self._group is not None:
            return await self._group.write(sent)
        (statement,) = sent
        async with borrowed(self._engine) as driver:
            return await _send_to_postgresql(driver, statement, in_transaction=self._in_transaction)

    async def aclose(self) -> None:
        """Wait for what is being written for requests that have gone."""
        if self._group is not None:
            await self._group.aclose()


def _compile(shape: Shape, tenants: Tenants | None, dialect: Dialect) -> Iterator[_Statement]:
    """One for all rows; on SQLite, where a statement writes to one table, one for each."""
    places: dict[str, tuple[int, str]] = {}
    inserts: list[Insert] = []
    told = _tell(tenants, len(shape), places) if tenants is not None else None
    for number, (model, columns) in enumerate(shape):
        table: Any = model.__table__
        values = {column: bindparam(f"row_{number}_{column}", type_=table.c[column].type) for column in columns}
        places |= {value.key: (number, column) for column, value in values.items()}
        # What is written comes from where the tenants are told, so that they are told before.
        made = insert(table)
        inserts.append(made.values(values) if told is None else made.from_select(columns, select(*values.values()).select_from(told)))
    if dialect.name != "sqlite":
        *others, last = inserts
        inserts = [last.add_cte(*(other.cte(f"row_{number}") for number, other in enumerate(others)))]
    for each in inserts:
        compiled: Any = each.compile(dialect=dialect)
        yield _Statement(
            compiled.string,
            tuple(
                (*places[name], compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)) for name in compiled.positiontup
            ),
        )


def _named(tenants: Tenants) -> dict[str, str]:
    return {f"tenants_{place}": value for place, value in enumerate(tenants.values)}


def _tell(tenants: Tenants, number: int, places: dict[str, tuple[int, str]]) -> CTE:
    """Tells PostgreSQL the tenants, whose values are those of the row with that number."""
    names = list(_named(tenants))
    places |= {name: (number, name) for name in names}
    told = text(tenants.expression.format(*(f":{name}" for name in names))).bindparams(*(bindparam(name, type_=Text()) for name in names))
    return select(func.set_config(literal_column(f"'{SETTING}'"), told, true())).cte("told")


async def _send_to_postgresql(driver: Any, sent: tuple[str, list[Any]], *, in_transaction: bool) -> bool:
    sql, values = sent
    try:
        if in_transaction:
            await driver.execute("BEGIN;")
        await driver.fetch(sql, *values)
        if in_transaction:
            await driver.execute("COMMIT")
    except Exception as error:
        if not is_refused(error):
            raise
        if in_transaction:
            await driver.execute("ROLLBACK")
        return False
    return True
