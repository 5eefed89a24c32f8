"""Token buckets in the memory of one process, bounded."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import monotonic
from typing import Final, Protocol

WINDOW_SECONDS: Final = 60
MAX_CALLERS: Final = 50_000
_ONE: Final = 1 - 1e-9  # what is left of one token after sums of fractions


@dataclass(frozen=True, slots=True)
class Standing:
    """What a caller has left of its quota after it asked for one request more."""

    quota: int
    remaining: int
    seconds_to_full: int
    seconds_to_wait: int
    """0 when the request may go on."""

    @classmethod
    def of(cls, quota: int, tokens: float, *, is_refused: bool = False) -> "Standing":
        """The standing with so many tokens left of a minute's quota."""
        rate = quota / WINDOW_SECONDS
        wait = max(1, ceil((1 - tokens) / rate)) if is_refused else 0
        return cls(quota, int(tokens + 1 - _ONE), ceil(max(0, quota - tokens) / rate), wait)


class Limiter(Protocol):
    """Counts the requests of callers."""

    async def take(self, caller: str, quota: int) -> Standing:
        """One token of the caller's bucket, which holds a minute's quota and is refilled steadily.

        Raises:
            UnavailableError: the buckets lie elsewhere and cannot be had.
        """

    async def forget(self) -> None:
        """Remove what tells nothing any more. To do every minute."""


class LocalLimiter:
    """Counts in this process: of several workers each for itself. The bucket used longest ago, which is most likely full, goes first."""

    def __init__(self, clock: Callable[[], float] = monotonic, max_callers: int = MAX_CALLERS) -> None:
        self._clock = clock
        self._max_callers = max_callers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def take(self, caller: str, quota: int) -> Standing:
        """See ``Limiter.take``."""
        moment = self._clock()
        tokens, filled_at = self._buckets.get(caller, (quota, moment))
        tokens = min(quota, tokens + (moment - filled_at) * quota / WINDOW_SECONDS)
        is_refused = tokens < _ONE
        if not is_refused:
            tokens = max(0, tokens - 1)
        self._buckets[caller] = tokens, moment
        self._buckets.move_to_end(caller)
        if len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        return Standing.of(quota, tokens, is_refused=is_refused)

    async def forget(self) -> None:
        """Nothing: what is kept is bounded."""
