"""The index of routes: which path finds which route."""

from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from app.http.routing import RouteIndex

pytestmark = pytest.mark.anyio


async def endpoint() -> None:
    """Never called: a route is looked up, not served."""


def index(*declared: str) -> RouteIndex:
    """An index of routes written ``METHOD /path``; each route's name is its declaration."""
    routes = [APIRoute(text.split()[1], endpoint, methods=[text.split()[0]], name=text) for text in declared]
    return RouteIndex(routes, max_body_bytes=100)


def ask(found_by: RouteIndex, method: str, path: str) -> tuple[Match, Scope]:
    return found_by.matches({"type": "http", "method": method, "path": path, "root_path": "", "headers": []})


def find(found_by: RouteIndex, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    match, scope = ask(found_by, method, path)
    return (scope["route"].name, scope["path_params"]) if match is Match.FULL else None


def test_a_path_finds_its_route_and_its_parameters() -> None:
    routes = index("GET /things", "POST /things", "GET /things/{thing_id}", "GET /things/{thing_id}/parts/{part_id}")
    assert find(routes, "GET", "/things") == ("GET /things", {})
    assert find(routes, "POST", "/things") == ("POST /things", {})
    assert find(routes, "GET", "/things/7") == ("GET /things/{thing_id}", {"thing_id": "7"})
    assert find(routes, "GET", "/things/a b/parts/%2F") == ("GET /things/{thing_id}/parts/{part_id}", {"thing_id": "a b", "part_id": "%2F"})


def test_literals_come_before_parameters_in_any_order_of_declaration() -> None:
    declared = ["GET /things/{thing_id}", "GET /things/all", "GET /things/all/{x}", "GET /things/{thing_id}/parts"]
    for order in (declared, declared[::-1]):
        routes = index(*order)
        assert find(routes, "GET", "/things/all") == ("GET /things/all", {})
        assert find(routes, "GET", "/things/al") == ("GET /things/{thing_id}", {"thing_id": "al"})
        assert find(routes, "GET", "/things/all/9") == ("GET /things/all/{x}", {"x": "9"})


def test_a_literal_that_leads_nowhere_is_left_again() -> None:
    routes = index("GET /a/b/c", "GET /a/{x}/d", "GET /{y}/b/{z}/e", "GET /{y}/{w}/{z}/f")
    assert find(routes, "GET", "/a/b/c") == ("GET /a/b/c", {})
    assert find(routes, "GET", "/a/b/d") == ("GET /a/{x}/d", {"x": "b"})
    assert find(routes, "GET", "/a/b/1/e") == ("GET /{y}/b/{z}/e", {"y": "a", "z": "1"})
    assert find(routes, "GET", "/a/b/1/f") == ("GET /{y}/{w}/{z}/f", {"y": "a", "w": "b", "z": "1"})
    assert ask(routes, "GET", "/a/b/1/g") == (Match.NONE, {})


def test_routes_may_name_the_same_parameter_differently() -> None:
    routes = index("GET /things/{thing_id}", "DELETE /things/{other_id}", "GET /things/{x}/parts")
    assert find(routes, "GET", "/things/1") == ("GET /things/{thing_id}", {"thing_id": "1"})
    assert find(routes, "DELETE", "/things/1") == ("DELETE /things/{other_id}", {"other_id": "1"})
    assert find(routes, "GET", "/things/1/parts") == ("GET /things/{x}/parts", {"x": "1"})


def test_an_unknown_path_is_no_match() -> None:
    routes = index("GET /things", "GET /things/{thing_id}", "GET /")
    for path in ("/thing", "/things/", "/things//", "/things/1/", "//things", "/things/1/2", "/Things", ""):
        assert ask(routes, "GET", path) == (Match.NONE, {}), path
    assert find(routes, "GET", "/") == ("GET /", {})
    assert routes.matches({"type": "websocket", "path": "/things"}) == (Match.NONE, {})


def test_get_answers_head_unless_head_has_its_own_route() -> None:
    routes = index("GET /things", "POST /others", "GET /own", "HEAD /own")
    assert find(routes, "HEAD", "/things") == ("GET /things", {})
    assert find(routes, "HEAD", "/own") == ("HEAD /own", {})
    assert ask(routes, "HEAD", "/others")[0] is Match.PARTIAL


async def test_another_method_is_refused_with_those_that_are_taken() -> None:
    routes = index("GET /things/{thing_id}", "PATCH /things/{thing_id}", "DELETE /things/{thing_id}", "POST /things")
    for path, allowed in (("/things/1", "DELETE, GET, HEAD, PATCH"), ("/things", "POST")):
        match, scope = ask(routes, "PUT", path)
        assert match is Match.PARTIAL
        with pytest.raises(HTTPException) as refused:
            await routes.handle({"type": "http", "method": "PUT", "path": path, **scope}, receive=endpoint, send=endpoint)  # type: ignore[arg-type]
        assert refused.value.status_code == 405
        assert refused.value.headers == {"Allow": allowed}


def test_two_routes_for_one_place_are_refused() -> None:
    for first, second in (("GET /a/b", "GET /a/b"), ("GET /a/{x}", "GET /a/{y}"), ("DELETE /{x}/{y}", "DELETE /{y}/{x}")):
        with pytest.raises(ValueError, match="two routes for"):
            index(first, second)
    index("GET /a/{x}", "GET /a/b", "POST /a/{x}")
