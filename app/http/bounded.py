"""Lists that answer a plain array: bounded, with a link to where the rest is."""

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from app.core.pagination import CursorPage, CursorRequest, Page
from app.http.runtime import runtime_of
from app.http.schemas import MAX_SIZE, ItemT, ListQuery

MAX_UNPAGED: Final = 1000

Fetch = Callable[[CursorRequest], Awaitable[Page[Any] | CursorPage[Any]]]


async def bounded(  # noqa: PLR0913 - what a bounded list consists of
    request: Request, response: Response, query: ListQuery, path: str, *, read: type[ItemT], fetch: Fetch
) -> list[ItemT]:
    """The first 1000 rows of ``query``; when there are more, a ``Link`` to the keyset pages of ``path`` that continues here."""
    page = await fetch(query.keyset(MAX_UNPAGED))
    if isinstance(page, CursorPage) and page.next_cursor is not None:
        parameters = urlencode({**query.filters(), "limit": MAX_SIZE, "cursor": page.next_cursor})
        response.headers["Link"] = f'<{runtime_of(request).base_path}{path}?{parameters}>; rel="next"'
    return [read.model_validate(row) for row in page.items]
