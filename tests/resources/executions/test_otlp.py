"""Spans that come in from OpenTelemetry: mapped, stored once, in their tree whatever the order of arrival."""

import asyncio
import random
from typing import Any

import pytest

from app.core.text import check_json
from tests.conftest import Caller, Service
from tests.support.answers import count_rows, events_of
from tests.support.keys import key_of
from tests.support.record import new_execution, new_place
from tests.support.spans import BEGIN, family, new_trace, path_of, send, shape, span, span_id, stored

pytestmark = pytest.mark.anyio

# https://github.com/open-telemetry/opentelemetry-proto/blob/main/examples/trace.json
EXAMPLE = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
            "scopeSpans": [
                {
                    "scope": {
                        "name": "my.library",
                        "version": "1.0.0",
                        "attributes": [{"key": "my.scope.attribute", "value": {"stringValue": "some scope attribute"}}],
                    },
                    "spans": [
                        {
                            "traceId": "5B8EFFF798038103D269B633813FC60C",
                            "spanId": "EEE19B7EC3C1B174",
                            "parentSpanId": "EEE19B7EC3C1B173",
                            "name": "I'm a server span",
                            "startTimeUnixNano": "1544712660000000000",
                            "endTimeUnixNano": "1544712661000000000",
                            "kind": 2,
                            "attributes": [{"key": "my.span.attr", "value": {"stringValue": "some value"}}],
                        }
                    ],
                }
            ],
        }
    ]
}


async def test_the_example_of_the_specification_becomes_an_execution(alice: Caller) -> None:
    _, project = await new_place(alice)
    response = await alice.post(path_of(project), EXAMPLE, 200)
    assert (response.headers["content-type"], response.json()) == ("application/json", {})
    (row,) = (await stored(alice, project)).values()
    assert row["trace_id"] == row["correlation_id"] == "5b8efff798038103d269b633813fc60c"
    assert (row["span_id"], row["operation"], row["status"]) == ("eee19b7ec3c1b174", "I'm a server span", "COMPLETED")
    assert (row["started_at"], row["ended_at"]) == ("2018-12-13T14:51:00Z", "2018-12-13T14:51:01Z")
    assert (row["actor"], row["created_by_subject"], row["on_behalf_of"]) == ({"type": "USER", "id": "alice"}, "user:alice", None)
    assert (row["parent_execution_id"], row["root_execution_id"]) == (None, row["id"])
    assert row["metadata"]["otel"] == {
        "kind": "SERVER",
        "attributes": {"my.span.attr": "some value"},
        "resource": {"service.name": "my.service"},
        "scope": {"name": "my.library", "version": "1.0.0", "attributes": {"my.scope.attribute": "some scope attribute"}},
    }


async def test_attributes_fill_the_columns(alice: Caller) -> None:
    _, project = await new_place(alice)
    chat = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.system": "older name",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m-1",
        "gen_ai.conversation.id": "c-1",
        "gen_ai.agent.name": "tagger",
        "gen_ai.agent.version": "2.0",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "gen_ai.input.messages": '[{"role": "user"}]',
        "gen_ai.output.messages": {"arrayValue": {"values": [{"stringValue": "hello"}]}},
        "own": {"kvlistValue": {"values": [{"key": "a", "value": {"bytesValue": "AAE="}}]}},
    }
    inference = {
        "openinference.span.kind": "RERANKER",
        "llm.model_name": "m-2",
        "session.id": "s-1",
        "llm.token_count.prompt": {"doubleValue": 5},
        "input.value": "a question",
    }
    older = {"gen_ai.system": "anthropic", "gen_ai.usage.prompt_tokens": 7, "gen_ai.usage.completion_tokens": "not a number"}
    trace = new_trace()
    await send(alice, project, *(span(trace, span_id(n), attributes=a) for n, a in enumerate((chat, inference, older, {}), 1)))
    rows = await stored(alice, project)
    first = rows[span_id(1)]
    told = {"kind": "LLM", "model_provider": "openai", "model_name": "m-1", "session_id": "c-1", "agent_version": "2.0"}
    assert {name: first[name] for name in told} == told
    assert first["usage"] == {"input_tokens": 12, "output_tokens": 3, "cached_tokens": 4, "reasoning_tokens": 2}
    assert (first["input"], first["output"]) == ({"messages": [{"role": "user"}]}, {"messages": ["hello"]})
    assert first["metadata"]["agent_name"] == "tagger"
    raw = first["metadata"]["otel"]["attributes"]
    assert raw.keys() == chat.keys()
    assert (raw["gen_ai.usage.input_tokens"], raw["own"], raw["gen_ai.system"]) == (12, {"a": "AAE="}, "older name")
    second = rows[span_id(2)]
    assert (second["kind"], second["model_name"], second["session_id"]) == ("RETRIEVER", "m-2", "s-1")
    assert (second["usage"]["input_tokens"], second["input"]) == (5, {"value": "a question"})
    third, plain = rows[span_id(3)], rows[span_id(4)]
    assert (third["model_provider"], third["usage"]["input_tokens"], third["usage"]["output_tokens"]) == ("anthropic", 7, 0)
    assert (plain["kind"], plain["usage"], plain["input"], plain["output"]) == (None, None, {}, {})


