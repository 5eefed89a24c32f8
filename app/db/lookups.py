"""Look-ups: the few statements that nearly every request sends, compiled once and then run by the driver itself.

SQLAlchemy's connection, cursor and result around such a statement cost several times what the statement does, and on SQLite each of
them is a trip to the connection's thread.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import Dialect, Engine, Select
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import await_only

from app.db.silence import leave

_FLOAT8: Final = 701  # what PostgreSQL calls the one type of number whose driver needs to be asked which it is

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
class _Compiled:
    sql: str
    arguments: tuple[_Argument, ...]
    columns: tuple[tuple[str, Process | None], ...]

    def row(self, values: Any) -> SimpleNamespace:
        pairs = zip(self.columns, values, strict=True)
        return SimpleNamespace(**{name: value if process is None else process(value) for (name, process), value in pairs})


class Lookup:
    """A select that finds one row at most. Make it once: it keeps what it was compiled to."""

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def run(self, engine: Engine, parameters: Mapping[str, Any], *, in_transaction: bool, prepare: Callable[[Any], None]) -> Any | None:
        """The row, with its columns as attributes, or None. To be called in SQLAlchemy's greenlet; takes a connection of the engine's pool.

        Raises whatever the driver raises; the connection is then dropped, and after a TimeoutError every one that was made before it.
        """
        compiled = self._compiled.get(engine.dialect.name)
        if compiled is None:
            compiled = self._compiled[engine.dialect.name] = _compile(self.statement, engine.dialect, parameters)
        arguments = [argument.of(parameters) for argument in compiled.arguments]
        lent = engine.pool.connect()
        try:
            driver = lent.driver_connection
            prepare(driver)
            rows = await_only(_fetch(driver, compiled.sql, arguments, in_transaction=in_transaction))
        except TimeoutError as error:
            leave(engine.pool, lent, error)
            raise
        except BaseException:
            lent.invalidate()
            raise
        lent.close()
        return compiled.row(rows[0]) if rows else None


async def _fetch(driver: Any, sql: str, arguments: list[Any], *, in_transaction: bool) -> Any:
    if hasattr(driver, "execute_fetchall"):  # aiosqlite: one trip to its thread
        return await driver.execute_fetchall(sql, arguments)
    if not in_transaction:
        return await driver.fetch(sql, *arguments)
    await driver.execute("BEGIN READ ONLY;")
    rows = await driver.fetch(sql, *arguments)
    await driver.execute("COMMIT")
    return rows


def _compile(statement: Select[Any], dialect: Dialect, parameters: Mapping[str, Any]) -> _Compiled:
    """The values of ``parameters`` say which places are parameters; they themselves are forgotten."""
    given = statement.params(**parameters)
    compiled = given.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    columns = ((column.key or "", _of(column.type, dialect).result_processor(dialect, _FLOAT8)) for column in statement.selected_columns)
    return _Compiled(str(compiled), tuple(_arguments(compiled, dialect, parameters)), tuple(columns))


def _arguments(compiled: SQLCompiler, dialect: Dialect, parameters: Mapping[str, Any]) -> Iterator[_Argument]:
    for name in compiled.positiontup or ():
        bound = compiled.binds[name]
        is_given = bound.key in parameters
        yield _Argument(bound.key if is_given else None, bound.effective_value, _of(bound.type, dialect).bind_processor(dialect))


def _of(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    return type_.dialect_impl(dialect)
