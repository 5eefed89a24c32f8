"""Executions over HTTP: where they may hang, how they end, and to whom an end is attributed."""

from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import at_once, count_rows, events_of, path_of, pointers_of, read_problem, run_sql
from tests.support.record import new_call, new_execution, new_place

pytestmark = pytest.mark.anyio

FIELDS: Final = {
    *(
        "id",
        "organization_id",
        "project_id",
        "operation",
        "status",
        "actor",
        "on_behalf_of",
        "target",
        "correlation_id",
        "parent_execution_id",
    ),
    *("agent_version", "model_provider", "model_name", "confidence", "warnings", "provenance", "started_at", "ended_at"),
    *("root_execution_id", "kind", "session_id", "tags", "usage", "cost", "timeout_seconds", "deadline_at", "heartbeat_at"),
    *("trace_id", "span_id"),
    *("input", "output", "metadata", "created_at", "updated_at", "created_by_subject"),
}
STACK: Final = 'Traceback:\n\tFile "a.py", line 1\r\n\nValueError: no\n'


async def test_an_execution_starts_running_as_who_started_it(service: Service, alice: Caller) -> None:
    organization, project = await new_place(alice)
    await alice.grant("PROJECT", project["id"], "agent:summarizer", "PROJECT_EDITOR")
    body = {"organization_id": organization["id"], "project_id": project["id"], "operation": "op"}
    made = await service.as_("agent:summarizer").post("/executions", body)
    execution = made.json()
    assert set(execution) == FIELDS
    assert (execution["organization_id"], execution["project_id"]) == (organization["id"], project["id"])
    assert (execution["status"], execution["operation"]) == ("RUNNING", "op")
    assert execution["actor"] == {"type": "AGENT", "id": "summarizer"}
    assert execution["created_by_subject"] == "agent:summarizer"
    absent = (
        "on_behalf_of",
        "target",
        "correlation_id",
        "parent_execution_id",
        "agent_version",
        "model_provider",
        "model_name",
        "confidence",
        "ended_at",
    )
    assert [execution[name] for name in absent] == [None] * len(absent)
    assert [execution[name] for name in ("provenance", "input", "output", "metadata", "warnings")] == [{}, {}, {}, {}, []]
    assert datetime.fromisoformat(execution["started_at"]).tzinfo is not None
    read = await alice.get(path_of(made))
    assert (read.json(), read.headers["etag"]) == (execution, made.headers["etag"])


async def test_everything_given_comes_back(alice: Caller) -> None:
    _, project = await new_place(alice)
    document = await alice.new_document(project["id"])
    parent = await new_execution(alice, project)
    body = {
        "correlation_id": "c 1",
        "parent_execution_id": parent["id"],
        "agent_version": "1.2",
        "model_provider": "acme",
        "model_name": "m-1",
        "confidence": 0.1,
        "warnings": ["w1", STACK, ""],
        "provenance": {"p": None},
        "input": {"i": [1, None]},
        "metadata": {"m": "ü"},
    }
    execution = await new_execution(alice, project, **body, target_type="DOCUMENT", target_id=document["id"])
    assert {name: execution[name] for name in body} == body
    assert execution["target"] == {"type": "DOCUMENT", "id": document["id"]}
    assert (await alice.get(f"/executions/{execution['id']}")).json() == execution


async def test_every_kind_of_target_in_the_project_is_taken_and_is_what_the_trail_speaks_of(alice: Caller) -> None:
    organization, project = await new_place(alice)
    call, document = await new_call(alice, project["id"]), await alice.new_document(project["id"])
    targets = {"ORGANIZATION": organization["id"], "PROJECT": project["id"], "DOCUMENT": document["id"], "API_CALL": call["id"]}
    for target_type, target_id in targets.items():
        execution = await new_execution(alice, project, target_type=target_type, target_id=target_id, model_name="m")
        assert execution["target"] == {"type": target_type, "id": target_id}
        await alice.post(f"/executions/{execution['id']}/complete", {}, 200)
        events = await events_of(alice, resource_id=target_id, project_id=project["id"])
        told = [(event["action"], event["details"]) for event in events if event["action"].startswith("EXECUTION")]
        start = {"execution_id": execution["id"], "operation": "op", "model_provider": None, "model_name": "m"}
        assert told == [("EXECUTION_STARTED", start), ("EXECUTION_COMPLETED", {"execution_id": execution["id"]})]


