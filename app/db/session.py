"""The session of a unit of work: what it asks the database and writes to it, everything through the fence."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast, overload

from sqlalchemy import Executable, Result
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.selectable import TypedReturnsRows

from app.db.engine import Database
from app.db.lookups import Lookup
from app.db.tenancy import Fence, FencedSession, TenancyError
from app.db.writes import Insertion

_T = TypeVar("_T", bound=tuple[Any, ...])


class TenantSession:
    """Runs statements, each confined by its ``fence``, while the work lasts.

    Behind it stands SQLAlchemy's, the ``orm_session``. To make and close one is a tenth of what a request costs, so that is done for the
    first statement that needs it: pages of lists are looked up without, and rows that are all there is to write are written by the driver.

    ``info`` is for the listeners of SQLAlchemy's session.
    """

    def __init__(self, database: Database, *, is_read_only: bool, info: Mapping[Any, Any]) -> None:
        self.fence = Fence(is_read_only=is_read_only)
        self._database = database
        self._engine = database.reader if is_read_only else database.writer
        self._info = info
        self._orm: AsyncSession | None = None
        self._is_over = False

    @property
    def orm_session(self) -> AsyncSession:
        """SQLAlchemy's session.

        Raises:
            TenancyError: the work is over.
        """
        if self._orm is None:
            self._require_going_on()
            self._orm = AsyncSession(self._engine, sync_session_class=FencedSession, fence=self.fence, info=dict(self._info))
        return self._orm

    @overload
    async def execute(self, statement: TypedReturnsRows[_T], parameters: Any = None) -> Result[_T]: ...

    @overload
    async def execute(self, statement: Executable, parameters: Any = None) -> Result[Any]: ...

    async def execute(self, statement: Executable, parameters: Any = None) -> Result[Any]:
        """Run a statement over mapped classes, after the rows that wait were written.

        Raises:
            TenancyError: the fence does not let it pass.
            Exception: what SQLAlchemy raises, or what the repository of waiting rows says of a constraint they violate.
        """
        return await self.orm_session.execute(statement, parameters)

    async def look_up_all(self, lookup: Lookup, parameters: Mapping[str, Any]) -> list[Any]:
        """The rows of a look-up of a ``fenced`` select; see ``Database.look_up_all``.

        Raises:
            TenancyError: the work is over, or may have written what a look-up does not see.
        """
        self._require_going_on()
        fence = self.fence
        if not fence.is_read_only:
            raise TenancyError("a look-up sees nothing of a transaction")
        return list(await self._database.look_up_all(lookup, {**parameters, **fence.parameters}, fence.tenants))

    def insert(self, insertion: Insertion) -> None:
        """Have rows written before the next statement, or with the commit.

        Raises:
            TenancyError: they are not the pinned tenant's, or the work only reads, or is over.
        """
        self._require_going_on()
        self.fence.insert_later(insertion)

    def use_jobs_role(self) -> None:
        """Run everything as the role for jobs: only that one may remove events.

        Raises:
            TenancyError: something was run already, or the work is over.
        """
        self._require_going_on()
        if self._orm is not None:
            raise TenancyError("a session cannot change its role")
        self._engine = self._database.for_jobs.writer

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """A part of the transaction that may fail and then leaves no change (a savepoint); of events only the unit of work knows."""
        had_changed = self.fence.has_changed
        await self._send_insertions()
        try:
            async with self.orm_session.begin_nested():
                yield
                await self._send_insertions()
        except BaseException:
            self.fence.take_insertions()
            self.fence.has_changed = had_changed
            raise

    def require_no_objects(self) -> None:
        """Refuse objects that wait to be flushed.

        Raises:
            TenancyError: there are some.
        """
        if self._orm is not None:
            cast("FencedSession", self._orm.sync_session).require_no_objects()

    async def commit(self, past_the_line: Callable[[], None], *, at_once: bool) -> None:
        """Write the rows that wait and make everything durable: when they are all there is, and it may be ``at_once``, by the driver.

        ``past_the_line`` is called when nobody may be able to say any more that nothing was written.

        Raises:
            TenancyError: the work is over.
            AppError: what the repository of the waiting rows says of a constraint they violate.
        """
        self._require_going_on()
        fence = self.fence
        is_all = (self._orm is None or not self._orm.in_transaction()) and self._engine is self._database.writer
        if at_once and fence.insertions and is_all and await self._database.write_at_once(fence.insertions, fence.tenants, past_the_line):
            fence.take_insertions()
            return
        await self._send_insertions()
        past_the_line()
        await self.orm_session.commit()

    async def aclose(self) -> None:
        """Leave nothing that was not committed, and run nothing any more."""
        self._is_over = True
        self.fence.take_insertions()  # each knows its repository, which knows this: they would stay until the collector comes
        self.fence.has_changed = False
        orm, self._orm = self._orm, None
        if orm is not None and orm.in_transaction():
            await orm.close()
        elif orm is not None:
            orm.sync_session.close()  # it holds nothing that would have to be waited for

    async def _send_insertions(self) -> None:
        if self.fence.insertions:
            await self.orm_session.run_sync(lambda session: cast("FencedSession", session).send_insertions())

    def _require_going_on(self) -> None:
        if self._is_over:
            raise TenancyError("the work is over")
