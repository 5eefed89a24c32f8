"""Every route names an action or a reason, stands in the documentation, and is called verb and noun."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api import RESOURCES
from app.http.problems import MEDIA_TYPE
from app.http.routes import ACTIONS, OPEN_BECAUSE
from tests.support.application import OPS, Operation, api_routes, make_app, operations, other_paths

# Grows with every resource: a walk that sees nothing must not pass.
AT_LEAST = 31
# Open to whoever is known; each has its rule in its service.
PUBLIC = {
    *("create_organization", "check_authorization", "check_authorizations", "explain_authorization", "list_effective_roles"),
    *("list_objects", "list_actions", "simulate_grants", "read_policy", "read_me"),
    *("evaluate_access", "evaluate_accesses", "search_subjects", "search_resources", "search_actions"),
}
VERBS = {
    "GET": {"list", "read", "download", "export", "explain", "verify"},
    "POST": {
        *("create", "grant", "add", "start", "complete", "fail", "cancel", "beat", "rotate", "revoke", "import", "record"),
        *("check", "explain", "list", "simulate", "evaluate", "search"),
    },
    "PATCH": {"update"},
    "DELETE": {"delete", "revoke", "remove", "prune"},
}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return make_app(tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def routes(app: FastAPI) -> list[APIRoute]:
    return api_routes(app)


@pytest.fixture(scope="module")
def documented(app: FastAPI) -> list[Operation]:
    return [operation for operation in operations(app) if operation.is_of_the_api]


def declared(route: APIRoute) -> dict[str, object]:
    return dict(route.openapi_extra or {})


def test_the_walk_sees_every_route_a_resource_declares(routes: list[APIRoute]) -> None:
    assert len(routes) >= AT_LEAST
    assert len(routes) == sum(len(resource.build("/api")) for resource in RESOURCES)


def test_every_route_has_a_guard_for_its_action_or_a_reason(routes: list[APIRoute]) -> None:
    for route in routes:
        guards = [dependency.dependency for dependency in route.dependencies]
        if route.name in PUBLIC:
            assert len(str(declared(route)[OPEN_BECAUSE]).split()) > 5, f"{route.name}: that is no reason"
            assert not guards
        else:
            assert declared(route)[ACTIONS], route.name
            assert OPEN_BECAUSE not in declared(route), f"{route.name} is open and not in the list here"
            assert [getattr(guard, "__qualname__", "").partition(".")[0] for guard in guards] == ["guard"], route.name


def test_nothing_else_is_served_beside_the_api(app: FastAPI) -> None:
    assert other_paths(app) == {*OPS, "/metrics", "/openapi.json", "/docs", "/redoc", "/static"}


def test_the_documentation_has_exactly_the_routes(routes: list[APIRoute], documented: list[Operation], app: FastAPI) -> None:
    served = {(method.lower(), route.path) for route in routes for method in route.methods or ()}
    assert len(served) == len(routes), "a route with several methods would share one operation id"
    assert {(operation.method, operation.path) for operation in documented} == served
    assert {operation.path for operation in operations(app)} - {operation.path for operation in documented} == OPS


def test_operation_ids_are_unique_and_are_the_handlers_names(routes: list[APIRoute], app: FastAPI) -> None:
    ids = [operation.id for operation in operations(app)]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    assert {route.endpoint.__name__ for route in routes} <= set(ids)


def test_handlers_are_named_verb_and_noun(routes: list[APIRoute]) -> None:
    for route in routes:
        (method,) = route.methods or {"no method"}
        verb, _, noun = route.name.partition("_")
        assert verb in VERBS[method], f"{method} {route.path} is called {route.name}"
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", noun), route.name


def test_path_parameters_carry_their_noun(routes: list[APIRoute]) -> None:
    names = {name for route in routes for name in re.findall(r"{(\w+)}", route.path)}
    assert names
    assert {name for name in names if name in {"id", "name"}} == set()


def test_every_operation_documents_its_problems(documented: list[Operation]) -> None:
    for operation in documented:
        answers = operation.body["responses"]
        expected = {"400", "401", "422", "429", "503"} | set(_expected(operation))
        assert expected <= set(answers), f"{operation.id} lacks {sorted(expected - set(answers))}"
        for status, answer in answers.items():
            if status >= "400":
                assert list(answer["content"]) == [MEDIA_TYPE], f"{operation.id} {status}"
                assert answer["content"][MEDIA_TYPE]["schema"] == {"$ref": "#/components/schemas/Problem"}


SECRET = {"list_who_can", "explain_who_can"}


def _expected(operation: Operation) -> Iterator[str]:
    if operation.body.get(ACTIONS):
        yield "404" if operation.id in SECRET else "403"
    if "{" in operation.path:
        yield "404"
    if "requestBody" in operation.body:
        yield from ("408", "409", "413")
    if operation.method in {"patch", "delete"} and "{" in operation.path:
        yield "412"


def test_the_base_path_moves_every_route(tmp_path: Path) -> None:
    for resource in RESOURCES:
        assert {route.path.startswith("/v9/") for route in resource.build("/v9")} == {True}
