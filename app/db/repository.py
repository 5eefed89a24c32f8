"""What every repository needs: pages of a select, and the names of violated constraints."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Insert,
    Row,
    Select,
    UniqueConstraint,
    and_,
    delete,
    func,
    insert,
    inspect,
    literal,
    or_,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.core.clock import now
from app.core.errors import AppError, ConflictError, InvalidError, NotFoundError, PreconditionFailedError
from app.core.pagination import Cursor, CursorPage, CursorRequest, Page, PageRequest, encode_cursor
from app.db.base import Base, Timestamp
from app.db.visibility import only_first

SortColumns = Mapping[str, InstrumentedAttribute[Any]]


def wire_columns(model: type[Base]) -> tuple[ColumnElement[Any], ...]:
    """Every column of a table, mapped, under its name on the wire (``metadata_`` is ``metadata``)."""
    return tuple(getattr(model, attribute.key).label(attribute.columns[0].name) for attribute in inspect(model).column_attrs)


@cache
def insert_into(model: type[Base]) -> Insert:
    """The insert of rows that the service has made all values of, by the names of columns; without the work mapped objects need."""
    return insert(model).execution_options(dml_strategy="raw")


class Repository:
    """Statements over one table, in the tenant the session is pinned to."""

    model: ClassVar[type[Base]]
    sort_columns: ClassVar[SortColumns] = {}

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def insert(self, values: Mapping[str, Any]) -> SimpleNamespace:
        """Write a row; returns its values, which are all made by the service.

        Raises:
            NotFoundError: what it hangs below is gone.
            ConflictError: a unique value is taken.
        """
        try:
            await self._session.execute(insert_into(self.model), dict(values))
        except IntegrityError as error:
            raise self.conflict(violated_constraint(error)) from None
        return SimpleNamespace(**values)

    async def update(
        self, row_id: UUID, changes: Mapping[str, Any], expected_revision: int | None, *conditions: ColumnElement[bool]
    ) -> Row[Any]:
        """Change columns of a row that meets the conditions, and raise its revision; returns the new row.

        Raises:
            PreconditionFailedError: the row is no longer at ``expected_revision``.
            NotFoundError: the row is gone, or does not meet the conditions.
            ConflictError: a unique value is taken.
        """
        model: Any = self.model
        statement = (
            update(model)
            .where(model.id == row_id, *self._at(expected_revision), *conditions)
            .values({_key(model, name): value for name, value in changes.items()} | {"updated_at": now(), "revision": model.revision + 1})
            .returning(*wire_columns(model))
        )
        try:
            row = (await self._session.execute(statement)).one_or_none()
        except IntegrityError as error:
            raise self.conflict(violated_constraint(error)) from None
        if row is None:
            raise self._lost(expected_revision)
        return row

    async def delete(self, row_id: UUID, expected_revision: int | None) -> None:
        """Remove a row.

        Raises:
            PreconditionFailedError: the row is no longer at ``expected_revision``.
            NotFoundError: the row is gone.
        """
        model: Any = self.model
        statement = delete(model).where(model.id == row_id, *self._at(expected_revision)).returning(model.id)
        if (await self._session.execute(statement)).one_or_none() is None:
            raise self._lost(expected_revision)

    async def page(self, statement: Select[Any], request: PageRequest | CursorRequest) -> Page[Row[Any]] | CursorPage[Row[Any]]:
        """The asked page of a select over this table; see ``fetch_page``."""
        return await fetch_page(self._session, statement, request, self.sort_columns, cast("Any", self.model).id)

    def conflict(self, constraint: str | None) -> AppError:
        """The error for a violated constraint; repositories with unique columns name them."""
        if constraint is not None and constraint.startswith("fk"):
            return NotFoundError()
        return ConflictError("Something like this exists already.")

    def _at(self, revision: int | None) -> tuple[ColumnElement[bool], ...]:
        return () if revision is None else (cast("Any", self.model).revision == revision,)

    def _lost(self, expected_revision: int | None) -> AppError:
        return NotFoundError() if expected_revision is None else PreconditionFailedError()


async def fetch_page(
    session: AsyncSession,
    statement: Select[Any],
    request: PageRequest | CursorRequest,
    columns: SortColumns,
    key: InstrumentedAttribute[UUID],
) -> Page[Row[Any]] | CursorPage[Row[Any]]:
    """The asked page of a select. The unique ``key`` breaks every tie, so pages neither repeat nor miss a row.

    A numbered page costs the select and a count; a keyset page costs one index range for each value that
    makes rows visible, whatever lies before it.
    """
    column = columns[request.sort]
    order = _order(column, key, descending=request.descending)
    if isinstance(request, PageRequest):
        total = await count_rows(session, statement)
        if request.offset >= total:
            return Page([], total, request)
        rows = await session.execute(only_first(statement, key, order, request.size, request.offset))
        return Page(list(rows.all()), total, request)
    if request.after is not None:
        statement = statement.where(_is_after(column, key, request.after, descending=request.descending))
    found = list((await session.execute(only_first(statement, key, order, request.limit + 1))).all())
    rows_shown = found[: request.limit]
    if len(found) <= request.limit:
        return CursorPage(rows_shown, None)
    last = rows_shown[-1]
    cursor = Cursor(_write_value(getattr(last, column.key)), last.id)
    return CursorPage(rows_shown, encode_cursor(cursor, request.fingerprint))


def _order(column: InstrumentedAttribute[Any], key: InstrumentedAttribute[UUID], *, descending: bool) -> list[ColumnElement[Any]]:
    by: list[ColumnElement[Any]] = [column.desc(), key.desc()] if descending else [column.asc(), key.asc()]
    # The databases disagree on where NULL sorts; here it is last, whatever the direction.
    return [column.is_(None), *by] if _is_nullable(column) else by


def _is_after(
    column: InstrumentedAttribute[Any], key: InstrumentedAttribute[UUID], place: Cursor, *, descending: bool
) -> ColumnElement[bool]:
    identifier = literal(place.id, key.type)
    if place.value is None:
        return and_(column.is_(None), key < identifier if descending else key > identifier)
    here, there = tuple_(column, key), tuple_(literal(_read_value(column, place.value), column.type), identifier)
    follows = here < there if descending else here > there
    return or_(follows, column.is_(None)) if _is_nullable(column) else follows


def _is_nullable(column: InstrumentedAttribute[Any]) -> bool:
    return bool(column.property.columns[0].nullable)


async def count_rows(session: AsyncSession, statement: Select[Any]) -> int:
    """How many rows a select over one table has."""
    counted = statement.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
    return int((await session.execute(counted)).scalar_one())


def equal_to(filters: Mapping[InstrumentedAttribute[Any], Any]) -> list[ColumnElement[bool]]:
    """The exact filters that were given; None is one that was not."""
    return [column == value for column, value in filters.items() if value is not None]


def contains(column: ColumnElement[str] | InstrumentedAttribute[str], text: str) -> ColumnElement[bool]:
    """Literal search without regard to case: ``%`` and ``_`` mean themselves."""
    return func.lower(column).contains(text.lower(), autoescape=True)


def violated_constraint(error: IntegrityError) -> str | None:
    """The name of the constraint a write ran into: ``uq_...`` or ``fk_...``; SQLite names no foreign key: ``"fk"``."""
    name = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
    if name is not None:
        return str(name)
    text = str(error.orig)
    if "FOREIGN KEY" in text:
        return "fk"
    _, _, columns = text.partition("UNIQUE constraint failed: ")
    names = [part.strip().rpartition(".") for part in columns.split(",")]
    if not columns:
        return None
    table = Base.metadata.tables[names[0][0]]
    wanted = [column for _, _, column in names]
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint) and [column.name for column in constraint.columns] == wanted:
            return str(constraint.name)
    return None


@cache
def _key(model: type[Base], column: str) -> str:
    """The attribute of a column: the same name, but for ``metadata``, which the declarative base keeps for itself."""
    return inspect(model).get_property_by_column(model.__table__.c[column]).key


def _write_value(value: Any) -> str | None:
    if value is None:
        return None
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _read_value(column: InstrumentedAttribute[Any], text: str) -> Any:
    try:
        if isinstance(column.type, Timestamp):
            return datetime.fromisoformat(text).astimezone(UTC)
        return column.type.python_type(text)
    except (ValueError, OverflowError):
        raise InvalidError("is not a cursor of this list", pointer="query.cursor") from None
