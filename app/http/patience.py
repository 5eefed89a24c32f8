"""How long a request waits for the bytes of its body."""

import asyncio
from time import monotonic
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from app.http.requests import RequestInfo

MIN_BYTES_PER_SECOND: Final = 100


def limit_waiting(receive: Receive, info: RequestInfo, seconds: float) -> Receive:
    """A ``receive`` that ends the request with 408 when nothing of its body comes for that long.

    Only time spent waiting for the client counts. Each byte that comes gives back a hundredth of a second, so a body that comes in
    drops ends too, and one that flows, however slowly, does not.
    """
    left = seconds
    is_over = False

    async def receive_in_time() -> Message:
        nonlocal left, is_over
        if is_over or info.status:  # what is awaited now is that the client goes away
            return await receive()
        began = monotonic()
        try:
            async with asyncio.timeout(left):
                message = await receive()
        except TimeoutError:
            detail = "The body of the request did not come in time."
            raise HTTPException(408, detail, {"Connection": "close"}) from None
        left = min(seconds, max(0, left - (monotonic() - began)) + len(message.get("body", b"")) / MIN_BYTES_PER_SECOND)
        is_over = not message.get("more_body", False)
        return message

    return receive_in_time
