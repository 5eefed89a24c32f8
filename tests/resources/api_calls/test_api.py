"""API calls over HTTP: what is kept of them, how they move, and who may do what with them."""

from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import at_once, count_rows, events_of, path_of, pointers_of, read_problem, run_sql
from tests.support.record import new_call, new_place

pytestmark = pytest.mark.anyio

ENDS: Final = ("COMPLETED", "FAILED", "CANCELLED")

# From (row) to (column): 2 = it moves, 4 = 409. Written by hand: the service's own table is what is tested.
MOVES: Final = """
            RECEIVED PROCESSING COMPLETED FAILED CANCELLED
RECEIVED    2        2          2         2      2
PROCESSING  4        2          2         2      2
COMPLETED   4        4          4         4      4
FAILED      4        4          4         4      4
CANCELLED   4        4          4         4      4
"""
FIELDS: Final = {
    *("id", "organization_id", "project_id", "name", "operation_key", "external_request_id", "idempotency_key", "correlation_id"),
    *("status", "requested_at", "responded_at", "request_payload", "response_payload", "metadata"),
    *("created_at", "updated_at", "created_by_subject"),
}


async def test_a_new_call_is_received_and_bare(alice: Caller) -> None:
    organization, project = await new_place(alice)
    made = await alice.post(f"/projects/{project['id']}/api-calls", {"name": " call ", "operation_key": "op"})
    call = made.json()
    assert set(call) == FIELDS
    assert (call["name"], call["operation_key"], call["status"]) == ("call", "op", "RECEIVED")
    assert (call["organization_id"], call["project_id"]) == (organization["id"], project["id"])
    absent = ("external_request_id", "idempotency_key", "correlation_id", "responded_at")
    assert [call[name] for name in absent] == [None] * 4
    assert [call[name] for name in ("request_payload", "response_payload", "metadata")] == [{}] * 3
    assert call["requested_at"] == call["created_at"] == call["updated_at"]
    assert call["created_by_subject"] == "user:alice"
    read = await alice.get(path_of(made))
    assert (read.json(), read.headers["etag"]) == (call, made.headers["etag"])
    await alice.get(path_of(made), 304, headers={"If-None-Match": made.headers["etag"]})


async def test_everything_given_comes_back(alice: Caller) -> None:
    _, project = await new_place(alice)
    body = {
        "name": "Übertragung",
        "operation_key": "k",
        "external_request_id": "x1",
        "idempotency_key": "i1",
        "correlation_id": "c 1",
        "request_payload": {"a": [1, {"b": None}], "n": None},
        "metadata": {"m": "ü", "t": True},
    }
    call = await new_call(alice, project["id"], **body)
    assert {name: call[name] for name in body} == body
    changes = {"response_payload": {"empty": None, "list": [None]}, "metadata": {"other": None}}
    changed = (await alice.patch(f"/api-calls/{call['id']}", changes)).json()
    assert {name: changed[name] for name in changes} == changes, "metadata is replaced whole, and null inside an object is a value"
    assert (await alice.get(f"/api-calls/{call['id']}")).json() == changed


async def test_every_change_is_told_in_the_audit_trail(alice: Caller) -> None:
    organization, project = await new_place(alice)
    call = await new_call(alice, project["id"], correlation_id="its own")
    path = f"/api-calls/{call['id']}"
    await alice.patch(path, {"status": "PROCESSING", "metadata": None}, headers={"X-Correlation-ID": "the request's"})
    await alice.patch(path, {"status": "COMPLETED", "response_payload": {"ok": True}})
    await alice.delete(path)

    def moved(before: str, after: str) -> dict[str, Any]:
        return {"status": after, "before": {"status": before}, "after": {"status": after}}

    events = await events_of(alice, organization_id=organization["id"], resource_type="API_CALL", resource_id=call["id"])
    assert [(event["action"], event["details"]) for event in events] == [
        ("API_CALL_CREATED", {"name": "call", "operation_key": "op", "status": "RECEIVED"}),
        ("API_CALL_UPDATED", {**moved("RECEIVED", "PROCESSING"), "changed": ["status"], "request_correlation_id": "the request's"}),
        ("API_CALL_UPDATED", {**moved("PROCESSING", "COMPLETED"), "changed": ["response_payload", "status"]}),
        ("API_CALL_DELETED", {"name": "call"}),
    ]
    assert {event["correlation_id"] for event in events} == {"its own"}
    assert {event["project_id"] for event in events} == {project["id"]}


