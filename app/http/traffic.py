"""The requests under way in this process, and whether it wants more."""

import asyncio
from contextlib import suppress

_PAUSE_SECONDS = 0.02


class Traffic:
    """Counts requests from their first byte to the last of their answer."""

    def __init__(self) -> None:
        self.is_draining = False
        self._under_way = 0

    def begin(self) -> None:
        """A request has come."""
        self._under_way += 1

    def end(self) -> None:
        """It is over, whatever became of it."""
        self._under_way -= 1

    async def wait_until_over(self, seconds: float) -> None:
        """Until no request is under way, but no longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._under_way:  # noqa: ASYNC110 - once in the life of a process; an event would cost every request
                    await asyncio.sleep(_PAUSE_SECONDS)
