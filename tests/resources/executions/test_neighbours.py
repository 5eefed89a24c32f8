"""Executions that hang together across projects: each goes with its own."""

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import count_rows, events_of
from tests.support.record import new_execution, new_place
from tests.support.spans import new_trace, send, span, span_id, stored

pytestmark = pytest.mark.anyio


async def test_a_project_that_is_deleted_takes_nothing_of_its_neighbours_along(service: Service, alice: Caller, mallory: Caller) -> None:
    organization, project = await new_place(alice)
    other = await alice.new_project(organization["id"])
    await alice.grant("PROJECT", project["id"], "user:mallory", "PROJECT_OWNER")
    root = await new_execution(mallory, project, operation="root")
    inner = await new_execution(mallory, project, parent_execution_id=root["id"], operation="inner")
    child = await new_execution(alice, other, parent_execution_id=inner["id"], operation="child", metadata={"a": 1})
    below = await new_execution(alice, other, parent_execution_id=child["id"], operation="below")
    await alice.post(f"/executions/{child['id']}/events", {"name": "step"})
    await mallory.get(f"/executions/{child['id']}", 404)
    before = await events_of(alice, project_id=other["id"], outcome="SUCCESS")
    await mallory.delete(f"/projects/{project['id']}")
    await alice.get(f"/executions/{root['id']}", 404)
    await alice.get(f"/executions/{inner['id']}", 404)
    assert (await alice.get(f"/executions/{child['id']}")).json() == {**child, "parent_execution_id": None}
    assert (await alice.get(f"/executions/{below['id']}")).json() == below
    assert (await alice.get(f"/executions/{child['id']}/events")).json()["total_items"] == 1
    assert await events_of(alice, project_id=other["id"], outcome="SUCCESS") == before
    tree = (await alice.get(f"/executions/{child['id']}/tree")).json()["root"]
    assert (tree["id"], [node["id"] for node in tree["children"]]) == (child["id"], [below["id"]])
    later = await new_execution(alice, other, parent_execution_id=child["id"], operation="later")
    line = (await alice.get(f"/executions/{child['id']}/timeline")).json()
    assert [row["id"] for row in line["items"]] == [child["id"], below["id"], later["id"]]
    await alice.post(f"/executions/{child['id']}/complete", {}, 200)
    await alice.delete(f"/projects/{other['id']}")
    assert await count_rows(service, "executions") == 0


async def test_an_organization_is_deleted_with_executions_that_hang_together_across_its_projects(service: Service, alice: Caller) -> None:
    organization, project = await new_place(alice)
    others = [await alice.new_project(organization["id"]) for _ in range(2)]
    _, spared = await new_place(alice)
    kept = await new_execution(alice, spared)
    above = (await new_execution(alice, project))["id"]
    for place in (*others, project, *others, project):
        above = (await new_execution(alice, place, parent_execution_id=above))["id"]
    await alice.delete(f"/organizations/{organization['id']}")
    assert await count_rows(service, "executions") == 1
    await alice.get(f"/executions/{kept['id']}")


async def test_a_span_that_another_project_has_is_rejected_and_no_project_named(alice: Caller, bob: Caller) -> None:
    organization, project = await new_place(alice)
    other = await alice.new_project(organization["id"])
    await alice.grant("PROJECT", other["id"], "user:bob", "PROJECT_EDITOR")
    trace = new_trace()
    await send(bob, other, span(trace, span_id(1), name="squatted"))
    answer = (await send(alice, project, span(trace, span_id(1)), span(trace, span_id(2), span_id(1)))).json()["partialSuccess"]
    told = {"rejectedSpans": "1", "errorMessage": "1 rejected: a span with its ids is known outside this project"}
    assert answer == told
    (imported,) = await events_of(alice, action="EXECUTIONS_IMPORTED", project_id=project["id"])
    assert [imported["details"][name] for name in ("stored", "known", "rejected")] == [1, 0, 1]
    again = (await send(alice, project, span(trace, span_id(1)), span(trace, span_id(2), span_id(1)))).json()["partialSuccess"]
    assert again == told
    assert list(await stored(alice, project)) == [span_id(2)]
    assert (await stored(alice, other))[span_id(1)]["operation"] == "squatted"
