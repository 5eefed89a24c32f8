"""Headers that tell browsers and caches what not to do with an answer."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.http.problems import make_problem
from app.http.requests import request_info

Header = tuple[bytes, bytes]

_ALWAYS: Final[tuple[Header, ...]] = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_NO_PAGE: Final[Header] = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_ASK_AGAIN: Final[Header] = (b"cache-control", b"private, no-cache")
_KEEP_NOTHING: Final[Header] = (b"cache-control", b"no-store")  # answers to writes: new secrets of API keys among them
_EXPOSED: Final = (
    "ETag",
    "Location",
    "Link",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "X-Request-ID",
    "Content-Disposition",
    "Content-Range",
    "Accept-Ranges",
    "WWW-Authenticate",
)
_ALLOWED: Final = (
    "Authorization",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Range",
    "X-Request-ID",
    "X-Correlation-ID",
    "traceparent",
    "tracestate",
    "baggage",
    "X-SaaSBase-On-Behalf-Of",
)


def marks_of(scope: Scope, headers: Iterable[Header], hsts_seconds: int) -> Iterator[Header]:
    """What every answer gets in addition to its own headers, the request's id first: nothing it says itself is said again."""
    yield b"x-request-id", request_info(scope).request_id.encode()
    yield from _ALWAYS
    said = {name for name, _ in headers}
    if b"content-security-policy" not in said:
        yield _NO_PAGE
    if b"cache-control" not in said:
        yield _ASK_AGAIN if scope["method"] in {"GET", "HEAD"} else _KEEP_NOTHING
    if hsts_seconds:
        yield b"strict-transport-security", b"max-age=%d" % hsts_seconds


class ProblemCORSMiddleware(CORSMiddleware):
    """Starlette's, but who is refused is answered with a problem like everybody else."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks first."""
        answer = super().preflight_response(request_headers)
        return answer if answer.status_code == 200 else _Refusal(answer)  # noqa: PLR2004 - a success


class _Refusal(Response):
    def __init__(self, refused: Response) -> None:
        super().__init__()
        self._detail = f"{bytes(refused.body).decode()}."
        self._said = {name: value for name, value in refused.headers.items() if not name.startswith("content-")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await make_problem(scope, 400, "cors_refused", self._detail, headers=self._said)(scope, receive, send)


def cors_options(origins: tuple[str, ...], actor_header: str) -> dict[str, Any]:
    """Arguments of Starlette's CORS middleware. Without credentials: the service knows no cookies, and a bearer token is a header."""
    return {
        "allow_origins": origins,
        "allow_methods": ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
        "allow_headers": (*_ALLOWED, actor_header),
        "expose_headers": _EXPOSED,
        "max_age": 600,
    }
