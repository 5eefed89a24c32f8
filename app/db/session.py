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

    SQLAlchemy's session stands ``behind`` it, and costs more than most of what a request does: it is made for the first statement that
    needs it. Pages of lists are looked up without it, and rows that are all there is to write are written by the driver.

    ``info`` is for the listeners of SQLAlchemy's session.
    """

    def __init__(self, database: Database, *, is_read_only: bool, info: Mapping[Any, Any]) -> None:
        self.fence = Fence(is_read_only=is_read_only)
        self._database = database
        self._engine = database.reader if is_read_only else database.writer
        self._info = info
        self._behind: AsyncSession | None = None
        self._is_over = False

    @property
    def behind(self) -> AsyncSession:
        """SQLAlchemy's session.

        Raises:
            TenancyError: the work is over.
        """
        if self._behind is None:
            self._require_going_on()
            self._behind = AsyncSession(self._engine, sync_session_class=FencedSession, fence=self.fence, info=dict(self._info))
        return self._behind

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
        return await self.behind.execute(statement, parameters)

    async def look_up_all(self, lookup: Lookup, parameters: Mapping[str, Any]) -> list[Any]:
        """The rows of a look-up of a ``fenced`` select, in work that only reads; see ``Database.look_up_all``."""
        self._require_going_on()
        fence = self.fence
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
            TenancyError: something was run already.
        """
        if self._behind is not None:
            raise TenancyError("a session cannot change its role")
        self._engine = self._database.for_jobs.writer

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """A part of the transaction that may fail and then leaves nothing (a savepoint)."""
        had_changed = self.fence.has_changed
        await self._send_insertions()
        try:
            async with self.behind.begin_nested():
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
        if self._behind is not None:
            cast("FencedSession", self._behind.sync_session).require_no_objects()

    async def commit(self, past_the_line: Callable[[], None], *, at_once: bool) -> None:
        """Write the rows that wait and make everything durable: when they are all there is, and it may be ``at_once``, by the driver.

        ``past_the_line`` is called when nobody may be able to say any more that nothing was written.
        """
        fence = self.fence
        is_all = (self._behind is None or not self._behind.in_transaction()) and self._engine is self._database.writer
        if at_once and is_all and await self._database.write_at_once(fence.insertions, fence.tenants, past_the_line):
            return
        await self._send_insertions()
        past_the_line()
        await self.behind.commit()

    async def aclose(self) -> None:
        """Leave nothing that was not committed, and run nothing any more."""
        self._is_over = True
        self.fence.take_insertions()  # each knows its repository, which knows this: they would stay until the collector comes
        behind, self._behind = self._behind, None
        if behind is not None and behind.in_transaction():
            await behind.close()
        elif behind is not None:
            behind.sync_session.close()  # it holds nothing that would have to be waited for

    async def _send_insertions(self) -> None:
        if self.fence.insertions:
            await self.behind.run_sync(lambda session: cast("FencedSession", session).send_insertions())

    def _require_going_on(self) -> None:
        if self._is_over:
            raise TenancyError("the work is over")
