"""Executions as traces: trees, time lines, what they cost, what they tell on the way, and deadlines."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.resources.executions.deadlines import end_overdue
from app.resources.executions.schemas import MAX_TOKENS, Usage
from tests.conftest import Caller, Service
from tests.support.answers import events_of, read_problem, run_sql
from tests.support.jobs import stop_jobs
from tests.support.record import new_execution, new_place
from tests.support.rows import BEGINNING
from tests.support.statements import statements_of_requests

pytestmark = pytest.mark.anyio


async def run(service: Service, caller: Caller, project: dict[str, Any], begin: float, end: float | None, **fields: Any) -> dict[str, Any]:
    """An execution that ran from one second to another after the beginning of all tests."""
    ending = {name: fields.pop(name) for name in ("usage", "cost") if name in fields}
    made: dict[str, Any] = await new_execution(caller, project, **fields)
    if end is not None:
        await caller.post(f"/executions/{made['id']}/complete", ending, 200)
    await set_times(service, made["id"], begin, end)
    return made


async def set_times(service: Service, execution_id: str, begin: float, end: float | None) -> None:
    """Put an execution where a test wants it on the time line."""
    is_sqlite = service.runtime.context.database.is_sqlite
    for name, seconds in (("started_at", begin), ("ended_at", end)):
        if seconds is not None:
            moment = BEGINNING + timedelta(seconds=seconds)
            written = moment.strftime("%Y-%m-%d %H:%M:%S.%f") + ("" if is_sqlite else "+00")
            key = UUID(execution_id).hex if is_sqlite else execution_id
            await run_sql(service, f"UPDATE executions SET {name} = '{written}' WHERE id = '{key}'")


async def test_a_tree_nests_and_sums_up_whatever_is_below(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    usage = {"input_tokens": 10, "output_tokens": 2, "cached_tokens": 4, "reasoning_tokens": 1}
    top = await run(service, alice, project, 0, 10, operation="top", kind="AGENT")
    left = await run(service, alice, project, 1, 4, operation="left", parent_execution_id=top["id"], kind="LLM", usage=usage)
    right = await run(service, alice, project, 5, 9, operation="right", parent_execution_id=top["id"], cost={"amount": "0.10"})
    inner = {"parent_execution_id": right["id"]}
    dollars, euros = {"amount": 0.2, "currency": "USD"}, {"amount": "1", "currency": "EUR"}
    leaf = await run(service, alice, project, 6, 8, operation="leaf", **inner, usage=usage, cost=dollars)
    euro = await run(service, alice, project, 6, 7, operation="euro", **inner, cost=euros)
    read = (await alice.get(f"/executions/{top['id']}/tree")).json()
    assert read["is_complete"] is True
    root = read["root"]
    assert (root["id"], root["operation"], root["kind"], root["duration_ms"]) == (top["id"], "top", "AGENT", 10_000)
    assert [child["id"] for child in root["children"]] == [left["id"], right["id"]]
    assert [child["id"] for child in root["children"][1]["children"]] == [leaf["id"], euro["id"]]
    doubled = {name: 2 * count for name, count in usage.items()}
    assert root["totals"] == {
        "executions": 5,
        "by_status": {"COMPLETED": 5},
        "depth": 2,
        "usage": doubled,
        "costs": [{"amount": "1", "currency": "EUR"}, {"amount": "0.30", "currency": "USD"}],
    }
    assert root["children"][0]["totals"]["usage"] == usage
    assert root["children"][1]["totals"]["executions"] == 3
    part = (await alice.get(f"/executions/{right['id']}/tree")).json()["root"]
    assert part == root["children"][1]


async def test_totals_hold_more_than_one_execution_may_tell(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    top = await run(service, alice, project, 0, 10, operation="top")
    most = {"usage": dict.fromkeys(Usage.model_fields, MAX_TOKENS), "cost": {"amount": "999999999.999999999"}}
    for second in (1, 2):
        await run(service, alice, project, second, 9, parent_execution_id=top["id"], **most)
    tree = (await alice.get(f"/executions/{top['id']}/tree")).json()["root"]
    assert tree["totals"]["usage"] == dict.fromkeys(Usage.model_fields, 2 * MAX_TOKENS)
    assert tree["totals"]["costs"] == [{"amount": "1999999999.999999998", "currency": "USD"}]
    assert (await alice.get(f"/executions/{top['id']}/timeline")).json()["totals"] == tree["totals"]


async def test_a_time_line_tells_offsets_depth_and_the_critical_path(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    top = await run(service, alice, project, 0, 10, operation="top")
    first = await run(service, alice, project, 0.5, 4, operation="first", parent_execution_id=top["id"])
    beside = await run(service, alice, project, 1, 3, operation="beside", parent_execution_id=top["id"])
    last = await run(service, alice, project, 4, 9.25, operation="last", parent_execution_id=top["id"])
    inner = await run(service, alice, project, 5, 9, operation="inner", parent_execution_id=last["id"])
    read = (await alice.get(f"/executions/{top['id']}/timeline")).json()
    told = [(row["id"], row["depth"], row["offset_ms"], row["duration_ms"], row["is_critical"]) for row in read["items"]]
    assert told == [
        (top["id"], 0, 0, 10_000, True),
        (first["id"], 1, 500, 3_500, True),
        (beside["id"], 1, 1_000, 2_000, False),
        (last["id"], 1, 4_000, 5_250, True),
        (inner["id"], 2, 5_000, 4_000, True),
    ]
    assert (read["duration_ms"], read["totals"]["executions"], read["totals"]["depth"]) == (10_000, 5, 2)
    assert datetime.fromisoformat(read["started_at"]) == BEGINNING


async def test_a_trace_shows_only_what_the_reader_may_read(service: Service, alice: Caller, bob: Caller, mallory: Caller) -> None:
    organization, project = await new_place(alice)
    other = await alice.new_project(organization["id"])
    top = await new_execution(alice, project, operation="top")
    hidden = await new_execution(alice, other, operation="hidden", parent_execution_id=top["id"])
    below = await new_execution(alice, project, operation="below", parent_execution_id=hidden["id"])
    beside = await new_execution(alice, project, operation="beside", parent_execution_id=top["id"])
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_VIEWER")
    for caller, seen in ((alice, [top, hidden, below, beside]), (bob, [top, beside])):
        rows = (await caller.get(f"/executions/{top['id']}/timeline")).json()["items"]
        assert [row["id"] for row in rows] == [one["id"] for one in seen]
        tree = (await caller.get(f"/executions/{top['id']}/tree")).json()["root"]
        assert tree["totals"]["executions"] == len(seen)
    await bob.get(f"/executions/{hidden['id']}/tree", 404)
    await mallory.get(f"/executions/{top['id']}/timeline", 404)
    unreadable = {**new_body(project), "parent_execution_id": hidden["id"]}
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_EDITOR")
    refused = read_problem(await bob.post("/executions", unreadable, 422), 422)
    absent = read_problem(await bob.post("/executions", {**unreadable, "parent_execution_id": project["id"]}, 422), 422)
    assert refused["errors"] == absent["errors"]


@pytest.mark.parametrize("view", ["tree", "timeline"])
async def test_a_trace_takes_one_statement_beside_finding_its_top(service: Service, alice: Caller, view: str) -> None:
    _, project = await new_place(alice)
    top = above = (await new_execution(alice, project))["id"]
    with statements_of_requests(service.runtime.context.database) as sent:
        await alice.get(f"/executions/{top}")
        finding = len(sent)
        await alice.get(f"/executions/{top}/{view}")
        of_one = len(sent) - finding
        for _ in range(5):
            above = (await new_execution(alice, project, parent_execution_id=above))["id"]
        del sent[:]
        await alice.get(f"/executions/{top}/{view}")
    assert len(sent) == of_one
    assert sum("executions" in statement for statement in sent) == 2, sent


def new_body(project: dict[str, Any]) -> dict[str, Any]:
    return {"organization_id": project["organization_id"], "project_id": project["id"], "operation": "op"}


async def test_a_chain_of_three_hundred_is_read_whole_as_a_time_line_and_cut_as_a_tree(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    top = await new_execution(alice, project)
    await run_sql(service, _chain(top["id"], 300, is_sqlite=service.runtime.context.database.is_sqlite))
    line = (await alice.get(f"/executions/{top['id']}/timeline")).json()
    assert (len(line["items"]), line["totals"]["depth"], line["is_complete"]) == (301, 300, True)
    tree = (await alice.get(f"/executions/{top['id']}/tree")).json()
    assert (tree["root"]["totals"]["executions"], tree["root"]["totals"]["depth"], tree["is_complete"]) == (301, 300, False)


def _chain(top: str, length: int, *, is_sqlite: bool) -> str:
    copied = "organization_id, project_id, operation, status, actor_type, actor_id, warnings, provenance, started_at, input, output"
    copied += ", metadata, created_at, updated_at, created_by_subject, revision, tags, root_execution_id"
    if is_sqlite:
        key, own, above = UUID(top).hex, "printf('%032d', n)", f"CASE n WHEN 1 THEN '{UUID(top).hex}' ELSE printf('%032d', n - 1) END"
    else:
        key, own = top, "lpad(n::text, 32, '0')::uuid"
        above = f"CASE n WHEN 1 THEN '{top}'::uuid ELSE lpad((n - 1)::text, 32, '0')::uuid END"
    counted = f"WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {length})"
    return (
        f"{counted} INSERT INTO executions (id, parent_execution_id, {copied}) "
        f"SELECT {own}, {above}, {copied} FROM executions, counted WHERE id = '{key}'"
    )


async def test_what_is_spent_and_labelled_comes_back_and_is_found(alice: Caller) -> None:
    _, project = await new_place(alice)
    made = await new_execution(alice, project, kind="LLM", session_id="chat-1", tags=["a", "b c", "ü"], operation="one")
    await new_execution(alice, project, kind="TOOL", tags=["ab"], operation="two")
    assert (made["kind"], made["session_id"], made["tags"], made["root_execution_id"]) == ("LLM", "chat-1", ["a", "b c", "ü"], made["id"])
    for query in ({"kind": "LLM"}, {"session_id": "chat-1"}, {"tag": "a"}, {"tag": "b c"}, {"tag": "ü"}):
        found = (await alice.get("/executions", params=query)).json()
        assert [one["id"] for one in found["items"]] == [made["id"]], query
    assert (await alice.get("/executions", params={"tag": "c"})).json()["total_items"] == 0
    spent = {"usage": {"input_tokens": 7}, "cost": {"amount": "0.000000001", "currency": "CHF"}}
    ended = (await alice.post(f"/executions/{made['id']}/fail", {**spent, "error_code": "E"}, 200)).json()
    assert ended["usage"] == {"input_tokens": 7, "output_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0}
    assert ended["cost"] == {"amount": "0.000000001", "currency": "CHF"}
    assert (await alice.get(f"/executions/{made['id']}")).json() == ended


async def test_what_is_spent_is_never_negative_and_never_nonsense(alice: Caller) -> None:
    _, project = await new_place(alice)
    made = await new_execution(alice, project)
    for body in (
        {"usage": {"input_tokens": -1}},
        {"usage": {"tokens": 1}},
        {"cost": {"amount": "-1"}},
        {"cost": {"amount": "NaN"}},
        {"cost": {"amount": "1e30"}},
        {"cost": {"amount": "1", "currency": "dollars"}},
    ):
        read_problem(await alice.post(f"/executions/{made['id']}/complete", body, 422), 422)
    for field in ({"timeout_seconds": 0}, {"timeout_seconds": 1e9}, {"tags": [""]}, {"tags": ["x"] * 51}, {"kind": "ROBOT"}):
        read_problem(await alice.post("/executions", {**new_body(project), **field}, 422), 422)
    assert (await alice.get(f"/executions/{made['id']}")).json()["status"] == "RUNNING"


async def test_a_cancelled_execution_stays_cancelled(alice: Caller) -> None:
    _, project = await new_place(alice)
    made = await new_execution(alice, project, metadata={"a": 1})
    body = {"reason": "no longer wanted", "metadata": {"b": 2}}
    ended = (await alice.post(f"/executions/{made['id']}/cancel", body, 200)).json()
    assert (ended["status"], ended["metadata"]) == ("CANCELLED", {"a": 1, "b": 2, "cancel_reason": "no longer wanted"})
    assert ended["ended_at"] is not None
    for move in ("complete", "fail", "cancel", "heartbeat"):
        read_problem(await alice.post(f"/executions/{made['id']}/{move}", {}, 409), 409, "already_ended")
    read_problem(await alice.post(f"/executions/{made['id']}/events", {"name": "late"}, 409), 409, "already_ended")
    (event,) = await events_of(alice, action="EXECUTION_CANCELLED")
    assert (event["details"]["execution_id"], event["details"]["reason"]) == (made["id"], "no longer wanted")


async def test_a_heartbeat_moves_the_deadline_and_is_no_event(alice: Caller) -> None:
    _, project = await new_place(alice)
    made = await new_execution(alice, project, timeout_seconds=60)
    started = datetime.fromisoformat(made["started_at"])
    assert datetime.fromisoformat(made["deadline_at"]) == started + timedelta(seconds=60)
    before = len(await events_of(alice))
    beaten = (await alice.post(f"/executions/{made['id']}/heartbeat", {}, 200)).json()
    assert datetime.fromisoformat(beaten["deadline_at"]) == datetime.fromisoformat(beaten["heartbeat_at"]) + timedelta(seconds=60)
    longer = (await alice.post(f"/executions/{made['id']}/heartbeat", {"timeout_seconds": 3600}, 200)).json()
    assert datetime.fromisoformat(longer["deadline_at"]) == datetime.fromisoformat(longer["heartbeat_at"]) + timedelta(hours=1)
    assert (await alice.get(f"/executions/{made['id']}")).json() == longer
    assert len(await events_of(alice)) == before
    without = await new_execution(alice, project)
    assert (await alice.post(f"/executions/{without['id']}/heartbeat", {}, 200)).json()["deadline_at"] is None


async def test_past_its_deadline_an_execution_is_ended_once_and_recorded(service: Service, alice: Caller, bob: Caller) -> None:
    _, project = await new_place(alice)
    _, others = await new_place(bob)
    late = [await new_execution(caller, where, timeout_seconds=600) for caller, where in ((alice, project), (bob, others))]
    alive = await new_execution(alice, project, timeout_seconds=3600)
    await stop_jobs("executions past their deadline")  # it would end some of them before the test can count
    for one in late:
        await _pass_the_deadline(service, one["id"])
    context = service.runtime.context
    assert sum(await asyncio.gather(*(end_overdue(context) for _ in range(3)))) == 2
    for caller, one in ((alice, late[0]), (bob, late[1])):
        read = (await caller.get(f"/executions/{one['id']}")).json()
        assert read["status"] == "TIMED_OUT"
        assert read["ended_at"] is not None
        read_problem(await caller.post(f"/executions/{one['id']}/complete", {}, 409), 409, "already_ended")
        (event,) = await events_of(caller, action="EXECUTION_TIMED_OUT")
        assert (event["actor"], event["details"]["execution_id"]) == ({"type": "SERVICE", "id": "saasbase"}, one["id"])
    assert (await alice.get(f"/executions/{alive['id']}")).json()["status"] == "RUNNING"


async def _pass_the_deadline(service: Service, execution_id: str) -> None:
    is_sqlite = service.runtime.context.database.is_sqlite
    key, moment = (UUID(execution_id).hex, "2020-01-01 00:00:00.000000") if is_sqlite else (execution_id, "2020-01-01T00:00:00Z")
    await run_sql(service, f"UPDATE executions SET deadline_at = '{moment}' WHERE id = '{key}'")


async def test_what_happens_on_the_way_is_kept_in_order(service: Service, alice: Caller, bob: Caller) -> None:
    _, project = await new_place(alice)
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_VIEWER")
    made = await new_execution(alice, project)
    path = f"/executions/{made['id']}/events"
    for number in range(5):
        body = {"name": "page", "message": f"page {number}\nread", "data": {"number": number}}
        added = (await alice.post(path, body)).json()
        assert (added["execution_id"], added["created_by_subject"], added["data"]) == (made["id"], "user:alice", {"number": number})
    early = (await alice.post(path, {"name": "before", "occurred_at": "2020-01-01T00:00:00Z"})).json()
    listed = (await bob.get(path)).json()
    assert [event["name"] for event in listed["items"]] == ["before", *["page"] * 5]
    assert listed["items"][0] == early
    paged = (await bob.get(path, params={"limit": 4})).json()
    rest = (await bob.get(path, params={"limit": 4, "cursor": paged["next_cursor"]})).json()
    assert paged["items"] + rest["items"] == listed["items"]
    await bob.post(path, {"name": "mine"}, 403)
    recorded = await events_of(alice, action="EXECUTION_EVENT_ADDED")
    assert [event["details"]["name"] for event in recorded] == ["page"] * 5 + ["before"]
