"""Lists of API calls: filters, order, pages, and what belongs together."""

from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import events_of, next_link_of, pointers_of, run_sql
from tests.support.record import ids_sorted, keyset_pages, new_call, new_place, numbered_pages

pytestmark = pytest.mark.anyio

COLUMNS: Final = ("name", "requested_at", "responded_at", "created_at", "updated_at", "status", "operation_key")
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def _mixed_calls(alice: Caller, project_id: str) -> list[Any]:
    calls = [await new_call(alice, project_id, name=f"n{number % 3}", operation_key=f"o{number % 4}") for number in range(8)]
    for number, end in ((6, "FAILED"), (1, "COMPLETED"), (4, "CANCELLED")):
        await alice.patch(f"/api-calls/{calls[number]['id']}", {"status": end})
    await alice.patch(f"/api-calls/{calls[2]['id']}", {"status": "PROCESSING"})
    return [(await alice.get(f"/api-calls/{call['id']}")).json() for call in calls]


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_every_column_sorts_in_both_ways_of_paging_and_what_has_not_ended_comes_last(alice: Caller, direction: str) -> None:
    _, project = await new_place(alice)
    calls = await _mixed_calls(alice, project["id"])
    assert sum(call["responded_at"] is None for call in calls) == 5
    for column in COLUMNS:
        wanted = ids_sorted(calls, column, descending=direction == "desc")
        for size in (1, 2, 3, 8):  # 3 ends a page exactly where the values end
            found = await numbered_pages(alice, "/api-calls", size, sort=column.upper(), direction=direction)
            assert found == wanted, f"{column} in pages of {size}"
            found = await keyset_pages(alice, "/api-calls", size, sort=column, direction=direction)
            assert found == wanted, f"{column} in keyset pages of {size}"
    wanted = ids_sorted(calls, "requested_at", descending=direction == "desc")
    assert await keyset_pages(alice, "/api-calls", 3, direction=direction) == wanted, "requested_at is the order nobody asked for"


