"""Guessing is slow: credentials that prove nothing are soon answered 429, before anything is looked up.

Two token buckets are asked: one of the caller's address, one of the address and the key's prefix together, so nobody can lock the
owner of a key out from elsewhere. Only failed attempts take tokens. Everything lies in the memory of one process, bounded.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from time import monotonic
from typing import Final, TypeVar

from app.authn.resolver import BearerVerifier
from app.core.actors import Identity
from app.core.addresses import origin_of
from app.core.errors import TooManyAttemptsError, UnauthenticatedError
from app.core.keys import read_token
from app.db.wanted import Wanted

_log = logging.getLogger(__name__)

MAX_ENTRIES: Final = 10_000
PROVED_SECONDS: Final = 600.0

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many attempts may fail at once, and one more each ``seconds``."""

    burst: int
    seconds: float


OF_ADDRESS: Final = Rate(burst=30, seconds=2)
OF_PAIR: Final = Rate(burst=5, seconds=10)


@dataclass(slots=True)
class _Bucket:
    """What is left of a rate. Attempts whose outcome is not known yet hold a token each, so that no more than those can fail."""

    rate: Rate
    tokens: float
    filled_at: float
    trying: int = 0
    is_told: bool = False
    settled: asyncio.Event | None = None

    def fill(self, moment: float) -> None:
        self.tokens = min(self.rate.burst, self.tokens + (moment - self.filled_at) / self.rate.seconds)
        self.filled_at = moment
        if self.tokens == self.rate.burst:
            self.is_told = False

    @property
    def is_taken(self) -> bool:
        return self.tokens - self.trying < 1

    @property
    def seconds_to_wait(self) -> float:
        return (1 - self.tokens) * self.rate.seconds

    async def wait(self) -> None:
        """Until the outcome of one attempt is known."""
        self.settled = self.settled or asyncio.Event()
        await self.settled.wait()

    def settle(self, origin: str, *, has_failed: bool) -> None:
        self.trying -= 1
        self.tokens -= has_failed
        if self.settled is not None:
            self.settled.set()
            self.settled = None
        if self.tokens < 1 and not self.is_told:
            self.is_told = True
            _log.warning("a caller who fails to prove an identity is slowed", extra={"address": origin, "failed": self.rate.burst})


class _Recent(OrderedDict[Key, Value]):
    """The entries that were used last."""

    def keep(self, key: Key, value: Value) -> Value:
        self[key] = value
        self.move_to_end(key)
        if len(self) > MAX_ENTRIES:
            self.popitem(last=False)
        return value


class GuessLimiter:
    """A verifier that asks another, unless too many attempts have failed.

    A token that proved right at the same address within ten minutes is no guess: it is always looked up, so an honest client keeps
    working beside a guesser. So does every other right token while its address is not limited: attempts wait for the outcome of
    those before them rather than be refused for what may not fail.
    """

    def __init__(self, verifier: BearerVerifier, clock: Callable[[], float] = monotonic) -> None:
        self._verifier = verifier
        self._clock = clock
        self._addresses: _Recent[str, _Bucket] = _Recent()
        self._pairs: _Recent[tuple[str, str], _Bucket] = _Recent()
        self._proved: _Recent[tuple[str, bytes], float] = _Recent()
        self._digest_key = secrets.token_bytes(16)

    async def verify(self, token: str, address: str | None, wanted: Wanted | None = None) -> Identity:
        """See ``BearerVerifier.verify``.

        Raises:
            UnauthenticatedError: the token proves nothing.
            TooManyAttemptsError: it was not looked at; costs no look into the database.
        """
        origin = origin_of(address)
        mark = (origin, blake2b(token.encode(), key=self._digest_key, digest_size=16).digest())
        held = [] if self._has_proved(mark) else await self._hold(token, mark)
        has_failed = False
        try:
            identity = await self._verifier.verify(token, address, wanted)
        except UnauthenticatedError:
            has_failed = True
            self._proved.pop(mark, None)
            raise
        finally:
            for bucket in held:
                bucket.settle(origin, has_failed=has_failed)
        self._proved.keep(mark, self._clock())
        return identity

    async def _hold(self, token: str, mark: tuple[str, bytes]) -> list[_Bucket]:
        """A token of each bucket for one attempt; none when the same token proved right meanwhile."""
        key = read_token(token)
        origin = mark[0]
        while not self._has_proved(mark):
            buckets = [self._bucket(self._addresses, origin, OF_ADDRESS)]
            if key is not None:
                buckets.append(self._bucket(self._pairs, (origin, key.prefix), OF_PAIR))
            taken = [bucket for bucket in buckets if bucket.is_taken]
            empty = [bucket for bucket in taken if not bucket.trying]
            if empty:
                raise TooManyAttemptsError(max(1, ceil(max(bucket.seconds_to_wait for bucket in empty))))
            if not taken:
                for bucket in buckets:
                    bucket.trying += 1
                return buckets
            await taken[0].wait()
        return []

    def _bucket(self, buckets: _Recent[Key, _Bucket], key: Key, rate: Rate) -> _Bucket:
        moment = self._clock()
        bucket = buckets.keep(key, buckets.get(key) or _Bucket(rate, rate.burst, moment))
        bucket.fill(moment)
        return bucket

    def _has_proved(self, mark: tuple[str, bytes]) -> bool:
        proved_at = self._proved.get(mark)
        return proved_at is not None and self._clock() - proved_at < PROVED_SECONDS
