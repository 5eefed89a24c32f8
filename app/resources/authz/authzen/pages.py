"""Pages of what a search finds. A token is bound to its search and carries the limit, because clients need not repeat that."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from app.core.errors import InvalidError
from app.core.pagination import fingerprint
from app.resources.authz.authzen.schemas import PageAsked, PageRead
from app.resources.authz.schemas import MAX_LISTED


@dataclass(frozen=True, slots=True)
class Page:
    """The ``limit`` results after one of them. A limit of 0 asks for the total alone."""

    after: str | None
    limit: int
    bound_to: str

    @property
    def id_after(self) -> UUID | None:
        """The same where results are told by UUIDs.

        Raises:
            InvalidError: the token was tampered with.
        """
        try:
            return None if self.after is None else UUID(self.after)
        except ValueError:
            raise _not_of_this_search() from None

    def cut(self, names: Sequence[str]) -> tuple[Sequence[str], PageRead]:
        """This page of sorted names."""
        rest = [name for name in names if self.after is None or name > self.after]
        shown = rest[: self.limit]
        return shown, self.show(shown, len(names), has_more=len(rest) > len(shown))

    def show(self, shown: Sequence[str], total: int, *, has_more: bool) -> PageRead:
        """What the answer says of this page."""
        token = _encode(Page(shown[-1] if shown else self.after, self.limit, self.bound_to)) if has_more else ""
        return PageRead(next_token=token, count=len(shown), total=total)


def page_of(asked: PageAsked | None, *search: str) -> Page:
    """The page that is asked for, of the search that these words make up.

    Raises:
        InvalidError: the token is of another search or another limit.
    """
    bound_to = fingerprint({"authzen": search})
    limit = min(asked.limit, MAX_LISTED) if asked is not None and asked.limit is not None else None
    if asked is None or not asked.token:
        return Page(None, MAX_LISTED if limit is None else limit, bound_to)
    page = _decode(asked.token)
    if page.bound_to != bound_to or limit not in {None, page.limit}:
        raise _not_of_this_search()
    return page


def _encode(page: Page) -> str:
    text = json.dumps([page.after, page.limit, page.bound_to], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(token: str) -> Page:
    try:
        after, limit, bound_to = json.loads(base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4)))
    except (ValueError, TypeError, RecursionError):
        raise _not_of_this_search() from None
    if type(limit) is not int or not 0 <= limit <= MAX_LISTED or not isinstance(after, str | None):
        raise _not_of_this_search()
    return Page(after, limit, bound_to)


def _not_of_this_search() -> InvalidError:
    return InvalidError("is not a token of this search and limit", pointer="/page/token", code="invalid_cursor")
