"""What every repository needs: rows written and changed, and pages of its list."""

from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, inspect, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute

from app.core.clock import now
from app.core.errors import AppError, ConflictError, NotFoundError, PreconditionFailedError
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.base import Base
from app.db.errors import violated_constraint
from app.db.listing import Listing, wire_columns
from app.db.pages import fetch_page
from app.db.session import TenantSession
from app.db.visibility import VisibleRows
from app.db.writes import Insertion


class Repository:
    """Statements over one table, in the tenant the session is pinned to."""

    model: ClassVar[type[Base]]
    listing: ClassVar[Listing]

    def __init__(self, session: TenantSession) -> None:
        self._session = session

    def insert(self, values: Mapping[str, Any]) -> SimpleNamespace:
        """Have a row written before the session's next statement, or by the commit; returns its values, which are all made by the service.

        What writes it raises:
            NotFoundError: what it hangs below is gone.
            ConflictError: a unique value is taken.
        """
        self._session.insert(Insertion(self.model, [values], self.conflict))
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

    async def page(
        self, given: Mapping[str, Any], request: PageRequest | CursorRequest, visible: tuple[VisibleRows, ...] = ()
    ) -> Page[Any] | CursorPage[Any]:
        """The asked page of the list, with the filters that are given, of what is visible; see ``fetch_page``."""
        return await fetch_page(self._session, self.listing, given, request, visible)

    def conflict(self, constraint: str | None) -> AppError:
        """The error for a violated constraint; repositories with unique columns name them."""
        if constraint is not None and constraint.startswith("fk"):
            return NotFoundError()
        return ConflictError("Something like this exists already.")

    def _at(self, revision: int | None) -> tuple[ColumnElement[bool], ...]:
        return () if revision is None else (cast("Any", self.model).revision == revision,)

    def _lost(self, expected_revision: int | None) -> AppError:
        return NotFoundError() if expected_revision is None else PreconditionFailedError()


def equal_to(filters: Mapping[InstrumentedAttribute[Any], Any]) -> list[ColumnElement[bool]]:
    """The exact filters that were given; None is one that was not."""
    return [column == value for column, value in filters.items() if value is not None]


@cache
def _key(model: type[Base], column: str) -> str:
    """The attribute of a column: the same name, but for ``metadata``, which the declarative base keeps for itself."""
    return inspect(model).get_property_by_column(model.__table__.c[column]).key