async def test_a_status_tells_how_it_ended(alice: Caller) -> None:
    _, project = await new_place(alice)
    trace, error = new_trace(), {"code": 2, "message": "it broke"}
    failed = span(trace, span_id(1), status=error, attributes={"error.type": "Broken"})
    named = span(trace, span_id(2), status={"code": "STATUS_CODE_ERROR"}, kind="SPAN_KIND_CLIENT")
    await send(alice, project, failed, named, span(trace, span_id(3), status={"code": 1}), span(trace, span_id(4), endTimeUnixNano="0"))
    rows = await stored(alice, project)
    assert [rows[span_id(number)]["status"] for number in range(1, 5)] == ["FAILED", "FAILED", "COMPLETED", "RUNNING"]
    assert rows[span_id(1)]["metadata"] | {"otel": None} == {"error_code": "Broken", "error_message": "it broke", "otel": None}
    assert rows[span_id(2)]["metadata"]["otel"]["kind"] == "CLIENT"
    assert rows[span_id(4)]["ended_at"] is None


async def test_events_and_links_are_kept(alice: Caller) -> None:
    _, project = await new_place(alice)
    trace = new_trace()
    happened = {"name": "exception", "timeUnixNano": str(BEGIN), "attributes": [{"key": "k", "value": {"boolValue": True}}]}
    link = {"traceId": trace.upper(), "spanId": span_id(9)}
    await send(alice, project, span(trace, span_id(1), events=[happened], links=[link], traceState="a=1", droppedEventsCount=2))
    kept = (await stored(alice, project))[span_id(1)]["metadata"]["otel"]
    assert kept["events"] == [{"name": "exception", "time_unix_nano": str(BEGIN), "attributes": {"k": True}}]
    assert kept["links"] == [{"trace_id": trace, "span_id": span_id(9), "attributes": {}}]
    assert (kept["trace_state"], kept["dropped_events"]) == ("a=1", 2)


async def test_what_is_too_large_is_cut_and_never_refused(alice: Caller) -> None:
    _, project = await new_place(alice)
    trace = new_trace()
    deep: dict[str, Any] = {"stringValue": "deep"}
    for _ in range(40):
        deep = {"arrayValue": {"values": [deep]}}
    odd = {"a\x00b": "c\x00d", "nan": {"doubleValue": "NaN"}, "deep": deep, "gen_ai.request.model": "x\ny" * 200}
    huge = {"gen_ai.input.messages": "ü" * 300_000, **{f"key {number}": "v" * 200 for number in range(2000)}}
    resource = {"attributes": [{"key": f"r{number}", "value": {"stringValue": "r" * 500}} for number in range(100)]}
    spans = [span(trace, span_id(1), attributes=odd), span(trace, span_id(2), attributes=huge, name="n" * 1000 + "\x07")]
    spans.append(span(trace, span_id(3), status={"code": 2, "message": "\x00" + "\U0001f600" * 5000}, name="\n"))
    answer = await send(alice, project, *spans, resource=resource, scope={"name": "s" * 5000})
    assert answer.json() == {}
    rows = await stored(alice, project)
    for row in rows.values():
        check_json(row["metadata"])
        assert row["metadata"]["otel"]["resource"]["truncated"] is row["metadata"]["otel"]["scope"]["truncated"] is True
    first, second, third = (rows[span_id(number)] for number in (1, 2, 3))
    kept = first["metadata"]["otel"]["attributes"]
    assert (kept["a\ufffdb"], kept["nan"], first["metadata"]["otel"]["truncated"]) == ("c\ufffdd", "NaN", True)
    assert (len(first["model_name"]), first["model_name"][:5]) == (255, "x yx ")
    assert (second["operation"], second["input"], second["metadata"]["otel"]["truncated"]) == ("n" * 255, {}, True)
    assert len(second["metadata"]["otel"]["attributes"]) >= 64
    assert (third["operation"], "truncated" in third["metadata"]["otel"]) == ("unknown", False)
    assert third["metadata"]["error_message"] == "\ufffd" + "\U0001f600" * 1999


