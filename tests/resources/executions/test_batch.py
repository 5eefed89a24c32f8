"""Many starts and ends in one request: each item as if it had come alone, and none at the cost of another."""

from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Caller, Service
from tests.support.answers import at_once, count_rows, events_of, pointers_of
from tests.support.keys import key_of
from tests.support.record import new_call, new_execution, new_place
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio

# What differs between two executions that were told the same.
OF_ONE: Final = {"id", "root_execution_id", "parent_execution_id", "started_at", "ended_at", "created_at", "updated_at", "deadline_at"}
ODD: Final = {"ü\u2028": [1.0, 1e-300, 2**60, -0.0, True, None, {"'\"\\": "\U0001f600 \\u0041"}], "": ""}


async def send(caller: Caller, project: Any, *items: Any, expect: int | None = 200, **options: Any) -> httpx.Response:
    return await caller.post(f"/projects/{project['id']}/executions/batch", {"items": list(items)}, expect, **options)


async def results_of(caller: Caller, project: Any, *items: Any, **options: Any) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = (await send(caller, project, *items, **options)).json()["results"]
    assert [result["index"] for result in results] == list(range(len(items)))
    return results


def start(**fields: Any) -> dict[str, Any]:
    return {"op": "start", "operation": "op", **fields}


def end(op: str, execution: Any, **fields: Any) -> dict[str, Any]:
    named = {"execution_index": execution} if isinstance(execution, int) else {"execution_id": execution["id"]}
    return {"op": op, **named, **fields}


async def told_of(caller: Caller, correlation: str) -> tuple[list[Any], list[Any]]:
    """The executions and events under a correlation, without what differs from one telling to another."""
    rows = (await caller.get(f"/executions/by-correlation/{correlation}")).json()
    assert all(row["ended_at"] is None or row["ended_at"] >= row["started_at"] for row in rows)
    etags = [(await caller.get(f"/executions/{row['id']}")).headers["etag"].rpartition("-")[2] for row in rows]
    known = [{**{name: row[name] for name in row.keys() - OF_ONE}, "correlation_id": None} for row in rows]
    events = await events_of(caller, correlation_id=correlation)
    kept = ("actor", "action", "outcome", "resource", "project_id", "on_behalf_of", "auth_method", "details")
    seen = [{name: event[name] for name in kept} for event in events]
    for event in seen:
        event["details"] = {**event["details"], "execution_id": [row["id"] for row in rows].index(event["details"]["execution_id"])}
    return [*zip(known, etags, strict=True)], seen


STARTS: Final = (
    start(kind="AGENT", agent_version="1", session_id="s", tags=["a"], timeout_seconds=60, warnings=["w\n"]),
    start(model_provider="acme", model_name="m", confidence=0.5, provenance={"p": 1}, input=ODD, metadata={"a": 1, "b": 1}),
    start(metadata=ODD),
    start(),
)
ENDS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("complete", {"output": ODD, "usage": {"input_tokens": 2**53}, "cost": {"amount": "0.000000001"}, "metadata": {"new": ODD}}),
    ("fail", {"metadata": {"b": ODD}, "error_code": "E", "error_message": "it\tbroke\n", "usage": {"output_tokens": 1}}),
    ("cancel", {"reason": "no longer wanted", "cost": {"amount": "1", "currency": "EUR"}}),
    ("complete", {}),
)


@pytest.mark.parametrize("are_apart", [False, True], ids=["in one batch", "ended by a second batch"])
async def test_a_batch_leaves_what_single_calls_leave(service: Service, alice: Caller, are_apart: bool) -> None:
    organization, project = await new_place(alice)
    document = await alice.new_document(project["id"])
    await alice.grant("PROJECT", project["id"], "agent:tagger", "PROJECT_EDITOR")
    agent = service.as_("agent:tagger")
    agent.headers["X-SaaSBase-On-Behalf-Of"] = "user:alice"
    target: dict[str, Any] = {"target_type": "DOCUMENT", "target_id": document["id"]}
    single: dict[str, Any] = {"headers": {"X-Correlation-ID": "single"}}
    place = {"organization_id": organization["id"], "project_id": project["id"]}
    made = []
    for number, item in enumerate(STARTS):
        body = {**item, **place, **(target if number % 2 else {})}
        del body["op"]
        made.append((await agent.post("/executions", body, **single)).json())
    for (op, body), execution in zip(ENDS, made, strict=True):
        await agent.post(f"/executions/{execution['id']}/{op}", body, 200, **single)
    starts = [{**item, **(target if number % 2 else {})} for number, item in enumerate(STARTS)]
    batched: dict[str, Any] = {"headers": {"X-Correlation-ID": "batch"}}
    if are_apart:
        begun = await results_of(agent, project, *starts, **batched)
        results = begun + await results_of(
            agent, project, *(end(op, one["execution"], **body) for (op, body), one in zip(ENDS, begun, strict=True)), **batched
        )
    else:
        results = await results_of(agent, project, *starts, *(end(op, number, **body) for number, (op, body) in enumerate(ENDS)), **batched)
    assert [result["status"] for result in results] == [201] * 4 + [200] * 4
    assert [result["execution"]["status"] for result in results] == ["RUNNING"] * 4 + ["COMPLETED", "FAILED", "CANCELLED", "COMPLETED"]
    assert {result["error"] for result in results} == {None}
    assert await told_of(alice, "batch") == await told_of(alice, "single")
    assert len((await told_of(alice, "batch"))[1]) == 8


