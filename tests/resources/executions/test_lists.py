"""Lists of executions: filters, order, pages, children, and what belongs together."""

from typing import Any, Final
from uuid import uuid4

import pytest

from tests.conftest import Caller
from tests.support.answers import events_of, pointers_of
from tests.support.record import ids_sorted, keyset_pages, new_execution, new_place, numbered_pages

pytestmark = pytest.mark.anyio

COLUMNS: Final = ("started_at", "ended_at", "operation", "status")
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"


async def _found(caller: Caller, **filters: Any) -> list[str]:
    page = (await caller.get("/executions", params=filters)).json()
    assert page["total_items"] == len(page["items"])
    return [item["id"] for item in page["items"]]


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_every_column_sorts_in_both_ways_of_paging_and_what_runs_comes_last(alice: Caller, direction: str) -> None:
    _, project = await new_place(alice)
    started = [await new_execution(alice, project, operation=f"o{number % 3}") for number in range(7)]
    for number, end in ((5, "fail"), (0, "complete"), (3, "complete")):
        await alice.post(f"/executions/{started[number]['id']}/{end}", {}, 200)
    executions = [(await alice.get(f"/executions/{execution['id']}")).json() for execution in started]
    for column in COLUMNS:
        wanted = ids_sorted(executions, column, descending=direction == "desc")
        for size in (1, 2, 3):  # 3 ends a page exactly where the values end
            found = await numbered_pages(alice, "/executions", size, sort=column.upper(), direction=direction)
            assert found == wanted, f"{column} in pages of {size}"
            found = await keyset_pages(alice, "/executions", size, sort=column, direction=direction)
            assert found == wanted, f"{column} in keyset pages of {size}"
    wanted = ids_sorted(executions, "started_at", descending=direction == "desc")
    assert await keyset_pages(alice, "/executions", 3, direction=direction) == wanted, "started_at is the order nobody asked for"


async def test_each_filter_is_exact_and_they_narrow_each_other(alice: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    other, elsewhere = await new_place(alice)
    given = {"correlation_id": "c" * 256, "operation": "ocr", "model_provider": "acme", "model_name": "m1"}
    parent = await new_execution(alice, project)
    target = {"target_type": "PROJECT", "target_id": project["id"]}
    wanted = await new_execution(alice, project, **given, **target, parent_execution_id=parent["id"])
    await alice.post(f"/executions/{wanted['id']}/fail", {}, 200)
    longer = {name: (value + "2")[-255:] for name, value in given.items()}
    beside = [await new_execution(alice, place, **longer) for place in (project, sibling, elsewhere)]
    filters = {**given, "status": "FAILED", "parent_execution_id": parent["id"], "target_resource_type": "PROJECT"}
    for name, value in filters.items():
        assert await _found(alice, **{name: value}) == [wanted["id"]], name
        assert await _found(alice, **{name: value, "project_id": sibling["id"]}) == []
    assert await _found(alice, organization_id=organization["id"], operation="ocr2") == [beside[0]["id"], beside[1]["id"]]
    assert await _found(alice, organization_id=other["id"]) == [beside[2]["id"]]
    assert await _found(alice, project_id=project["id"], status="RUNNING") == [parent["id"], beside[0]["id"]]
    assert await _found(alice, status="CANCELLED") == await _found(alice, operation="OCR") == await _found(alice, operation="o%") == []
    assert len(await _found(alice, correlation_id="")) == 5, "a filter without a text filters nothing"


async def test_a_filter_or_order_that_does_not_exist_is_refused(alice: Caller) -> None:
    for name, value in (
        *(("status", "running"), ("project_id", "x"), ("parent_execution_id", "x"), ("target_resource_type", "EXECUTION")),
        *(("correlation_id", "c" * 257), ("sort", "name"), ("sort", "confidence"), ("direction", "up"), ("model_name", "a\x00")),
    ):
        assert pointers_of(await alice.get("/executions", 422, params={name: value})) == [f"query.{name}"]


async def test_children_are_those_directly_below(alice: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    root = await new_execution(alice, project)
    children = [await new_execution(alice, project, parent_execution_id=root["id"]) for _ in range(2)]
    grandchild = await new_execution(alice, project, parent_execution_id=children[0]["id"])
    across = await new_execution(alice, sibling, parent_execution_id=root["id"])
    assert (await alice.get(f"/executions/{root['id']}/children")).json() == [*children, across]
    assert (await alice.get(f"/executions/{children[0]['id']}/children")).json() == [grandchild]
    assert (await alice.get(f"/executions/{grandchild['id']}/children")).json() == []
    await alice.get(f"/executions/{uuid4()}/children", 404)
    assert (await alice.get(f"/executions/by-project/{project['id']}")).json() == [root, *children, grandchild]
    await alice.get(f"/executions/by-project/{uuid4()}", 404)


async def test_children_in_a_project_the_caller_may_not_read_stay_hidden(alice: Caller, bob: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_VIEWER")
    root = await new_execution(alice, project, correlation_id="c")
    await new_execution(alice, sibling, parent_execution_id=root["id"], correlation_id="c")
    assert (await bob.get(f"/executions/{root['id']}/children")).json() == []
    assert await _found(bob, parent_execution_id=root["id"]) == []
    assert (await bob.get("/executions/by-correlation/c")).json() == [root]


async def test_an_execution_takes_its_correlation_from_the_request_unless_it_names_its_own(alice: Caller) -> None:
    _, project = await new_place(alice)
    place = {"organization_id": project["organization_id"], "project_id": project["id"], "operation": "op"}
    trace = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    for headers, body, wanted in (
        ({"X-Correlation-ID": "order 7"}, {}, "order 7"),
        (trace, {}, TRACE),
        ({**trace, "X-Correlation-ID": "order 7"}, {}, "order 7"),
        ({**trace, "X-Correlation-ID": "order 7"}, {"correlation_id": "own"}, "own"),
        ({"traceparent": "nonsense"}, {}, None),
    ):
        execution = (await alice.post("/executions", {**place, **body}, headers=headers)).json()
        assert execution["correlation_id"] == wanted
        event = (await events_of(alice, action="EXECUTION_STARTED"))[-1]
        assert (event["correlation_id"], event["details"]["execution_id"]) == (wanted, execution["id"])
        assert event["details"].get("request_correlation_id") == ("order 7" if wanted == "own" else None)
    for correlation, count in (("order 7", 2), (TRACE, 1), ("own", 1), ("OWN", 0)):
        found = (await alice.get(f"/executions/by-correlation/{correlation}")).json()
        assert [item["correlation_id"] for item in found] == [correlation] * count


async def test_the_longest_correlation_is_found_by_its_path(alice: Caller) -> None:
    _, project = await new_place(alice)
    execution = await new_execution(alice, project, correlation_id="c" * 256)
    assert (await alice.get(f"/executions/by-correlation/{'c' * 256}")).json() == [execution]


async def test_a_correlation_shared_by_two_tenants_shows_each_its_own(alice: Caller, mallory: Caller) -> None:
    for caller in (alice, mallory):
        _, project = await new_place(caller)
        own = [await new_execution(caller, project, correlation_id="shared") for _ in range(2)]
        assert (await caller.get("/executions/by-correlation/shared")).json() == own
