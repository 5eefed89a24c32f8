"""The fence between tenants: nothing is read or written until it is said for whom."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Delete, FromClause, Select, Update, bindparam, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, UOWTransaction, with_loader_criteria

from app.db.base import Base
from app.db.confinement import Tenants, confine
from app.db.errors import violated_constraint
from app.db.visibility import FILTERED
from app.db.writes import Insertion, insert_into

_PIN: Final = "pinned_organization_id"


class TenancyError(RuntimeError):
    """A statement would leave its tenant. A fault of this service, never of the caller."""


class Fence:
    """Whose rows a piece of work may read and write, which of them wait to be written, and whether it has changed any.

    * unpinned: every statement on a tenant's table is refused, unless it is a select to which ``confine_to`` added
      the policy engine's predicate for each table it names;
    * pinned: every select, update and delete gets ``organization_id = pin`` for each mapped class in it, every insert must
      carry that organization.
    """

    def __init__(self, *, is_read_only: bool) -> None:
        self.is_read_only = is_read_only
        self.pin: UUID | None = None
        self.tenants_of_lists: Tenants | None = None
        self.list_parameters: Mapping[str, Any] = {}
        self.has_changed = False
        self.insertions: list[Insertion] = []

    def pin_tenant(self, organization_id: UUID) -> None:
        """Confine everything that follows to one organization, for good.

        Raises:
            TenancyError: it is confined to another one.
        """
        if self.pin not in {None, organization_id}:
            raise TenancyError("work cannot change its tenant")
        self.pin = organization_id

    @property
    def tenants(self) -> Tenants | None:
        """Those that the database is told, for row-level security to hold each transaction to them."""
        return Tenants.exactly(self.pin) if self.pin is not None else self.tenants_of_lists

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What is added to those of a select: whose rows it may see."""
        return self.list_parameters if self.pin is None else {**self.list_parameters, _PIN: self.pin}

    def insert_later(self, insertion: Insertion) -> None:
        """Have rows wait to be written.

        Raises:
            TenancyError: they are not the pinned tenant's, or nothing may be changed.
        """
        self.note_change()
        self.require_own(insertion.model, insertion.rows)
        self.insertions.append(insertion)

    def take_insertions(self) -> list[Insertion]:
        """What waits; it waits no longer."""
        waiting, self.insertions = self.insertions, []
        return waiting

    def note_change(self) -> None:
        """Something is about to be changed.

        Raises:
            TenancyError: nothing may be.
        """
        if self.is_read_only:
            raise TenancyError("a read changes nothing")
        self.has_changed = True

    def require_own(self, model: Any, rows: Iterable[Mapping[str, Any]]) -> None:
        """Refuse rows of another tenant than the pinned one.

        Raises:
            TenancyError: there are some, or they do not say whose they are.
        """
        column = model.tenant_column().key
        if self.pin is None or {row.get(column) for row in rows} != {self.pin}:
            raise TenancyError("an insert must name the pinned tenant in its parameters")


class FencedSession(Session):
    """SQLAlchemy's session behind a fence: it runs statements over mapped classes, and those only that pass.

    There is no identity map in use: rows are inserted, updated and selected by statements, and a flush is refused.
    """

    def __init__(self, *, fence: Fence, **options: Any) -> None:
        super().__init__(autoflush=False, close_resets_only=False, **options)
        self.fence = fence

    def send_insertions(self) -> None:
        """Write the rows that wait. To be called in SQLAlchemy's greenlet.

        Raises:
            AppError: what their repository says of a constraint they violate.
        """
        for insertion in self.fence.take_insertions():
            rows: Any = insertion.rows[0] if len(insertion.rows) == 1 else insertion.rows
            try:
                self.execute(insert_into(insertion.model), rows)
            except IntegrityError as error:
                raise insertion.conflict(violated_constraint(error)) from None

    def require_no_objects(self) -> None:
        """Refuse objects that wait to be flushed.

        Raises:
            TenancyError: there are some.
        """
        if self.new or self.dirty or self.deleted:
            raise TenancyError("rows are written by statements, not by flushing objects")