async def test_executions_of_a_batch_hang_below_each_other_and_below_others(alice: Caller) -> None:
    organization, project = await new_place(alice)
    elsewhere = await new_execution(alice, await alice.new_project(organization["id"]))
    top = await new_execution(alice, project, parent_execution_id=elsewhere["id"])
    below = start(parent_execution_id=top["id"])
    results = await results_of(alice, project, below, start(parent_index=0), start(parent_index=1), start(), start(parent_index=3))
    ids = [result["execution"]["id"] for result in results]
    rows = {row["id"]: row for row in (await alice.get(f"/executions/by-project/{project['id']}")).json()}
    assert [rows[id_]["parent_execution_id"] for id_ in ids] == [top["id"], ids[0], ids[1], None, ids[3]]
    assert [rows[id_]["root_execution_id"] for id_ in ids] == [elsewhere["id"]] * 3 + [ids[3]] * 2
    tree = (await alice.get(f"/executions/{elsewhere['id']}/tree")).json()["root"]
    assert (tree["totals"]["executions"], tree["totals"]["depth"]) == (5, 4)


async def test_an_item_is_refused_as_if_it_came_alone_and_the_others_are_done(service: Service, alice: Caller, mallory: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    _, foreign = await new_place(mallory)
    place = {"organization_id": organization["id"], "project_id": project["id"], "operation": "op"}
    strangers = [await new_execution(mallory, foreign), {"id": str(uuid4())}]
    call = await new_call(alice, sibling["id"])
    starts = (
        *({"parent_execution_id": one["id"]} for one in strangers),
        {"target_type": "API_CALL", "target_id": call["id"]},
        {"target_type": "PROJECT", "target_id": sibling["id"]},
        {"target_type": "ORGANIZATION", "target_id": project["id"]},
        {"target_type": "DOCUMENT"},
        {"confidence": 7},
        {"input": {"big": "x" * 65_537}},
        {"warnings": ["ok", "a\x00"]},
        {"colour": "red"},
        {"operation": None},
    )
    items, expected = [], []
    for body in starts:
        items.append(start(**body))
        expected.append(await alice.post("/executions", {**place, **body}, 422))
    ended = await new_execution(alice, project)
    await alice.post(f"/executions/{ended['id']}/complete", {}, 200)
    running = await new_execution(alice, project)
    for op in ("complete", "fail", "cancel"):
        for execution, body in ((ended, {}), *((one, {}) for one in strangers), (running, {"usage": {"input_tokens": -1}})):
            items.append(end(op, execution, **body))
            expected.append(await alice.post(f"/executions/{execution['id']}/{op}", body, None))
    before = await count_rows(service, "executions")
    mixed = [one for item in items for one in (item, start(operation="good"))]
    results = await results_of(alice, project, *mixed)
    for number, (result, answer) in enumerate(zip(results[::2], expected, strict=True)):
        problem = answer.json()
        assert (result["status"], result["execution"]) == (answer.status_code, None), mixed[2 * number]
        assert result["error"]["code"] == problem["code"]
        assert result["error"]["detail"] == problem["detail"]
        at = f"/items/{2 * number}"
        assert result["error"]["errors"] == (
            [{**one, "pointer": at + one["pointer"]} for one in problem["errors"]] if "errors" in problem else None
        )
    assert {result["status"] for result in results[1::2]} == {201}
    assert await count_rows(service, "executions") == before + len(items)
    assert (await alice.get(f"/executions/{running['id']}")).json() == running


async def test_what_only_a_batch_can_get_wrong(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    execution = await new_execution(alice, project)
    for item, pointer in (
        (start(parent_index=0), "/parent_index"),
        (start(parent_index=1), "/parent_index"),
        (start(parent_index=500), "/parent_index"),
        (start(parent_index=0, parent_execution_id=execution["id"]), ""),
        (start(organization_id=project["organization_id"]), "/organization_id"),
        (end("complete", 0), "/execution_index"),
        ({"op": "fail"}, ""),
        ({"op": "fail", "execution_index": 0, "execution_id": execution["id"]}, ""),
        ({"op": "complete", "execution_id": "x"}, "/execution_id"),
        ({"op": "heartbeat"}, ""),
        ({"operation": "op"}, ""),
        ("start", ""),
        (None, ""),
    ):
        refused, done = await results_of(alice, project, item, start())
        assert (refused["status"], done["status"]) == (422, 201), item
        assert [one["pointer"] for one in refused["error"]["errors"]] == ["/items/0" + pointer], item
    secret = await send(alice, project, {"op": "geheim-4711" * 1000}, {"op": "start", "geheim-4711" * 1000: 1})
    assert len(secret.content) < 2000
    results = await results_of(
        alice, project, start(confidence=7), start(parent_index=0), end("fail", 1), start(), end("fail", 3), end("fail", 3)
    )
    assert [result["status"] for result in results] == [422, 422, 422, 201, 200, 409]
    twice = await results_of(alice, project, end("complete", execution, output={"a": 1}), end("fail", execution))
    assert [result["status"] for result in twice] == [200, 409]
    assert twice[1]["error"] == {"code": "already_ended", "detail": "The execution has ended: it is COMPLETED.", "errors": None}
    assert (await alice.get(f"/executions/{execution['id']}")).json()["output"] == {"a": 1}
    before = await count_rows(service, "audit_events")
    assert [result["status"] for result in await results_of(alice, project, end("fail", execution))] == [409]
    assert await count_rows(service, "audit_events") == before


async def test_a_batch_has_one_to_five_hundred_items(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    for items in ([], [start()] * 501):
        assert pointers_of(await send(alice, project, *items, expect=422)) == ["/items"]
    assert await count_rows(service, "executions") == 0
    results = await results_of(alice, project, *([start()] * 250), *(end("complete", number) for number in range(250)))
    assert [result["status"] for result in results] == [201] * 250 + [200] * 250
    assert await count_rows(service, "executions") == 250
    assert (await alice.get("/executions", params={"status": "COMPLETED"})).json()["total_items"] == 250
    assert (await alice.get("/audit-events", params={"action": "EXECUTION_COMPLETED"})).json()["total_items"] == 250


async def test_of_batches_that_end_the_same_executions_at_once_each_is_ended_once(alice: Caller) -> None:
    _, project = await new_place(alice)
    begun = await results_of(alice, project, *([start()] * 100))
    ids = [result["execution"] for result in begun]
    orders = (ids, ids[::-1], ids[50:] + ids[:50], ids[::2] + ids[1::2])
    batches = [send(alice, project, *(end("complete", one, output={"by": number}) for one in order)) for number, order in enumerate(orders)]
    singles = [alice.post(f"/executions/{one['id']}/fail", {}, None) for one in ids[::10]]
    everything = await at_once(*batches, *singles)
    answers, single = everything[: len(batches)], everything[len(batches) :]
    assert {answer.status_code for answer in single} <= {200, 409}
    won: dict[str, int] = {}
    for number, (order, answer) in enumerate(zip(orders, answers, strict=True)):
        for one, result in zip(order, answer.json()["results"], strict=True):
            assert result["status"] in {200, 409}
            if result["status"] == 200:
                assert won.setdefault(one["id"], number) == number
    assert len(won) + sum(answer.status_code == 200 for answer in single) == 100
    rows = (await alice.get(f"/executions/by-project/{project['id']}")).json()
    assert {row["id"]: row["output"]["by"] for row in rows if row["status"] == "COMPLETED"} == won
    actions = [event["action"] for event in await events_of(alice) if event["action"].startswith("EXECUTION")]
    assert (actions.count("EXECUTION_STARTED"), len(actions)) == (100, 200)


async def test_what_lies_elsewhere_is_answered_as_absent(service: Service, alice: Caller, bob: Caller, mallory: Caller) -> None:
    organization, project = await new_place(alice)
    _, foreign = await new_place(mallory)
    sibling = await alice.new_project(organization["id"])
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_EDITOR")
    others = [await new_execution(alice, sibling), await new_execution(mallory, foreign), {"id": str(uuid4())}]
    answers = []
    for caller in (alice, bob):
        for op in ("complete", "fail", "cancel"):
            results = await results_of(caller, project, *(end(op, one) for one in others))
            answers += [(result["status"], result["error"]) for result in results]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 404
    hidden = await results_of(bob, project, *(start(parent_execution_id=one["id"]) for one in others))
    assert [(one["status"], one["error"]["errors"][0]["message"]) for one in hidden] == [
        (422, "names no execution of this organization")
    ] * 3
    assert (await results_of(alice, project, start(parent_execution_id=others[0]["id"])))[0]["status"] == 201
    for caller, execution in ((alice, others[0]), (mallory, others[1])):
        assert (await caller.get(f"/executions/{execution['id']}")).json() == execution
    await send(mallory, project, start(), expect=404)


async def test_a_credential_that_may_only_create_ends_what_it_starts_and_names_no_parent_it_cannot_read(
    service: Service, alice: Caller
) -> None:
    _, project = await new_place(alice)
    key, _ = await key_of(service, alice, "PROJECT", project["id"], "PROJECT_EDITOR", actions=["EXECUTION_CREATE"])
    top = await new_execution(alice, project)
    place = {"organization_id": project["organization_id"], "project_id": project["id"], "operation": "op"}
    await key.post("/executions", {**place, "parent_execution_id": top["id"]}, 422)
    results = await results_of(
        key, project, start(parent_execution_id=top["id"]), start(), start(parent_index=1), end("complete", 2), end("fail", top)
    )
    assert [result["status"] for result in results] == [422, 201, 201, 200, 200]


async def test_who_ends_an_execution_does_not_become_who_runs_it(alice: Caller, bob: Caller) -> None:
    _, project = await new_place(alice)
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_EDITOR")
    execution = await new_execution(alice, project)
    results = await results_of(bob, project, start(parent_execution_id=execution["id"]), end("complete", execution))
    assert [result["status"] for result in results] == [201, 200]
    read = (await alice.get(f"/executions/{execution['id']}")).json()
    assert (read["actor"]["id"], read["created_by_subject"], read["status"]) == ("alice", "user:alice", "COMPLETED")
    (event,) = await events_of(alice, action="EXECUTION_COMPLETED")
    assert event["actor"] == {"type": "USER", "id": "bob"}


async def test_the_number_of_statements_does_not_grow_with_the_items(service: Service, alice: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    document, call = await alice.new_document(project["id"]), await new_call(alice, project["id"])
    targets = ({"target_type": "DOCUMENT", "target_id": document["id"]}, {"target_type": "API_CALL", "target_id": call["id"]})

    async def counted(times: int) -> int:
        begun = [result["execution"] for result in await results_of(alice, project, *([start()] * times))]
        parents = [result["execution"] for result in await results_of(alice, sibling, *([start()] * times))]
        items = list(_each(times, begun, parents, targets))
        with statements_of_requests(service.runtime.context.database) as sent:
            results = await results_of(alice, project, *items)
        assert {result["status"] for result in results} == {200, 201, 404}
        return len(sent)

    assert await counted(1) == await counted(80) <= 9


async def test_executions_are_locked_in_one_order(service: Service, alice: Caller) -> None:
    """Which order a plan would take them in by itself is chance; in two orders, two batches would wait for each other for ever."""
    _, project = await new_place(alice)
    execution = await new_execution(alice, project)
    database = service.runtime.context.database
    with statements_of_requests(database) as sent:
        await results_of(alice, project, end("complete", execution))
    wanted = "ORDER BY executions.id" + ("" if database.is_sqlite else " FOR NO KEY UPDATE")
    assert any(statement.endswith(wanted) for statement in sent)


def _each(times: int, begun: list[Any], parents: list[Any], targets: tuple[Any, Any]) -> Iterator[dict[str, Any]]:
    for number in range(times):
        yield from (start(**target, parent_execution_id=parents[number]["id"]) for target in targets)
        yield end("fail", begun[number], usage={"input_tokens": number})
        yield end("complete", 5 * number)
        yield end("complete", {"id": str(uuid4())})
