"""Lists that answer a plain array: bounded, with a link to where the rest is."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from app.core.pagination import CursorPage, CursorRequest, Page, fingerprint
from app.http.described import Described
from app.http.runtime import runtime_of
from app.http.schemas import MAX_SIZE, ItemT, ListQuery, read_cursor, show_rows

MAX_UNPAGED: Final = 1000


class ArrayQuery(Described):
    """Query parameters of a list that is an array on every page of it."""

    limit: Annotated[int, Field(ge=1, le=MAX_UNPAGED)] = MAX_UNPAGED
    """At most this many; a `Link` header with `rel="next"` leads to the rest."""
    cursor: Annotated[str, Field(max_length=4096)] | None = None
    """Continue: taken from the `Link`."""

    def given(self) -> dict[str, Any]:
        """The filters that were given, as values."""
        own = type(self).model_fields.keys() - ArrayQuery.model_fields.keys()
        return {name: value for name in own if (value := getattr(self, name)) is not None}

    def request(self, sort: str, **bound_to: Any) -> CursorRequest:
        """The page that is asked for of the list that ``bound_to`` names.

        Raises:
            InvalidError: a cursor of another list.
        """
        bound = fingerprint(bound_to)
        return CursorRequest(self.limit, sort, descending=False, after=read_cursor(self.cursor, bound), fingerprint=bound)


Fetch = Callable[[CursorRequest], Awaitable[Page[Any] | CursorPage[Any]]]


async def bounded(  # noqa: PLR0913 - what a bounded list consists of
    request: Request, response: Response, query: ListQuery, path: str, *, read: type[ItemT], fetch: Fetch
) -> list[ItemT]:
    """The first 1000 rows of ``query``; when there are more, a ``Link`` to the keyset pages of ``path`` that continues here."""
    page = await fetch(query.keyset(MAX_UNPAGED))
    if isinstance(page, CursorPage) and page.next_cursor is not None:
        parameters = urlencode({**query.filters(), "limit": MAX_SIZE, "cursor": page.next_cursor})
        response.headers["Link"] = f'<{runtime_of(request).base_path}{path}?{parameters}>; rel="next"'
    return show_rows(page.items, read)


def link_next(request: Request, response: Response, query: ArrayQuery, page: Page[Any] | CursorPage[Any]) -> None:
    """Say in a ``Link`` where the array goes on, if it does: at the same address."""
    if isinstance(page, CursorPage) and page.next_cursor is not None:
        parameters = urlencode({**query.model_dump(mode="json", exclude={"cursor"}, exclude_none=True), "cursor": page.next_cursor})
        response.headers["Link"] = f'<{quote(request.scope["path"])}?{parameters}>; rel="next"'
