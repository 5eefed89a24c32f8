"""Things that end soon: on a quick machine soon enough not to be waited for, on a busy one late enough to have been there before."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import httpx

LAPSES = (2, 15, 60)


async def made_for_a_moment(make: Callable[[str], Awaitable[httpx.Response]]) -> tuple[httpx.Response, datetime]:
    """What is made with an end that is still to come when the service reads it, and that end."""
    for seconds in LAPSES:
        ends = datetime.now(UTC) + timedelta(seconds=seconds)
        made = await make(ends.isoformat())
        if made.is_success or datetime.now(UTC) < ends:
            break
    assert made.status_code == 201, made.text
    return made, ends


async def wait_for(moment: datetime) -> None:
    """Until it is over."""
    while (left := (moment - datetime.now(UTC)).total_seconds()) >= 0:
        await asyncio.sleep(left + 0.01)
