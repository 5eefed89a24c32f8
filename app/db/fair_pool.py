"""A pool of connections that serves who waits in the order of their coming.

SQLAlchemy's is over ``asyncio.Queue``, which lets whoever has just come take what was given back, while the one it was meant for is still
waking up and then goes to the end of the line: with more requests than connections one in a hundred waited five times as long as most.
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.queue import Empty, Full, QueueCommon


class FairQueue(QueueCommon[ConnectionPoolEntry]):
    """What is put goes to whoever has waited longest. To be used in one event loop; ``get`` in SQLAlchemy's greenlet when it may wait."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        super().__init__(maxsize, use_lifo)
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._items: deque[ConnectionPoolEntry] = deque()
        self._waiting: deque[asyncio.Future[ConnectionPoolEntry]] = deque()

    def empty(self) -> bool:
        """Whether nothing is here for who comes."""
        return not self._items

    def full(self) -> bool:
        """Whether as much is here as may be."""
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        """How much is here."""
        return len(self._items)

    def put_nowait(self, item: ConnectionPoolEntry) -> None:
        """Give something back; raises ``Full``."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():  # else he has given up
                first.set_result(item)
                return
        if self.full():
            raise Full
        self._items.append(item)

    def put(self, item: ConnectionPoolEntry, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002
        """The same: a pool never holds more than it was made for, so there is nothing to wait for."""
        self.put_nowait(item)

    def get_nowait(self) -> ConnectionPoolEntry:
        """What is here; raises ``Empty``."""
        if not self._items:
            raise Empty
        return self._items.pop() if self.use_lifo else self._items.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> ConnectionPoolEntry:
        """The same, or what is given back within ``timeout`` seconds when it is one's turn."""
        if self._items or not block:
            return self.get_nowait()
        return await_only(self.wait(timeout))

    async def wait(self, timeout: float | None) -> ConnectionPoolEntry:  # noqa: ASYNC109 - SQLAlchemy's word
        """What is given back within ``timeout`` seconds when it is one's turn; raises ``Empty``."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[ConnectionPoolEntry] = loop.create_future()
        self._waiting.append(mine)
        alarm = loop.call_later(timeout, _end_waiting, mine) if timeout is not None else None
        try:
            return await mine
        except BaseException:
            if mine.done() and not mine.cancelled() and mine.exception() is None:  # it came with the end of the waiting
                self.put_nowait(mine.result())
            with suppress(ValueError):
                self._waiting.remove(mine)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()


def _end_waiting(waiting: asyncio.Future[ConnectionPoolEntry]) -> None:
    if not waiting.done():
        waiting.set_exception(Empty())


class FairPool(AsyncAdaptedQueuePool):
    """Like its parent, and fair. Who waits while no connection can be made is told so at once, and not that all are in use."""

    __module__ = AsyncAdaptedQueuePool.__module__  # its log lines are SQLAlchemy's
    _queue_class = FairQueue

    async def take(self) -> _ConnectionRecord:
        """A place of the pool with a connection in it, for ``give_back`` or ``drop``: as SQLAlchemy lends it, without its greenlet.

        Raises:
            PoolTimeoutError: none was free in time.
            Exception: what the driver raises when a connection cannot be made.
        """
        queue: Any = self._pool
        if not queue.empty() or self._overflow < self._max_overflow:
            record: Any = self._do_get()
        else:
            try:
                record = await queue.wait(self._timeout)
            except Empty:
                raise PoolTimeoutError(f"no connection was free within {self._timeout:g} seconds") from None
        if record._is_hard_or_soft_invalidated():  # noqa: SLF001 - what it would find out itself, in its greenlet
            await greenlet_spawn(_connect, record)
        return cast("_ConnectionRecord", record)

    def give_back(self, record: _ConnectionRecord) -> None:
        """Let the next one have it."""
        record.checkin(_fairy_was_created=False)

    async def drop(self, record: _ConnectionRecord, error: BaseException) -> None:
        """Close its connection; when it is silent or was closed already, each that was made before, too. The next one gets the place."""
        driver: Any = record.driver_connection
        is_gone = isinstance(error, TimeoutError) or (isinstance(error, Exception) and hasattr(driver, "is_closed") and driver.is_closed())
        if is_gone and self._invalidate_time < record.starttime:  # else that was said already, and this one is older
            self._invalidate_time = time.time()
        await greenlet_spawn(record._checkin_failed, error, _fairy_was_created=False)  # noqa: SLF001 - as SQLAlchemy does

    def _create_connection(self) -> ConnectionPoolEntry:
        # Connected when it is handed out, as after it was lost: when that fails it goes to the next in line. Of a connection that
        # could not be made here the pool would tell nobody, and those who wait would sleep through all their time.
        return _ConnectionRecord(self, connect=False)


class borrowed:  # noqa: N801 - a context manager
    """A driver's connection out of an engine's pool, for an ``async with``.

    The block ends every transaction that it begins. When it raises the connection is dropped, see ``FairPool.drop``. Raises what
    ``FairPool.take`` does.
    """

    __slots__ = ("_pool", "_record")

    def __init__(self, engine: Engine) -> None:
        self._pool = cast("FairPool", engine.pool)
        self._record: _ConnectionRecord

    async def __aenter__(self) -> Any:
        self._record = await self._pool.take()
        return self._record.driver_connection

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._pool.give_back(self._record)
        else:
            await self._pool.drop(self._record, error)


def _connect(record: _ConnectionRecord) -> None:
    try:
        record.get_connection()
    except BaseException as error:
        record._checkin_failed(error, _fairy_was_created=False)  # noqa: SLF001 - as SQLAlchemy does
        raise