async def test_what_does_not_belong_together_is_refused_and_leaves_no_row(service: Service, alice: Caller, mallory: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    own_other, own_project = await new_place(alice)
    foreign, foreign_project = await new_place(mallory)
    parents = {
        "of another organization of the caller": await new_execution(alice, own_project),
        "of another tenant": await new_execution(mallory, foreign_project),
    }
    elsewhere = {
        "DOCUMENT": [(await alice.new_document(place["id"]))["id"] for place in (sibling, own_project)],
        "API_CALL": [(await new_call(alice, place["id"]))["id"] for place in (sibling, own_project)],
        "PROJECT": [sibling["id"], own_project["id"], foreign_project["id"], organization["id"]],
        "ORGANIZATION": [own_other["id"], foreign["id"], project["id"]],
    }
    rows, successes = await count_rows(service, "executions"), "SELECT count(*) FROM audit_events WHERE outcome = 'SUCCESS'"
    events = await run_sql(service, successes)
    whole = {"organization_id": organization["id"], "project_id": project["id"], "operation": "op"}

    async def refused(pointer: str, **body: Any) -> None:
        assert set(pointers_of(await alice.post("/executions", {**whole, **body}, 422))) == {pointer}, body

    for other in (own_other["id"], foreign["id"], str(uuid4()), project["id"]):
        await refused("/organization_id", organization_id=other)
    await alice.post("/executions", {**whole, "project_id": str(uuid4())}, 404)
    await alice.post("/executions", {**whole, "organization_id": foreign["id"], "project_id": foreign_project["id"]}, 404)
    await refused("/parent_execution_id", parent_execution_id=str(uuid4()))
    for parent in parents.values():
        await refused("/parent_execution_id", parent_execution_id=parent["id"])
    for target_type, ids in elsewhere.items():
        for target_id in [*ids, str(uuid4())]:
            await refused("/target_id", target_type=target_type, target_id=target_id)
    await refused("/target_id", target_type="DOCUMENT", target_id=elsewhere["API_CALL"][0])
    await refused("", target_type="PROJECT")
    await refused("", target_id=project["id"])
    await refused("/target_type", target_type="EXECUTION", target_id=project["id"])
    assert await count_rows(service, "executions") == rows
    assert await run_sql(service, successes) == events


async def test_a_parent_may_lie_in_another_project_of_the_organization(alice: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    parent = await new_execution(alice, project)
    child = await new_execution(alice, sibling, parent_execution_id=parent["id"])
    assert child["parent_execution_id"] == parent["id"]


async def test_a_value_that_cannot_be_accepted_starts_nothing(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    whole = {"organization_id": project["organization_id"], "project_id": project["id"], "operation": "op"}
    for name in whole:
        assert set(pointers_of(await alice.post("/executions", {key: whole[key] for key in whole if key != name}, 422))) == {f"/{name}"}
    refused_values: tuple[tuple[str, Any], ...] = (
        *(("confidence", bad) for bad in (-0.0001, 1.0001, 7, -1, "high")),
        *((name, bad) for name in ("operation", "agent_version", "model_provider", "model_name") for bad in ("", "n" * 256, "a\nb")),
        *(("correlation_id", bad) for bad in ("", "a/b", "c" * 257)),
        *((name, {"big": "x" * 65_537}) for name in ("input", "provenance", "metadata")),
        ("warnings", ["w"] * 101),
        ("warnings", "w"),
        ("parent_execution_id", "x"),
        ("status", "COMPLETED"),
        ("actor", {"type": "USER", "id": "bob"}),
    )
    for name, value in refused_values:
        assert set(pointers_of(await alice.post("/executions", {**whole, name: value}, 422))) == {f"/{name}"}, value
    for warning in ("w" * 2001, "a\x00"):
        assert set(pointers_of(await alice.post("/executions", {**whole, "warnings": ["ok", warning]}, 422))) == {"/warnings/1"}
    for raw in ("NaN", "Infinity", "-Infinity", "1e999"):
        content = (
            f'{{"organization_id": "{project["organization_id"]}", "project_id": "{project["id"]}", "operation": "o", "confidence": {raw}}}'
        )
        refused = await alice.post("/executions", None, 422, content=content, headers={"Content-Type": "application/json"})
        assert set(pointers_of(refused)) == {"/confidence"}
    assert await count_rows(service, "executions") == 0
    for confidence in (0, 1, 0.5, None):
        assert (await new_execution(alice, project, confidence=confidence))["confidence"] == confidence


async def test_completing_keeps_the_output_and_replaces_metadata_only_when_given(alice: Caller) -> None:
    _, project = await new_place(alice)
    for body, output, metadata in (
        ({}, {}, {"a": 1}),
        ({"output": {"o": None}}, {"o": None}, {"a": 1}),
        ({"metadata": {"b": 2}}, {}, {"b": 2}),
        ({"metadata": {}}, {}, {}),
        ({"metadata": None}, {}, {"a": 1}),
    ):
        execution = await new_execution(alice, project, metadata={"a": 1}, input={"i": 1})
        ended = (await alice.post(f"/executions/{execution['id']}/complete", body, 200)).json()
        assert (ended["status"], ended["output"], ended["metadata"]) == ("COMPLETED", output, metadata)
        assert datetime.fromisoformat(ended["ended_at"]) >= datetime.fromisoformat(ended["started_at"])
        kept = FIELDS - {"status", "output", "metadata", "ended_at", "updated_at"}
        assert {name: ended[name] for name in kept} == {name: execution[name] for name in kept}
        assert (await alice.get(f"/executions/{execution['id']}")).json() == ended


async def test_failing_merges_metadata_and_keeps_the_error_in_it(alice: Caller) -> None:
    _, project = await new_place(alice)
    for body, metadata in (
        ({}, {"a": 1, "b": 1}),
        ({"metadata": {"b": 2, "c": None}}, {"a": 1, "b": 2, "c": None}),
        ({"error_code": "E42", "error_message": STACK}, {"a": 1, "b": 1, "error_code": "E42", "error_message": STACK}),
        ({"error_code": "E", "metadata": {"error_code": "not this", "b": 3}}, {"a": 1, "b": 3, "error_code": "E"}),
    ):
        execution = await new_execution(alice, project, metadata={"a": 1, "b": 1})
        ended = (await alice.post(f"/executions/{execution['id']}/fail", body, 200)).json()
        assert (ended["status"], ended["metadata"], ended["output"]) == ("FAILED", metadata, {})
        assert ended["ended_at"] is not None
        (event,) = await events_of(
            alice, action="EXECUTION_FAILED", resource_id=project["id"], sort="occurred_at", direction="desc", size=1
        )
        told = {"error_code": body.get("error_code"), "error_message": body.get("error_message")}
        assert event["details"] == {"execution_id": execution["id"], **told}


async def test_an_end_that_cannot_be_accepted_ends_nothing(alice: Caller) -> None:
    _, project = await new_place(alice)
    execution = await new_execution(alice, project)
    path = f"/executions/{execution['id']}"
    for end, body, pointer in (
        ("complete", {"output": {"big": "x" * 65_537}}, "/output"),
        ("complete", {"output": []}, "/output"),
        ("complete", {"status": "CANCELLED"}, "/status"),
        ("fail", {"error_message": "m" * 8001}, "/error_message"),
        ("fail", {"error_message": "a\x00"}, "/error_message"),
        ("fail", {"error_code": "c" * 256}, "/error_code"),
        ("fail", {"metadata": {"big": "x" * 65_537}}, "/metadata"),
        ("fail", {"output": {}}, "/output"),
    ):
        assert pointers_of(await alice.post(f"{path}/{end}", body, 422)) == [pointer]
    for end in ("complete", "fail"):
        await alice.post(f"{path}/{end}", None, 422)
        raw = '{"metadata": {"a": "\\ud800"}}'
        await alice.post(f"{path}/{end}", None, 422, content=raw, headers={"Content-Type": "application/json"})
        read_problem(await alice.post(f"/executions/{uuid4()}/{end}", {}, 404), 404, "not_found")
    assert (await alice.get(path)).json() == execution


async def test_an_ended_execution_stays_as_it_ended(alice: Caller) -> None:
    _, project = await new_place(alice)
    for first in ("complete", "fail"):
        execution = await new_execution(alice, project)
        path = f"/executions/{execution['id']}"
        ended = (await alice.post(f"{path}/{first}", {}, 200)).json()
        for second, body in (("complete", {"output": {"late": 1}}), ("fail", {"error_code": "LATE"})):
            read_problem(await alice.post(f"{path}/{second}", body, 409), 409, "already_ended")
        assert (await alice.get(path)).json() == ended


@pytest.mark.parametrize("ends", [("complete",), ("fail",), ("complete", "fail")], ids=["complete", "fail", "both"])
async def test_of_twenty_ends_at_once_exactly_one_wins(alice: Caller, ends: tuple[str, ...]) -> None:
    _, project = await new_place(alice)
    execution = await new_execution(alice, project, metadata={"kept": 1})
    path = f"/executions/{execution['id']}"
    bodies = [(ends[number % len(ends)], {"metadata": {"number": number}}) for number in range(20)]
    answers = await at_once(*(alice.post(f"{path}/{end}", body, None) for end, body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    assert {read_problem(answer, 409)["code"] for answer in answers if answer.status_code == 409} == {"already_ended"}
    (won,) = [answer.json() for answer in answers if answer.status_code == 200]
    assert (await alice.get(path)).json() == won
    told = [event["action"] for event in await events_of(alice, resource_id=project["id"]) if event["action"].startswith("EXECUTION")]
    assert told == ["EXECUTION_STARTED", f"EXECUTION_{won['status']}"]


async def test_an_end_is_attributed_to_who_ends_it(service: Service, alice: Caller, bob: Caller) -> None:
    _, project = await new_place(alice)
    await alice.grant("PROJECT", project["id"], "user:bob", "PROJECT_EDITOR")
    for end, action in (("complete", "EXECUTION_COMPLETED"), ("fail", "EXECUTION_FAILED")):
        execution = await new_execution(alice, project, correlation_id="its own")
        headers = {"X-Correlation-ID": "the request's", "X-Request-ID": f"req-{end}"}
        ended = (await bob.post(f"/executions/{execution['id']}/{end}", {}, 200, headers=headers)).json()
        assert (ended["actor"], ended["created_by_subject"]) == ({"type": "USER", "id": "alice"}, "user:alice")
        (event,) = await events_of(alice, action=action)
        assert (event["actor"], event["request_id"]) == ({"type": "USER", "id": "bob"}, f"req-{end}")
        assert event["correlation_id"] == "its own"
        assert await events_of(alice, action=action, actor_type="USER", actor_id="alice") == []
    started = await events_of(alice, action="EXECUTION_STARTED")
    assert {event["actor"]["id"] for event in started} == {"alice"}


async def test_roles_decide_who_starts_ends_and_reads(service: Service, alice: Caller, mallory: Caller) -> None:
    organization, project = await new_place(alice)
    call = await new_call(alice, project["id"])
    await alice.grant("API_CALL", call["id"], "user:leaf", "API_CALL_OWNER")
    await alice.grant("PROJECT", project["id"], "user:viewer", "PROJECT_VIEWER")
    await alice.grant("ORGANIZATION", organization["id"], "user:member", "ORG_MEMBER")
    execution = await new_execution(alice, project, target_type="API_CALL", target_id=call["id"], correlation_id="c")
    start = {"organization_id": organization["id"], "project_id": project["id"], "operation": "op"}
    path = f"/executions/{execution['id']}"
    lists = ("/executions/by-correlation/c", "/executions")
    for who, reads, writes in (("viewer", 200, 403), ("member", 200, 403), ("leaf", 404, 404), ("mallory", 404, 404)):
        caller = service.as_(f"user:{who}")
        for sub in ("", "/children"):
            await caller.get(path + sub, reads)
        await caller.get(f"/executions/by-project/{project['id']}", reads)
        await caller.post("/executions", start, writes)
        for end in ("complete", "fail"):
            await caller.post(f"{path}/{end}", {}, writes)
        found = [(await caller.get(address)).json() for address in lists]
        assert [found[0], found[1]["items"]] == ([[execution]] * 2 if reads == 200 else [[], []])
    await service.as_(None).get(path, 401)
    await service.as_(None).post(f"{path}/complete", {}, 401)
    assert (await alice.get(path)).json() == execution
    assert len(await events_of(alice, action="EXECUTION_STARTED")) == 1