async def test_a_change_of_nothing_records_nothing(alice: Caller) -> None:
    _, project = await new_place(alice)
    call = await new_call(alice, project["id"])
    for nothing in ({}, {"status": None}, {"status": None, "metadata": None, "response_payload": None}):
        assert (await alice.patch(f"/api-calls/{call['id']}", nothing)).json() == call
    assert [event["action"] for event in await events_of(alice, resource_id=call["id"])] == ["API_CALL_CREATED"]


async def test_statuses_follow_each_other_only_as_the_table_says(alice: Caller) -> None:
    _, project = await new_place(alice)
    _, columns, *rows = MOVES.split("\n")[:-1]
    assert len(rows) == len(columns.split()) == 5
    for row in rows:
        before, *answers = row.split()
        for after, answer in zip(columns.split(), answers, strict=True):
            call = await new_call(alice, project["id"])
            path = f"/api-calls/{call['id']}"
            standing = call if before == "RECEIVED" else (await alice.patch(path, {"status": before})).json()
            moved = await alice.patch(path, {"status": after}, None)
            assert moved.status_code == {"2": 200, "4": 409}[answer], f"{before} -> {after}: {moved.text}"
            now = (await alice.get(path)).json()
            if answer == "4":
                read_problem(moved, 409, "already_ended" if before in ENDS else "status_not_allowed")
                assert now == standing, f"{before} -> {after} was refused and changed something"
            else:
                assert now == moved.json()
                assert now["status"] == after
                assert (now["responded_at"] is not None) == (after in ENDS)


async def test_an_end_stamps_responded_at_once_and_nothing_changes_after_it(alice: Caller) -> None:
    _, project = await new_place(alice)
    for end in ENDS:
        call = await new_call(alice, project["id"])
        path = f"/api-calls/{call['id']}"
        working = (await alice.patch(path, {"status": "PROCESSING", "response_payload": {"so": "far"}})).json()
        assert working["responded_at"] is None
        ended = (await alice.patch(path, {"status": end})).json()
        assert ended["response_payload"] == {"so": "far"}
        moments = [datetime.fromisoformat(ended[name]) for name in ("requested_at", "responded_at", "updated_at")]
        assert moments == sorted(moments)
        for change in ({"response_payload": {"late": 1}}, {"metadata": {"late": 1}}, {"status": "RECEIVED", "metadata": {}}):
            read_problem(await alice.patch(path, change, 409), 409, "already_ended")
        assert (await alice.get(path)).json() == ended


async def test_of_twenty_different_ends_at_once_exactly_one_wins(alice: Caller) -> None:
    _, project = await new_place(alice)
    call = await new_call(alice, project["id"])
    path = f"/api-calls/{call['id']}"
    changes = [{"status": ENDS[number % 3], "response_payload": {"number": number}} for number in range(20)]
    answers = await at_once(*(alice.patch(path, change, None) for change in changes))
    won = [answer for answer in answers if answer.status_code == 200]
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    assert {read_problem(answer, 409)["code"] for answer in answers if answer.status_code == 409} == {"already_ended"}
    assert (await alice.get(path)).json() == won[0].json()
    updates = await events_of(alice, resource_id=call["id"], action="API_CALL_UPDATED")
    assert [event["details"]["status"] for event in updates] == [won[0].json()["status"]]


async def test_if_match_guards_a_call(alice: Caller) -> None:
    _, project = await new_place(alice)
    call = await new_call(alice, project["id"])
    path = f"/api-calls/{call['id']}"
    first = (await alice.get(path)).headers["etag"]
    second = (await alice.patch(path, {"status": "PROCESSING"}, headers={"If-Match": first})).headers["etag"]
    assert second != first
    await alice.patch(path, {"status": "COMPLETED"}, 412, headers={"If-Match": first})
    await alice.delete(path, 412, headers={"If-Match": first})
    racing = await at_once(*(alice.patch(path, {"metadata": {"n": n}}, None, headers={"If-Match": second}) for n in range(8)))
    assert sorted(answer.status_code for answer in racing) == [200] + [412] * 7


