"""Headers that tell browsers and caches what not to do with an answer."""

from collections.abc import Iterator
from typing import Any, Final

from starlette.types import Message, Scope

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


def protections_of(scope: Scope, start: Message, hsts_seconds: int) -> Iterator[Header]:
    """What an answer gets in addition: nothing it says itself is said again."""
    yield from _ALWAYS
    said = {name for name, _ in start["headers"]}
    if b"content-security-policy" not in said:
        yield _NO_PAGE
    if b"cache-control" not in said:
        yield _ASK_AGAIN if scope["method"] in {"GET", "HEAD"} else _KEEP_NOTHING
    if hsts_seconds:
        yield b"strict-transport-security", b"max-age=%d" % hsts_seconds


def cors_options(origins: tuple[str, ...], actor_header: str) -> dict[str, Any]:
    """Arguments of Starlette's CORS middleware. Without credentials: the service knows no cookies, and a bearer token is a header."""
    return {
        "allow_origins": origins,
        "allow_methods": ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
        "allow_headers": (*_ALLOWED, actor_header),
        "expose_headers": _EXPOSED,
        "max_age": 600,
    }