async def test_ends_at_the_same_moment_are_told_apart_by_id(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    await _mixed_calls(alice, project["id"])
    await run_sql(service, "UPDATE api_calls SET responded_at = (SELECT max(responded_at) FROM api_calls) WHERE responded_at IS NOT NULL")
    calls = (await alice.get("/api-calls")).json()["items"]
    assert len({call["responded_at"] for call in calls}) == 2
    for direction in ("asc", "desc"):
        wanted = ids_sorted(calls, "responded_at", descending=direction == "desc")
        for size in (1, 2):
            assert await numbered_pages(alice, "/api-calls", size, sort="responded_at", direction=direction) == wanted
            assert await keyset_pages(alice, "/api-calls", size, sort="responded_at", direction=direction) == wanted


async def test_each_filter_is_exact_and_they_narrow_each_other(alice: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    other, elsewhere = await new_place(alice)
    given = {"operation_key": "ocr", "external_request_id": "x1", "idempotency_key": "i1", "correlation_id": "c" * 256}
    wanted = await new_call(alice, project["id"], **given)
    longer = {name: (value + "2")[-255:] for name, value in given.items()}
    beside = [await new_call(alice, place["id"], **longer) for place in (project, sibling, elsewhere)]
    wanted = (await alice.patch(f"/api-calls/{wanted['id']}", {"status": "FAILED"})).json()

    async def found(**filters: str) -> list[str]:
        page = (await alice.get("/api-calls", params=filters)).json()
        assert page["total_items"] == len(page["items"])
        return [item["id"] for item in page["items"]]

    for name, value in (*given.items(), ("status", "FAILED")):
        assert await found(**{name: value}) == [wanted["id"]], name
        assert await found(**{name: value, "project_id": sibling["id"]}) == []
    assert await found(organization_id=organization["id"]) == [wanted["id"], beside[0]["id"], beside[1]["id"]]
    assert await found(organization_id=other["id"]) == [beside[2]["id"]]
    assert await found(project_id=project["id"]) == [wanted["id"], beside[0]["id"]]
    assert await found(project_id=project["id"], status="RECEIVED") == [beside[0]["id"]]
    assert await found(project_id=str(uuid4())) == await found(operation_key="OCR") == await found(operation_key="%") == []
    assert len(await found(correlation_id="")) == 4, "a filter without a text filters nothing"


async def test_a_filter_or_order_that_does_not_exist_is_refused(alice: Caller) -> None:
    for name, value in (
        *(("status", "received"), ("status", "DONE"), ("project_id", "x"), ("organization_id", "x"), ("operation_key", "a\x00")),
        *(("correlation_id", "c" * 257), ("sort", "id"), ("sort", "request_payload"), ("direction", "up"), ("size", "501"), ("limit", "0")),
    ):
        assert pointers_of(await alice.get("/api-calls", 422, params={name: value})) == [f"query.{name}"]


async def test_a_cursor_belongs_to_its_order_and_filters(alice: Caller) -> None:
    _, project = await new_place(alice)
    await _mixed_calls(alice, project["id"])
    asked = {"sort": "responded_at", "limit": 4}
    cursor = (await alice.get("/api-calls", params=asked)).json()["next_cursor"]
    await alice.get("/api-calls", params={**asked, "cursor": cursor})
    for change in ({"sort": "name"}, {"direction": "desc"}, {"status": "FAILED"}):
        assert pointers_of(await alice.get("/api-calls", 422, params={**asked, "cursor": cursor, **change})) == ["query.cursor"]


async def test_the_calls_of_a_project_are_an_array_in_the_order_of_arrival(alice: Caller, service: Service) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    calls = [await new_call(alice, project["id"]) for _ in range(3)]
    await new_call(alice, sibling["id"])
    assert (await alice.get(f"/projects/{project['id']}/api-calls")).json() == calls
    copied = "organization_id, project_id, name, operation_key, request_digest, status, requested_at, request_payload, "
    copied += "response_payload, metadata, created_at, updated_at, created_by_subject, revision"
    statement = f"INSERT INTO api_calls (id, {copied}) SELECT :new, {copied} FROM api_calls WHERE id = :old"
    is_sqlite = service.runtime.context.database.is_sqlite  # which keeps an id as 32 digits
    pairs = [(uuid4(), UUID(calls[2]["id"])) for _ in range(1000)]
    await run_sql(service, statement, [{"new": new.hex if is_sqlite else new, "old": old.hex if is_sqlite else old} for new, old in pairs])
    answer = await alice.get(f"/projects/{project['id']}/api-calls")
    rest = (await alice.get(next_link_of(answer))).json()
    assert (len(answer.json()), len(rest["items"]), rest["has_more"]) == (1000, 3, False)
    assert len({item["id"] for item in answer.json() + rest["items"]}) == 1003


async def test_a_call_takes_its_correlation_from_the_request_unless_it_names_its_own(alice: Caller) -> None:
    _, project = await new_place(alice)
    path, bare = f"/projects/{project['id']}/api-calls", {"name": "n", "operation_key": "o"}
    trace = TRACE.split("-")[1]
    for headers, body, wanted in (
        ({"X-Correlation-ID": "order 7"}, {}, "order 7"),
        ({"traceparent": TRACE}, {}, trace),
        ({"traceparent": TRACE, "X-Correlation-ID": "order 7"}, {}, "order 7"),
        ({"traceparent": TRACE, "X-Correlation-ID": "order 7"}, {"correlation_id": "own"}, "own"),
        ({"traceparent": "00-nonsense-01"}, {}, None),
        ({"X-Correlation-ID": "c" * 257}, {}, None),
        ({"X-Correlation-ID": "c" * 256}, {}, "c" * 256),
    ):
        call = (await alice.post(path, {**bare, **body}, headers=headers)).json()
        assert call["correlation_id"] == wanted
        events = await events_of(alice, resource_id=call["id"])
        assert [event["correlation_id"] for event in events] == [wanted], "the event belongs where the call belongs"
    for correlation, count in (("order 7", 2), (trace, 1), ("own", 1), ("c" * 256, 1), ("ORDER 7", 0)):
        found = (await alice.get(f"/api-calls/by-correlation/{correlation}")).json()
        assert [item["correlation_id"] for item in found] == [correlation] * count


async def test_a_correlation_shared_by_two_tenants_shows_each_its_own(alice: Caller, mallory: Caller) -> None:
    for caller in (alice, mallory):
        _, project = await new_place(caller)
        own = [await new_call(caller, project["id"], correlation_id="shared") for _ in range(2)]
        assert (await caller.get("/api-calls/by-correlation/shared")).json() == own
        assert (await caller.get("/api-calls", params={"correlation_id": "shared"})).json()["items"] == own