UNREADABLE: Final = (
    '{"big": "' + "x" * 65_537 + '"}',
    '{"' + "k" * 65_537 + '": 1}',
    '{"many": [' + ",".join(["1"] * 40_000) + "]}",
    '{"deep": ' + "[" * 32 + "]" * 32 + "}",
    '{"deep": ' + "[" * 300 + "]" * 300 + "}",
    '{"a": NaN}',
    '{"a": [Infinity]}',
    '{"a": 1e999}',
    '{"a": "\\ud800"}',
    '{"\\udfff": 1}',
    '{"a": "\\u0000"}',
    "[]",
    '"text"',
)


async def test_a_payload_that_could_not_be_read_back_is_refused(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    call = await new_call(alice, project["id"])
    events = await count_rows(service, "audit_events")
    calls, json = f"/projects/{project['id']}/api-calls", {"Content-Type": "application/json"}
    for content in UNREADABLE:
        for field in ("request_payload", "metadata"):
            body = f'{{"name": "n", "operation_key": "o", "{field}": {content}}}'
            assert pointers_of(await alice.post(calls, None, 422, content=body, headers=json)) == [f"/{field}"], content[:30]
        for field in ("response_payload", "metadata"):
            body = f'{{"{field}": {content}}}'
            refused = await alice.request("PATCH", f"/api-calls/{call['id']}", 422, content=body, headers=json)
            assert pointers_of(refused) == [f"/{field}"], content[:30]
    bottomless = '{"name": "n", "operation_key": "o", "metadata": {"a": ' + "[" * 20_000 + "]" * 20_000 + "}}"
    assert (await alice.post(calls, None, None, content=bottomless, headers=json)).status_code in {400, 422}
    assert (await alice.get(calls)).json() == [call]
    assert await count_rows(service, "audit_events") == events


async def test_a_payload_just_within_the_limits_is_kept(alice: Caller) -> None:
    _, project = await new_place(alice)
    deep: Any = []
    for _ in range(30):
        deep = [deep]
    for payload in ({"big": "x" * 65_500}, {"deep": deep}):
        call = await new_call(alice, project["id"], request_payload=payload, metadata=payload)
        changed = (await alice.patch(f"/api-calls/{call['id']}", {"response_payload": payload})).json()
        assert changed["request_payload"] == changed["metadata"] == changed["response_payload"] == payload


async def test_a_value_that_cannot_be_accepted_makes_no_call(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    calls, whole = f"/projects/{project['id']}/api-calls", {"name": "n", "operation_key": "o"}
    for name in whole:
        assert pointers_of(await alice.post(calls, {key: whole[key] for key in whole if key != name}, 422)) == [f"/{name}"]
    for name, value in (
        *(("name", bad) for bad in ("", " ", "n" * 256, "a\nb", None, 7)),
        *((name, bad) for name in ("operation_key", "external_request_id", "idempotency_key") for bad in ("", "k" * 256, "a\x00")),
        *(("correlation_id", bad) for bad in ("", "a/b", "c" * 257)),
        ("status", "COMPLETED"),
        ("organization_id", str(uuid4())),
    ):
        assert pointers_of(await alice.post(calls, {**whole, name: value}, 422)) == [f"/{name}"], value
    assert await count_rows(service, "api_calls") == 0


async def test_a_change_that_cannot_be_accepted_changes_nothing(alice: Caller) -> None:
    _, project = await new_place(alice)
    call = await new_call(alice, project["id"])
    for body, pointer in (({"status": "completed"}, "/status"), ({"status": "DONE"}, "/status"), ({"name": "other"}, "/name")):
        assert pointers_of(await alice.patch(f"/api-calls/{call['id']}", body, 422)) == [pointer]
    assert (await alice.get(f"/api-calls/{call['id']}")).json() == call


async def test_what_is_absent_is_not_found(alice: Caller) -> None:
    _, project = await new_place(alice)
    absent = f"/api-calls/{uuid4()}"
    read_problem(await alice.get(absent, 404), 404, "not_found")
    read_problem(await alice.patch(absent, {"status": "FAILED"}, 404), 404)
    read_problem(await alice.delete(absent, 404), 404)
    read_problem(await alice.post(f"/projects/{uuid4()}/api-calls", {"name": "n", "operation_key": "o"}, 404), 404)
    read_problem(await alice.get(f"/projects/{uuid4()}/api-calls", 404), 404)
    await alice.delete(f"/projects/{project['id']}")
    read_problem(await alice.post(f"/projects/{project['id']}/api-calls", {"name": "n", "operation_key": "o"}, 404), 404)


@pytest.mark.parametrize(
    ("role", "may_change", "may_share", "may_delete"),
    [("API_CALL_VIEWER", False, False, False), ("API_CALL_EDITOR", True, False, False), ("API_CALL_OWNER", True, True, True)],
)
async def test_a_role_on_one_call_opens_that_call_alone(
    alice: Caller, bob: Caller, role: str, may_change: bool, may_share: bool, may_delete: bool
) -> None:
    _, project = await new_place(alice)
    shared, hidden = [await new_call(alice, project["id"], correlation_id="same") for _ in range(2)]
    await alice.grant("API_CALL", shared["id"], "user:bob", role)
    path = f"/api-calls/{shared['id']}"
    assert (await bob.get(path)).json() == shared
    page = (await bob.get("/api-calls")).json()
    assert (page["items"], page["total_items"]) == ([shared], 1)
    assert (await bob.get("/api-calls/by-correlation/same")).json() == [shared]
    for method, body in (("GET", None), ("PATCH", {"status": "FAILED"}), ("DELETE", None)):
        await bob.request(method, f"/api-calls/{hidden['id']}", 404, json=body)
    await bob.get(f"/projects/{project['id']}/api-calls", 404)
    await bob.post(f"/projects/{project['id']}/api-calls", {"name": "n", "operation_key": "o"}, 404)
    await bob.patch(path, {"status": "PROCESSING"}, 200 if may_change else 403)
    await bob.grant("API_CALL", shared["id"], "user:carol", "API_CALL_VIEWER", 201 if may_share else 403)
    await bob.delete(path, 204 if may_delete else 403)
    await alice.get(path, 404 if may_delete else 200)


async def test_a_deleted_call_takes_its_grants_along(service: Service, alice: Caller, bob: Caller) -> None:
    _, project = await new_place(alice)
    gone, kept = [await new_call(alice, project["id"]) for _ in range(2)]
    for call in (gone, kept):
        await alice.grant("API_CALL", call["id"], "user:bob", "API_CALL_EDITOR")
        await alice.grant("API_CALL", call["id"], "group:ops", "API_CALL_VIEWER")
    await alice.delete(f"/api-calls/{gone['id']}")
    await alice.delete(f"/api-calls/{gone['id']}", 404)
    await bob.get(f"/api-calls/{gone['id']}", 404)
    assert [item["id"] for item in (await bob.get("/api-calls")).json()["items"]] == [kept["id"]]
    left = await run_sql(service, "SELECT role FROM memberships WHERE resource_type = 'API_CALL'")
    assert sorted(role for (role,) in left) == ["API_CALL_EDITOR", "API_CALL_VIEWER"]


async def test_roles_above_a_call_count_below(service: Service, alice: Caller, mallory: Caller) -> None:
    _, project = await new_place(alice)
    call = await new_call(alice, project["id"])
    path, calls = f"/api-calls/{call['id']}", f"/projects/{project['id']}/api-calls"
    new = {"name": "n", "operation_key": "o"}
    for who, role, may_write in (("user:v", "PROJECT_VIEWER", False), ("user:e", "PROJECT_EDITOR", True)):
        await alice.grant("PROJECT", project["id"], who, role)
        caller = service.as_(who)
        await caller.get(path)
        await caller.post(calls, new, 201 if may_write else 403)
        await caller.patch(path, {"metadata": {}}, 200 if may_write else 403)
        await caller.delete(path, 403)
    for method, body in (("GET", None), ("PATCH", {"status": "FAILED"}), ("DELETE", None)):
        await mallory.request(method, path, 404, json=body)
        await service.as_(None).request(method, path, 401, json=body)
    await mallory.post(calls, new, 404)
    assert (await mallory.get("/api-calls")).json()["items"] == []
