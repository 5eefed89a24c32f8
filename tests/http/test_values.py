"""A value of another kind is refused, not read as something it does not say; and a filter without a text is none."""

from typing import Any

import pytest

from tests.conftest import Caller

pytestmark = pytest.mark.anyio

RUN = {"operation": "run"}
KEY = {"name": "k", "role": "PROJECT_VIEWER"}
GRANT = {"actor_type": "USER", "actor_id": "bob", "role": "PROJECT_VIEWER"}


@pytest.fixture
async def project(alice: Caller) -> Any:
    return await alice.new_project((await alice.new_organization())["id"])


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/executions", {**RUN, "confidence": False}, "/confidence"),
        ("/executions", {**RUN, "timeout_seconds": True}, "/timeout_seconds"),
        ("/api-keys", {**KEY, "may_act_for_others": 1}, "/may_act_for_others"),
        ("/api-keys", {**KEY, "may_act_for_others": "yes"}, "/may_act_for_others"),
        ("/api-keys", {**KEY, "expires_at": 4_000_000_000}, "/expires_at"),
        ("/api-keys", {**KEY, "expires_at": "4000000000"}, "/expires_at"),
        ("/memberships", {**GRANT, "expires_at": 4e9}, "/expires_at"),
    ],
)
async def test_a_flag_is_no_number_and_a_number_neither_a_flag_nor_a_time(
    alice: Caller, project: Any, path: str, body: dict[str, Any], pointer: str
) -> None:
    places = {
        "/executions": {"organization_id": project["organization_id"], "project_id": project["id"]},
        "/api-keys": {"scope_type": "PROJECT", "scope_id": project["id"]},
        "/memberships": {"resource_type": "PROJECT", "resource_id": project["id"]},
    }
    problem = (await alice.post(path, {**body, **places[path]}, 422)).json()
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]


async def test_usage_and_cost_are_numbers(alice: Caller, project: Any) -> None:
    body = {**RUN, "organization_id": project["organization_id"], "project_id": project["id"]}
    run = (await alice.post("/executions", body)).json()
    ends = {"usage": {"input_tokens": True}, "cost": {"amount": False}}
    problem = (await alice.post(f"/executions/{run['id']}/complete", ends, 422)).json()
    assert {fault["pointer"] for fault in problem["errors"]} == {"/usage/input_tokens", "/cost/amount"}
    ended = (
        await alice.post(f"/executions/{run['id']}/complete", {"usage": {"input_tokens": "3"}, "cost": {"amount": "0.50"}}, 200)
    ).json()
    assert (ended["usage"]["input_tokens"], ended["cost"]["amount"]) == (3, "0.50")


async def test_a_number_of_unknown_unit_bounds_no_prune(alice: Caller, project: Any) -> None:
    params = {"organization_id": project["organization_id"]}
    before = (await alice.get("/audit-events", params=params)).json()["total_items"]
    for bound in ("4000000000", "0.5"):
        await alice.delete("/audit-events", 422, params={**params, "occurred_to": bound})
        await alice.get("/audit-events", 422, params={**params, "occurred_from": bound})
    assert (await alice.get("/audit-events", params={**params, "occurred_to": "2099-12-31T23:59:59Z"})).json()["total_items"] == before


async def test_a_filter_without_a_text_filters_nothing(alice: Caller, project: Any) -> None:
    for blank in ("", "  "):
        assert [found["id"] for found in (await alice.get("/projects", params={"name_contains": blank})).json()["items"]] == [project["id"]]


async def test_spans_come_in_a_list(alice: Caller, project: Any) -> None:
    path = f"/projects/{project['id']}/otlp/v1/traces"
    refused: list[Any] = [{}, "", 0, False]
    for wrong in refused:
        await alice.post(path, {"resourceSpans": wrong}, 400)
    taken: list[dict[str, Any]] = [{"resourceSpans": None}, {"resourceSpans": []}, {}]
    for nothing in taken:
        await alice.post(path, nothing, 200)
