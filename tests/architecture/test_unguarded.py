"""The first two of the five fences: a route without a guard is a TypeError at import and stops the start."""

from typing import Any

import pytest

from app.api import RESOURCES
from app.core.permissions import Action
from app.http.guards import guard
from app.http.routes import ACTIONS, OPEN_BECAUSE, Routes, UnguardedRouteError
from app.http.targets import everything, the_project
from tests.support.application import make_app

Declare = dict[str, Any]


async def read_leak() -> None:
    """A handler that forgot its guard."""


@pytest.mark.parametrize("method", ["get", "post", "patch", "delete"])
@pytest.mark.parametrize("given", [{}, {"allow": Action.PROJECT_READ}, {"on": the_project}])
def test_a_route_without_action_or_target_cannot_be_declared(method: str, given: Declare) -> None:
    with pytest.raises(TypeError, match=r"missing .* required keyword-only argument"):
        getattr(Routes("leaks"), method)("/leaks", **given)


def test_a_public_route_without_a_reason_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="'because'"):
        Routes("leaks").public("GET", "/leaks")  # type: ignore[call-arg]


def test_a_list_over_everything_needs_exactly_one_action() -> None:
    with pytest.raises(TypeError, match="exactly one action"):
        guard((Action.PROJECT_READ, Action.DOCUMENT_READ), everything)


@pytest.mark.parametrize(
    "extra",
    [{}, {ACTIONS: []}, {ACTIONS: ["PROJECT_READ"]}, {OPEN_BECAUSE: ""}, {OPEN_BECAUSE: "  "}],
    ids=["nothing", "no action", "an action without a guard", "no reason", "a blank reason"],
)
def test_the_service_does_not_start_with_an_unguarded_route(
    extra: Declare, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaks = Routes("leaks")
    leaks._declare("GET", "/leaks", None, extra)(read_leak)
    monkeypatch.setattr("app.main.RESOURCES", (*RESOURCES, leaks))
    with pytest.raises(UnguardedRouteError, match="/api/leaks"):
        make_app(tmp_path_factory.mktemp("app"))


def test_the_service_starts_with_the_same_route_behind_a_guard(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe = Routes("safe")
    safe.get("/safe", allow=Action.PROJECT_READ, on=everything)(read_leak)
    monkeypatch.setattr("app.main.RESOURCES", (*RESOURCES, safe))
    make_app(tmp_path_factory.mktemp("app"))
