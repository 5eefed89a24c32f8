"""A pool of connections that serves who waits in the order of their coming.

SQLAlchemy's is over ``asyncio.Queue``, which lets whoever has just come take what was given back, while the one it was meant for is still
waking up and then goes to the end of the line: with more requests than connections one in a hundred waited five times as long as most.
"""

import asyncio
from collections import deque
from contextlib import suppress

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import await_only
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
        return await_only(self._wait(timeout))

    async def _wait(self, timeout: float | None) -> ConnectionPoolEntry:  # noqa: ASYNC109 - SQLAlchemy's word
        mine: asyncio.Future[ConnectionPoolEntry] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            async with asyncio.timeout(timeout):
                return await mine
        except BaseException as error:
            if mine.done() and not mine.cancelled():  # it came with the end of the waiting
                self.put_nowait(mine.result())
            with suppress(ValueError):
                self._waiting.remove(mine)
            if isinstance(error, TimeoutError):
                raise Empty from None
            raise


class FairPool(AsyncAdaptedQueuePool):
    """Like its parent, and fair. Who waits while no connection can be made is told so at once, and not that all are in use."""

    __module__ = AsyncAdaptedQueuePool.__module__  # its log lines are SQLAlchemy's
    _queue_class = FairQueue

    def _create_connection(self) -> ConnectionPoolEntry:
        # Connected when it is handed out, as after it was lost: when that fails it goes to the next in line. Of a connection that
        # could not be made here the pool would tell nobody, and those who wait would sleep through all their time.
        return _ConnectionRecord(self, connect=False)