@event.listens_for(FencedSession, "after_begin")
def _confine_transaction(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    if isinstance(session, FencedSession):
        confine(connection, session.fence.tenants)


def tenant_tables() -> dict[str, type[Base]]:
    """The mapped class of every table whose rows belong to a tenant."""
    return {mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers if hasattr(mapper.class_, "tenant_column")}


@cache
def _criteria() -> tuple[Any, ...]:
    # Concrete classes and include_aliases: criteria on a mixin without it filter nothing, silently.
    return tuple(
        with_loader_criteria(model, model.tenant_column() == bindparam(_PIN), include_aliases=True)  # type: ignore[attr-defined]
        for model in tenant_tables().values()
    )


@event.listens_for(FencedSession, "do_orm_execute")
def _let_pass(state: ORMExecuteState) -> Any:
    session = state.session
    if not isinstance(session, FencedSession):  # pragma: no cover - the listener is registered on this class
        raise TenancyError("only fenced sessions run statements")
    fence = session.fence
    if state.bind_mapper is None:
        raise TenancyError("only statements over mapped classes pass: no text and no bare tables")
    if fence.insertions:
        session.send_insertions()  # what is asked now is to find them
    if not state.is_select:
        fence.note_change()
    if state.is_insert:
        _check_insert(fence, state)
        return None
    if fence.pin is None:
        if not isinstance(state.statement, Select):
            raise TenancyError("no tenant is pinned for a change")
        _check_list(state.statement, state.execution_options)
        _bind(state, fence.parameters)
        return None
    if state.is_update:
        _check_update(state)
    return _confine(fence, state)


def fenced(statement: Select[Any], *, is_pinned: bool) -> Select[Any]:
    """A select as the fence lets it pass, for who runs it without a session, with the fence's ``parameters``.

    Raises:
        TenancyError: it would not let it pass.
    """
    if not is_pinned:
        _check_list(statement, statement.get_execution_options())
        return statement
    return statement.options(*_criteria())


def _check_list(statement: Select[Any], options: Mapping[str, Any]) -> None:
    unfiltered = {str(from_) for from_ in _froms_of(statement)} - options.get(FILTERED, frozenset())
    if unfiltered:
        raise TenancyError(f"no tenant is pinned for {sorted(unfiltered)}")


def _froms_of(statement: Select[Any]) -> Iterable[FromClause]:
    """What the statement selects from. ``get_final_froms`` compiles it, which costs more than running it: only joins need that."""
    if statement._setup_joins:  # noqa: SLF001 - there is no public way
        return statement.get_final_froms()
    where = statement.whereclause
    named = where._from_objects if where is not None else ()  # noqa: SLF001
    return {*statement.columns_clause_froms, *statement._from_obj, *named}  # noqa: SLF001


def _confine(fence: Fence, state: ORMExecuteState) -> Any:
    if not isinstance(state.statement, Select | Update | Delete):
        raise TenancyError("criteria do not reach into text, even when it answers mapped classes")
    statement = state.statement.options(*_criteria())
    if not state.is_select:
        state.update_execution_options(synchronize_session=False)  # there are no objects in the session to keep in step
    # To an update a parameter is a value for the column of that name: what a list asks for would overwrite whose row it is.
    _bind(state, fence.parameters if state.is_select else {_PIN: fence.pin})
    return state.invoke_statement(statement=statement)


def _bind(state: ORMExecuteState, values: Mapping[str, Any]) -> None:
    given = state.parameters or {}
    if not isinstance(given, Mapping):
        raise TenancyError("only inserts take many rows")
    state.parameters = {**given, **values}


def _check_insert(fence: Fence, state: ORMExecuteState) -> None:
    given = state.parameters
    rows: Iterable[Any] = given if isinstance(given, list) else [given] if given else []
    fence.require_own(state.bind_mapper.class_, rows)  # type: ignore[union-attr]


def _check_update(state: ORMExecuteState) -> None:
    statement: Any = state.statement
    column = state.bind_mapper.class_.tenant_column().key  # type: ignore[union-attr]
    named = (*(statement._values or ()), *(state.parameters or ()))  # noqa: SLF001 - there is no public way
    if any(getattr(name, "key", name) == column for name in named):
        raise TenancyError("a row stays in its tenant")


@event.listens_for(FencedSession, "before_flush")
def _refuse_flush(session: Session, _context: UOWTransaction, _instances: Any) -> None:
    if isinstance(session, FencedSession):
        session.require_no_objects()
