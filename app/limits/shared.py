"""Token buckets in the database, for all processes together. Each takes tokens in advance, so that few requests ask the database."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from time import monotonic, time
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Double, Integer, Table, bindparam, case, delete, extract, func, literal
from sqlalchemy.dialects import postgresql, sqlite

from app.core.errors import UnavailableError
from app.db.engine import Database
from app.limits.buckets import MAX_CALLERS, WINDOW_SECONDS, Standing
from app.models import RateBucket
from app.models.rate_bucket import MAX_BUCKET

SHARE: Final = 20  # a process takes at most this part of a quota in advance
BUSY_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 5.0

_BUCKETS: Final = cast("Table", RateBucket.__table__)
_QUOTA: Final[ColumnElement[float]] = bindparam("quota", type_=Double())
_WANTED: Final[ColumnElement[int]] = bindparam("wanted", type_=Integer())
_NOW_HERE: Final[ColumnElement[float]] = bindparam("moment", type_=Double())
_NOW_THERE: Final[ColumnElement[float]] = func.cast(extract("epoch", func.clock_timestamp()), Double())


@dataclass(slots=True)
class _Lease:
    """Tokens this process has taken in advance for one caller, and what the bucket held then."""

    left: int = 0
    size: int = 0
    tokens: float = 0
    taken_at: float = float("-inf")
    refused_until: float = float("-inf")
    failed_until: float = float("-inf")
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class SharedLimiter:
    """Counts for all processes that use one database.

    Who asks often is given up to a twentieth of his quota at once: while it lasts, nobody is asked. So with n processes n twentieths
    can be spent beyond a quota, or wait in one process while another refuses. One statement for each time the database is asked.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._clock = clock
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._take: Any = _make_take(sqlite.insert, _NOW_HERE) if database.is_sqlite else _make_take(postgresql.insert, _NOW_THERE)
        self._given = _NOW_HERE if database.is_sqlite else _NOW_THERE

    async def take(self, caller: str, quota: int) -> Standing:
        """See ``Limiter.take``."""
        lease = self._lease_of(caller)
        async with lease.asking:  # who comes meanwhile finds what the first was given
            moment = self._clock()
            if moment - lease.taken_at >= WINDOW_SECONDS:
                lease.left = 0
            if not lease.left and moment >= lease.refused_until:
                await self._ask(lease, caller, quota, moment)
            if not lease.left:
                refilled = min(1.0, lease.tokens + (self._clock() - lease.taken_at) * quota / WINDOW_SECONDS)
                return Standing.of(quota, refilled, is_refused=True)
            lease.left -= 1
            return Standing.of(quota, min(quota, lease.tokens + lease.left))

    async def forget(self) -> None:
        """Remove the buckets that are full again."""
        full = self._given - 2 * WINDOW_SECONDS
        async with self._database.writer.begin() as connection:
            await connection.execute(delete(_BUCKETS).where(_BUCKETS.c.filled_at < full), self._times({}))

    def _lease_of(self, caller: str) -> _Lease:
        lease = self._leases.setdefault(caller, _Lease())
        self._leases.move_to_end(caller)
        if len(self._leases) > MAX_CALLERS:
            self._leases.popitem(last=False)
        return lease

    async def _ask(self, lease: _Lease, caller: str, quota: int, moment: float) -> None:
        """Who waits behind one that got no answer in time is not made to wait once more for himself."""
        if moment < lease.failed_until:
            raise UnavailableError("Requests cannot be counted at the moment. Try again.", code="limits_unavailable")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._renew(lease, caller, quota, moment)
        except Exception:
            lease.failed_until = self._clock() + 1
            raise

    async def _renew(self, lease: _Lease, caller: str, quota: int, moment: float) -> None:
        is_busy = moment - lease.taken_at < BUSY_SECONDS
        lease.size = min(max(1, quota // SHARE), lease.size * 2 if is_busy else 1)
        name = blake2b(caller.encode(), digest_size=MAX_BUCKET // 2).hexdigest()
        asked = self._times({"bucket": name, "quota": quota, "wanted": lease.size})
        async with self._database.writer.begin() as connection:
            lease.tokens, lease.left = (await connection.execute(self._take, asked)).one()
        lease.taken_at = moment
        if not lease.left:
            lease.size = 0
            lease.refused_until = moment + (1 - lease.tokens) * WINDOW_SECONDS / quota

    def _times(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """SQLite is on this host, whose clock all its processes read; PostgreSQL has its own."""
        return {**parameters, "moment": time()} if self._database.is_sqlite else parameters


def _make_take(insert: Any, now: ColumnElement[float]) -> Any:
    """Fill the bucket for the time that passed, and take what is wanted, or one, or nothing: answers what is left and what was taken."""
    first = insert(_BUCKETS).values(bucket=bindparam("bucket"), tokens=_QUOTA - _WANTED, granted=_WANTED, filled_at=now)
    came = first.excluded.filled_at
    later = case((came > _BUCKETS.c.filled_at, came), else_=_BUCKETS.c.filled_at)
    poured = _BUCKETS.c.tokens + (later - _BUCKETS.c.filled_at) * _QUOTA / WINDOW_SECONDS
    tokens = case((poured < _QUOTA, poured), else_=_QUOTA)
    granted = case((tokens >= _WANTED, _WANTED), (tokens >= 1, literal(1, Integer())), else_=literal(0, Integer()))
    update = {"tokens": tokens - granted, "granted": granted, "filled_at": later}
    return first.on_conflict_do_update(index_elements=["bucket"], set_=update).returning(_BUCKETS.c.tokens, _BUCKETS.c.granted)
