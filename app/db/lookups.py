"""Look-ups: the statements that nearly every read sends, compiled once and then run by the driver itself.

SQLAlchemy's connection, cursor and result around such a statement cost several times what the statement does, and on SQLite each of
them is a trip to the connection's thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic, thread_time
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import Dialect, Engine, Select
from sqlalchemy.sql.compiler import ExpandedState, SQLCompiler
from sqlalchemy.types import TypeEngine

from app.db.confinement import Tenants, confined
from app.db.fair_pool import borrowed

_FLOAT8: Final = 701  # what PostgreSQL calls the one type of number whose driver needs to be asked which it is

_SHORT_SECONDS: Final = 0.003
_LONG_FOR_SECONDS: Final = 60.0

Process = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Argument:
    """What stands in one place of the statement: a parameter by its name, or the same value always."""

    name: str | None
    value: Any
    process: Process | None

    def of(self, parameters: Mapping[str, Any]) -> Any:
        value = parameters[self.name] if self.name is not None else self.value
        return value if self.process is None else self.process(value)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A select as its driver takes it."""

    sql: str
    arguments: tuple[_Argument, ...]
    columns: tuple[str, ...]
    processes: tuple[tuple[int, Process], ...]
    """The columns whose values are not yet as they should be, by their places."""
    _confined: dict[str, str] = field(default_factory=dict)

    def confined(self, tenants: Tenants) -> str:
        """The select as it tells PostgreSQL whose rows it may see. The values of ``tenants`` come after its own arguments."""
        sql = self._confined.get(tenants.expression)
        if sql is None:
            sql = self._confined[tenants.expression] = confined(self.sql, len(self.arguments), tenants)
        return sql

    def row(self, values: Iterable[Any]) -> SimpleNamespace:
        """A row of the driver's with its columns as attributes."""
        if self.processes:
            values = list(values)
            for place, process in self.processes:
                values[place] = process(values[place])
        return SimpleNamespace(**dict(zip(self.columns, values, strict=True)))


class Lookup:
    """A select of few rows. Make it once: it keeps what it was compiled to.

    ``is_short``: it is answered in a fraction of a millisecond, however much is stored. SQLite, which is a part of this process, then
    answers on the spot: a trip to the connection's thread and back costs more than the answer. All else waits meanwhile, so one that took
    long, as for somebody in thousands of groups, is answered in the thread for a while.
    """

    def __init__(self, statement: Select[Any], *, is_short: bool = False) -> None:
        self.statement = statement
        self.is_short = is_short
        self._is_long_until = 0.0
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: Dialect, parameters: Mapping[str, Any]) -> "Compiled":
        """What is sent: the names of ``parameters`` say which places are parameters."""
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = _compile(self.statement, dialect, parameters)
        return found

    async def run(self, engine: Engine, parameters: Mapping[str, Any], tenants: Tenants | None, *, in_transaction: bool) -> list[Any]:
        """The rows, with their columns as attributes. Takes a connection of the engine's pool.

        ``tenants`` are told to PostgreSQL. Raises whatever the driver raises; the connection is then dropped, and after a TimeoutError
        every one that was made before it.
        """
        compiled = self.compiled(engine.dialect, parameters)
        sql, arguments = compiled.sql, [argument.of(parameters) for argument in compiled.arguments]
        if tenants is not None:
            sql = compiled.confined(tenants)
            arguments += tenants.values
        async with borrowed(engine) as driver:
            if engine.dialect.name != "sqlite":
                rows = await _fetch(driver, sql, arguments, in_transaction=in_transaction)
            elif self.is_short and monotonic() >= self._is_long_until:
                rows = self._answer_here(driver, sql, arguments)
                await asyncio.sleep(0)  # else all who have asked are answered before anybody new gets a connection
            else:
                rows = await driver.execute_fetchall(sql, arguments)  # one trip to its thread
        return [compiled.row(row) for row in rows]

    def _answer_here(self, driver: Any, sql: str, arguments: list[Any]) -> Any:
        started = thread_time()
        rows = driver._conn.execute(sql, arguments).fetchall()  # noqa: SLF001 - nobody else has it: it is borrowed
        if thread_time() - started > _SHORT_SECONDS:
            self._is_long_until = monotonic() + _LONG_FOR_SECONDS
        return rows


async def _fetch(driver: Any, sql: str, arguments: list[Any], *, in_transaction: bool) -> Any:
    if not in_transaction:
        return await driver.fetch(sql, *arguments)
    await driver.execute("BEGIN READ ONLY;")
    rows = await driver.fetch(sql, *arguments)
    await driver.execute("COMMIT")
    return rows


def _compile(statement: Select[Any], dialect: Dialect, parameters: Mapping[str, Any]) -> Compiled:
    compiled = statement.compile(dialect=dialect)
    written = compiled.construct_expanded_state(parameters)
    columns = list(statement.selected_columns)
    found = enumerate(_of(column.type, dialect).result_processor(dialect, _FLOAT8) for column in columns)
    return Compiled(
        written.statement,
        tuple(_arguments(compiled, written, dialect, parameters)),
        columns=tuple(column.key or "" for column in columns),
        processes=tuple((place, process) for place, process in found if process is not None),
    )


def _arguments(compiled: SQLCompiler, written: ExpandedState, dialect: Dialect, parameters: Mapping[str, Any]) -> Iterator[_Argument]:
    lists = {each: name for name, every in written.parameter_expansion.items() for each in every}
    for name in written.positiontup or ():
        bound = compiled.binds[lists.get(name, name)]
        yield _Argument(name if name in parameters else None, written.parameters[name], _of(bound.type, dialect).bind_processor(dialect))


def _of(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    return type_.dialect_impl(dialect)
