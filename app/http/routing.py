"""Finds the route of a request by walking the path's segments, however many routes there are.

Starlette tries one pattern after the other; with eighty routes that costs more than the request itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from fastapi.routing import APIRoute
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import BadRequestError, UnsupportedMediaTypeError
from app.http.problems import malformed_is_400
from app.http.requests import request_info

_SEGMENT_END: Final = "/"
UNLIMITED: Final = "x-unlimited-body"


@dataclass(slots=True)
class _Node:
    literals: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None
    routes: dict[str, tuple[APIRoute, tuple[str, ...]]] = field(default_factory=dict)


class RouteIndex(BaseRoute):
    """All API routes as one: a tree of path segments, literals before parameters. GET answers HEAD too (RFC 9110, 9.3.2)."""

    def __init__(self, routes: Iterable[APIRoute], *, max_body_bytes: int) -> None:
        self.routes = list(routes)
        self._max_body_bytes = max_body_bytes
        self._root = _Node()
        for route in self.routes:
            self._add(route)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Starlette's question whether this is the route; a known path with another method is a partial match."""
        if scope["type"] != "http":
            return Match.NONE, {}
        values: list[str] = []
        node = _find(self._root, get_route_path(scope).split(_SEGMENT_END)[1:], 0, values)
        if node is None:
            return Match.NONE, {}
        method = scope["method"]
        found = node.routes.get(method) or (node.routes.get("GET") if method == "HEAD" else None)
        if found is None:
            return Match.PARTIAL, {"allowed_methods": _allowed(node)}
        route, names = found
        return Match.FULL, {"endpoint": route.endpoint, "route": route, "path_params": dict(zip(names, values, strict=True))}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the route that ``matches`` put into the scope."""
        route = scope.get("route")
        if not isinstance(route, APIRoute):
            raise HTTPException(405, "This path does not take this method.", {"Allow": ", ".join(scope["allowed_methods"])})
        _require_json(scope, route)
        if not (route.openapi_extra or {}).get(UNLIMITED):
            receive = _limit_body(scope, receive, self._max_body_bytes)
        await route.app(scope, receive, send)

    def _add(self, route: APIRoute) -> None:
        node = self._root
        names: list[str] = []
        for segment in route.path.split(_SEGMENT_END)[1:]:
            if segment.startswith("{"):
                names.append(segment.strip("{}"))
                node.parameter = node = node.parameter or _Node()
            else:
                node = node.literals.setdefault(segment, _Node())
        for method in route.methods or ():
            if method in node.routes:
                raise ValueError(f"two routes for {method} {route.path}")
            node.routes[method] = (route, tuple(names))


class DirectRoutes:
    """The innermost ring: what is for a route of the index goes straight there, past what the application has for routes of other kinds."""

    def __init__(self, app: ASGIApp, *, index: RouteIndex) -> None:
        self._app = app
        self._index = index

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. What goes wrong in a route is raised."""
        match, found = self._index.matches(scope)
        if match is not Match.FULL:
            await self._app(scope, receive, send)
            return
        scope.update(found)
        await self._index.handle(scope, receive, send)


def redirect_slashes(router: Router) -> None:
    """Send whoever wrote slashes behind a path that there is to the path itself, with method and body (307).

    Not by its whole URL, as Starlette would: behind a proxy that ends TLS only that one knows scheme and host (RFC 9110, 10.2.2).
    """

    async def redirect_or_refuse(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"].rstrip(_SEGMENT_END)
        there_is = path != scope["path"] and any(route.matches({**scope, "path": path})[0] is not Match.NONE for route in router.routes)
        if not there_is:
            await router.not_found(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        await RedirectResponse(quote(path) + (f"?{query}" if query else ""))(scope, receive, send)

    router.redirect_slashes = False
    router.default = redirect_or_refuse


def _find(node: _Node, segments: list[str], place: int, values: list[str]) -> _Node | None:
    if place == len(segments):
        return node if node.routes else None
    segment = segments[place]
    below = node.literals.get(segment)
    found = _find(below, segments, place + 1, values) if below is not None else None
    if found is None and node.parameter is not None and segment:
        values.append(segment)
        found = _find(node.parameter, segments, place + 1, values)
        if found is None:
            values.pop()
    return found


def _allowed(node: _Node) -> Iterator[str]:
    yield from sorted({*node.routes, "HEAD"} if "GET" in node.routes else node.routes)


def _require_json(scope: Scope, route: APIRoute) -> None:
    if route.body_field is None:
        return
    head = request_info(scope).head
    if (head.first(b"content-length") or "0") == "0" and b"transfer-encoding" not in head:
        return
    main, _, kind = (head.first(b"content-type") or "").partition(";")[0].strip().lower().partition("/")
    if main != "application" or not (kind == "json" or kind.endswith("+json")):
        wrong = BadRequestError if malformed_is_400(route) else UnsupportedMediaTypeError
        raise wrong("The body has to be application/json.")


def _limit_body(scope: Scope, receive: Receive, limit: int) -> Receive:
    for announced in request_info(scope).head.all(b"content-length"):
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
    seen = 0

    async def receive_counted() -> Message:
        nonlocal seen
        message: dict[str, Any] = dict(await receive())
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return receive_counted


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The body is larger than {limit} bytes.")