def expected_shape(count: int, number: int = 1) -> Any:
    children = [child for child in range(3 * number - 1, 3 * number + 2) if child <= count]
    return [f"op {number}", *sorted((expected_shape(count, child) for child in children), key=str)]


@pytest.mark.parametrize("size", [1, 4, 15])
async def test_in_whatever_order_spans_arrive_they_make_one_tree(service: Service, alice: Caller, size: int) -> None:
    _, project = await new_place(alice)
    shuffled = random.Random(size)
    spans = family(new_trace(), 15)
    for round_ in range(3):
        sent = [{**one, "traceId": f"{round_ + 1:032x}"} for one in spans]
        shuffled.shuffle(sent)
        for start in range(0, len(sent), size):
            await send(alice, project, *sent[start : start + size])
    rows = (await alice.get("/executions", params={"size": 500})).json()["items"]
    for root in [row for row in rows if row["parent_execution_id"] is None]:
        assert await shape(alice, root["id"]) == expected_shape(15)
    assert len({row["root_execution_id"] for row in rows}) == 3
    assert await count_rows(service, "executions") == 45


async def test_a_span_is_stored_once_however_often_it_is_sent(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    spans = family(new_trace(), 12)
    await send(alice, project, *spans, *spans)
    before = await stored(alice, project)
    answers = await asyncio.gather(*(send(alice, project, *spans) for _ in range(10)))
    assert [answer.json() for answer in answers] == [{}] * 10
    assert await stored(alice, project) == before
    again = family(new_trace(), 12)
    await asyncio.gather(*(send(alice, project, *random.sample(again, 12)) for _ in range(10)))
    assert await count_rows(service, "executions") == 24
    (imported, other) = await events_of(alice, action="EXECUTIONS_IMPORTED")
    assert imported["details"] == {"stored": 12, "known": 0, "rejected": 0, "trace_ids": [spans[0]["traceId"]]}
    assert (other["details"]["stored"], other["resource"]) == (12, {"type": "PROJECT", "id": project["id"]})


async def test_parents_and_children_that_arrive_at_once_find_each_other(alice: Caller) -> None:
    _, project = await new_place(alice)
    traces = [f"{number:032x}" for number in range(1, 9)]
    parents = [send(alice, project, span(trace, span_id(1))) for trace in traces]
    children = [send(alice, project, span(trace, span_id(2), span_id(1))) for trace in traces]
    grandchildren = [send(alice, project, span(trace, span_id(3), span_id(2))) for trace in traces]
    await asyncio.gather(*(one for three in zip(grandchildren, children, parents, strict=True) for one in three))
    rows = (await alice.get("/executions", params={"size": 500})).json()["items"]
    roots = {row["trace_id"]: row["id"] for row in rows if row["parent_execution_id"] is None}
    assert len(roots) == 8, "a span missed its parent"
    assert {row["id"] for row in rows if row["root_execution_id"] != roots[row["trace_id"]]} == set()


async def test_a_forged_circle_is_opened(alice: Caller) -> None:
    _, project = await new_place(alice)
    in_one, in_two, itself = new_trace(), new_trace(), new_trace()
    one, two, three = span_id(1), span_id(2), span_id(3)
    await send(alice, project, span(in_one, one, three), span(in_one, two, one), span(in_one, three, two))
    for number, parent in ((one, three), (two, one), (three, two)):
        await send(alice, project, span(in_two, number, parent))
    await send(alice, project, span(itself, one, one))
    rows = (await alice.get("/executions", params={"size": 500})).json()["items"]
    for trace, count in ((in_one, 3), (in_two, 3), (itself, 1)):
        tree = [row for row in rows if row["trace_id"] == trace]
        (root,) = (row for row in tree if row["parent_execution_id"] is None)
        assert {row["root_execution_id"] for row in tree} == {root["id"]}
        read = (await alice.get(f"/executions/{root['id']}/tree")).json()["root"]
        assert read["totals"]["executions"] == count == len(tree)


async def test_what_hangs_below_a_late_tree_moves_with_it(alice: Caller) -> None:
    _, project = await new_place(alice)
    trace = new_trace()
    await send(alice, project, span(trace, span_id(2), span_id(1)))
    child = (await stored(alice, project))[span_id(2)]
    below = await new_execution(alice, project, parent_execution_id=child["id"], operation="below")
    etag = (await alice.get(f"/executions/{child['id']}")).headers["etag"]
    await send(alice, project, span(trace, span_id(1)))
    moved = await alice.get(f"/executions/{child['id']}")
    assert moved.headers["etag"] != etag
    root = moved.json()["parent_execution_id"]
    assert (await alice.get(f"/executions/{below['id']}")).json()["root_execution_id"] == root
    assert await shape(alice, root) == [span_id(1), [span_id(2), ["below"]]]


async def test_spans_of_another_project_or_tenant_are_no_parents(service: Service, alice: Caller, bob: Caller) -> None:
    organization, project = await new_place(alice)
    other = await alice.new_project(organization["id"])
    _, foreign = await new_place(bob)
    trace = new_trace()
    await send(alice, project, span(trace, span_id(1)))
    await send(alice, other, span(trace, span_id(2), span_id(1)))
    for number, parent in ((1, None), (2, span_id(1)), (3, span_id(2))):
        await send(bob, foreign, span(trace, span_id(number), parent))
    await send(alice, other, span(trace, span_id(1)), span(trace, span_id(5), span_id(4)))  # the organization has the first
    await send(alice, project, span(trace, span_id(4)))
    assert await count_rows(service, "executions") == 7
    assert [row["parent_execution_id"] for row in (await stored(alice, other)).values()] == [None, None]
    theirs = await stored(bob, foreign)
    assert await shape(bob, theirs[span_id(1)]["id"]) == [span_id(1), [span_id(2), [span_id(3)]]]
    assert {row["organization_id"] for row in (await stored(alice, project)).values()} == {organization["id"]}


async def test_only_who_may_create_executions_may_send_spans(service: Service, alice: Caller, bob: Caller, mallory: Caller) -> None:
    _, project = await new_place(alice)
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_VIEWER")
    one = span(new_trace(), span_id(1))
    await send(mallory, project, one, expect=404)
    await send(bob, project, one, expect=403)
    await send(service.as_(None), project, one, expect=401)
    assert await stored(alice, project) == {}
    key, described = await key_of(service, alice, "PROJECT", project["id"], "PROJECT_EDITOR", actions=["EXECUTION_CREATE"])
    await send(key, project, one)
    agent = service.as_("agent:tagger")
    agent.headers["X-SaaSBase-On-Behalf-Of"] = "user:alice"
    await send(agent, project, span(new_trace(), span_id(2)), expect=404)
    await alice.grant("PROJECT", project["id"], "agent:tagger", "PROJECT_EDITOR")
    await send(agent, project, span(new_trace(), span_id(2)))
    rows = await stored(alice, project)
    assert rows[span_id(1)]["actor"] == {"type": "API_KEY", "id": described["id"]}
    assert (rows[span_id(2)]["actor"]["id"], rows[span_id(2)]["on_behalf_of"]) == ("tagger", "user:alice")
