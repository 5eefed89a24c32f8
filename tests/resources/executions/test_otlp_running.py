"""Spans that are sent while they run, and again when they have ended."""

import asyncio
from typing import Any

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import at_once, count_rows, events_of
from tests.support.record import new_place
from tests.support.spans import BEGIN, SECOND, new_trace, send, shape, span, span_id, stored

pytestmark = pytest.mark.anyio

USED = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 12, "gen_ai.output.messages": '[{"role": "assistant"}]'}


def running(trace_id: str, number: int, parent: int | None = None, **fields: Any) -> dict[str, Any]:
    return span(trace_id, span_id(number), span_id(parent) if parent is not None else None, endTimeUnixNano="0", **fields)


async def test_a_span_that_ran_is_ended_by_its_end(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    trace = new_trace()
    begun = running(trace, 1, name="begun", attributes={"gen_ai.conversation.id": "c", "gen_ai.input.messages": '[{"role": "user"}]'})
    await send(alice, project, begun, running(trace, 2, 1), running(trace, 3, 1))
    before = await stored(alice, project)
    assert {row["status"] for row in before.values()} == {"RUNNING"}
    failed = span(trace, span_id(2), span_id(1), status={"code": 2, "message": "it broke"}, attributes={"error.type": "Broken"})
    odd = {**USED, "own": "\U0001f600 \\u0041 \"'"}
    await send(alice, project, span(trace, span_id(1), name="ended", attributes=odd), failed, running(trace, 3, 1), span(trace, span_id(4)))
    after = await stored(alice, project)
    assert [after[span_id(number)]["status"] for number in range(1, 5)] == ["COMPLETED", "FAILED", "RUNNING", "COMPLETED"]
    assert after[span_id(3)] == before[span_id(3)]
    first, second = after[span_id(1)], after[span_id(2)]
    assert (first["operation"], first["kind"], first["session_id"], first["usage"]["input_tokens"]) == ("ended", "LLM", "c", 12)
    assert (first["output"], first["metadata"]["otel"]["attributes"]["own"]) == ({"messages": [{"role": "assistant"}]}, odd["own"])
    assert first["ended_at"] == "2025-11-20T18:11:57.062552Z"
    told_once = ("id", "started_at", "parent_execution_id", "root_execution_id", "actor", "created_at", "created_by_subject")
    assert {name: first[name] for name in told_once} == {name: before[span_id(1)][name] for name in told_once}
    assert (second["metadata"]["error_code"], second["metadata"]["error_message"]) == ("Broken", "it broke")
    assert await shape(alice, first["id"]) == ["ended", [span_id(2)], [span_id(3)]]
    assert (await alice.get(f"/executions/{first['id']}")).headers["etag"] != (await alice.get(f"/executions/{second['id']}")).headers[
        "etag"
    ]
    events = [event for event in await events_of(alice, correlation_id=trace) if event["action"] != "EXECUTIONS_IMPORTED"]
    assert [(event["action"], event["details"], event["actor"]["id"]) for event in events] == [
        ("EXECUTION_COMPLETED", {"execution_id": first["id"]}, "alice"),
        ("EXECUTION_FAILED", {"execution_id": second["id"], "error_code": "Broken", "error_message": "it broke"}, "alice"),
    ]
    page = (await alice.get("/executions", params={"sort": "ended_at", "status": "COMPLETED"})).json()["items"]
    assert len(page) == 2


async def test_what_has_ended_stays_whatever_is_sent_again(alice: Caller) -> None:
    _, project = await new_place(alice)
    trace = new_trace()
    await send(alice, project, *(running(trace, number) for number in (1, 2, 3)))
    rows = await stored(alice, project)
    await alice.post(f"/executions/{rows[span_id(1)]['id']}/cancel", {"reason": "enough"}, 200)
    await send(alice, project, span(trace, span_id(2)))
    before = await stored(alice, project)
    events = await events_of(alice)
    late: dict[str, Any] = {"endTimeUnixNano": str(BEGIN + 9 * SECOND), "status": {"code": 2, "message": "late"}}
    await send(alice, project, span(trace, span_id(1), **late), span(trace, span_id(2), **late), running(trace, 2))
    assert await stored(alice, project) == before
    assert await events_of(alice) == events


async def test_an_end_that_comes_with_its_beginning_is_not_lost(alice: Caller) -> None:
    _, project = await new_place(alice)
    trace = new_trace()
    await send(alice, project, running(trace, 1), span(trace, span_id(1)), span(trace, span_id(2)), running(trace, 2))
    assert {row["status"] for row in (await stored(alice, project)).values()} == {"COMPLETED"}


async def test_an_end_reaches_no_span_of_another_project_or_tenant(alice: Caller, bob: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    _, foreign = await new_place(bob)
    trace = new_trace()
    await send(alice, project, running(trace, 1))
    before = await stored(alice, project)
    await send(alice, sibling, span(trace, span_id(1)))
    await send(bob, foreign, span(trace, span_id(1)))
    assert await stored(alice, project) == before
    assert await stored(alice, sibling) == {}


async def test_of_many_ends_at_once_one_counts(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    trace = new_trace()
    numbers = range(1, 21)
    await send(alice, project, *(running(trace, number) for number in numbers))
    rows = await stored(alice, project)
    ends = [span(trace, span_id(number), name="by its span") for number in numbers]
    singles = [alice.post(f"/executions/{rows[span_id(number)]['id']}/fail", {}, None) for number in numbers]
    _, answers = await asyncio.gather(
        asyncio.gather(*(send(alice, project, *order) for order in (ends, ends[::-1], ends, ends[::-1]))), at_once(*singles)
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    after = await stored(alice, project)
    by_span = [row for row in after.values() if row["status"] == "COMPLETED"]
    assert len(by_span) + sum(answer.status_code == 200 for answer in answers) == 20
    assert {row["operation"] for row in by_span} <= {"by its span"}
    actions = [event["action"] for event in await events_of(alice, correlation_id=trace)]
    assert (actions.count("EXECUTION_COMPLETED"), actions.count("EXECUTION_FAILED")) == (len(by_span), 20 - len(by_span))
    assert await count_rows(service, "executions") == 20


async def test_tokens_that_an_agent_sums_up_are_counted_once(alice: Caller) -> None:
    _, project = await new_place(alice)
    trace = new_trace()

    def used(number: int, parent: int | None, operation: str, tokens: int | None) -> dict[str, Any]:
        usage = {"gen_ai.usage.input_tokens": tokens, "gen_ai.usage.output_tokens": 1} if tokens is not None else {}
        parent_id = span_id(parent) if parent is not None else None
        return span(trace, span_id(number), parent_id, attributes={"gen_ai.operation.name": operation, **usage})

    await send(
        alice,
        project,
        used(1, None, "invoke_workflow", None),
        used(2, 1, "invoke_agent", 113),  # the sum of its two calls
        used(3, 2, "chat", 56),
        used(4, 2, "execute_tool", None),
        used(5, 4, "chat", 57),
        used(6, 1, "invoke_agent", 40),  # its calls were not sent
        used(7, 1, "invoke_agent", 5),  # its last call only
        used(8, 7, "chat", 20),
        used(9, 7, "embeddings", 5),
        used(10, 1, "invoke_agent", 30),  # of its calls only some were sent
        used(11, 10, "embeddings", 2),
    )
    rows = await stored(alice, project)
    tree = (await alice.get(f"/executions/{rows[span_id(1)]['id']}/tree")).json()["root"]
    assert [child["totals"]["usage"]["input_tokens"] for child in tree["children"]] == [113, 40, 25, 30]
    assert (tree["totals"]["usage"]["input_tokens"], tree["totals"]["usage"]["output_tokens"]) == (208, 6)
    line = (await alice.get(f"/executions/{rows[span_id(1)]['id']}/timeline")).json()
    assert line["totals"] == tree["totals"]
