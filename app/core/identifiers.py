"""Identifiers that sort by the time they were made."""

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last_tick = 0


def new_id() -> UUID:
    """A UUID version 7 (RFC 9562, method 3: the 12 bits after the milliseconds are a finer clock).

    Ids made by one process are strictly increasing, so the id is a tie-breaker in every order by time.
    """
    global _last_tick  # noqa: PLW0603 - the counter is the point
    with _lock:
        nanoseconds = time.time_ns()
        tick = (nanoseconds // 1_000_000 << 12) | (nanoseconds % 1_000_000 * 4096 // 1_000_000)
        tick = max(tick, _last_tick + 1)
        _last_tick = tick
    random = int.from_bytes(os.urandom(8)) >> 2
    return UUID(int=(tick >> 12) << 80 | 0x7 << 76 | (tick & 0xFFF) << 64 | 0b10 << 62 | random)
