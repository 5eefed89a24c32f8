"""One call for one idempotency key, and a part of a transaction that may fail."""

import json
from typing import Any, Final
from uuid import UUID

import pytest

from app.audit.trail import Subject
from app.core.errors import ConflictError
from app.core.events import AuditAction
from app.core.resources import ResourceRef, ResourceType
from app.resources.projects.repository import ProjectRepository
from app.unit_of_work import open_system_work
from tests.conftest import Caller, Service
from tests.support.answers import at_once, count_rows, events_of, read_problem, run_sql
from tests.support.record import new_call, new_place

pytestmark = pytest.mark.anyio

BODY: Final[dict[str, Any]] = {
    "name": "call",
    "operation_key": "op",
    "idempotency_key": "key",
    "external_request_id": "x",
    "correlation_id": "c",
    "request_payload": {"a": 1, "b": {"c": [1, 2], "d": None}},
    "metadata": {"m": 1, "n": 2},
}


def _reversed(value: Any) -> Any:
    return {key: _reversed(value[key]) for key in reversed(value)} if isinstance(value, dict) else value


async def test_a_repeat_with_the_same_body_is_the_same_call(alice: Caller) -> None:
    _, project = await new_place(alice)
    path = f"/projects/{project['id']}/api-calls"
    first = await alice.post(path, BODY)
    repeats = [await alice.post(path, BODY, 200), await alice.post(path, BODY, 200, headers={"X-Correlation-ID": "another"})]
    for repeat in repeats:
        assert (repeat.json(), repeat.headers["etag"]) == (first.json(), first.headers["etag"])
        assert "location" not in repeat.headers
    assert [event["action"] for event in await events_of(alice, resource_type="API_CALL")] == ["API_CALL_CREATED"]


async def test_the_order_of_keys_in_the_body_does_not_matter(alice: Caller) -> None:
    _, project = await new_place(alice)
    path, turned = f"/projects/{project['id']}/api-calls", json.dumps(_reversed(BODY))
    assert turned != json.dumps(BODY)
    first = await alice.post(path, BODY)
    repeat = await alice.post(path, None, 200, content=turned, headers={"Content-Type": "application/json"})
    assert repeat.json() == first.json()


async def test_another_body_with_the_same_key_is_refused(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    path = f"/projects/{project['id']}/api-calls"
    call = (await alice.post(path, BODY)).json()
    for name in ("name", "external_request_id", "correlation_id"):
        read_problem(await alice.post(path, {**BODY, name: "other"}, 409), 409, "idempotency_key_reused")
        if name != "name":
            read_problem(await alice.post(path, {**BODY, name: None}, 409), 409, "idempotency_key_reused")
    for name in ("request_payload", "metadata"):
        for other in ({}, {**BODY[name], "more": None}, {**BODY[name], next(iter(BODY[name])): "1"}):
            read_problem(await alice.post(path, {**BODY, name: other}, 409), 409, "idempotency_key_reused")
    assert (await alice.get(path)).json() == [call]
    assert len(await run_sql(service, "SELECT id FROM audit_events WHERE action = 'API_CALL_CREATED'")) == 1


async def test_projects_operations_and_keys_are_independent(alice: Caller) -> None:
    organization, project = await new_place(alice)
    sibling = await alice.new_project(organization["id"])
    _, stranger = await new_place(alice)
    different = {**BODY, "name": "other"}
    made = [await new_call(alice, place["id"], **BODY) for place in (project, sibling, stranger)]
    made.append(await new_call(alice, project["id"], **{**different, "operation_key": "other"}))
    made.append(await new_call(alice, project["id"], **{**different, "idempotency_key": "KEY"}))
    made += [await new_call(alice, project["id"], **{**BODY, "idempotency_key": None}) for _ in range(2)]
    assert len({call["id"] for call in made}) == 7


async def test_a_repeat_shows_the_call_as_it_is_now_and_the_key_is_free_once_the_call_is_gone(alice: Caller) -> None:
    _, project = await new_place(alice)
    path = f"/projects/{project['id']}/api-calls"
    call = (await alice.post(path, BODY)).json()
    ended = (await alice.patch(f"/api-calls/{call['id']}", {"status": "COMPLETED", "metadata": {}})).json()
    assert (await alice.post(path, BODY, 200)).json() == ended
    await alice.delete(f"/api-calls/{call['id']}")
    assert (await alice.post(path, {**BODY, "name": "other"})).json()["id"] != call["id"]


async def test_a_key_opens_nothing_to_who_may_not_create(service: Service, alice: Caller, mallory: Caller) -> None:
    _, project = await new_place(alice)
    path = f"/projects/{project['id']}/api-calls"
    call = (await alice.post(path, BODY)).json()
    await alice.grant("PROJECT", project["id"], "user:viewer", "PROJECT_VIEWER")
    await alice.grant("PROJECT", project["id"], "user:editor", "PROJECT_EDITOR")
    await mallory.post(path, BODY, 404)
    await service.as_("user:viewer").post(path, BODY, 403)
    assert (await service.as_("user:editor").post(path, BODY, 200)).json() == call


async def test_fifty_at_once_make_one_call_and_one_event(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    path = f"/projects/{project['id']}/api-calls"
    answers = await at_once(*(alice.post(path, BODY, None) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.content for answer in answers}) == 1
    assert await count_rows(service, "api_calls") == 1
    assert len(await events_of(alice, action="API_CALL_CREATED")) == 1


async def test_of_many_different_bodies_at_once_one_wins(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    path = f"/projects/{project['id']}/api-calls"
    answers = await at_once(*(alice.post(path, {**BODY, "name": f"call {number % 4}"}, None) for number in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [201] + [409] * 15
    assert len({answer.json()["id"] for answer in answers if answer.status_code < 400}) == 1
    assert await count_rows(service, "api_calls") == 1
    assert len(await events_of(alice, action="API_CALL_CREATED")) == 1


async def test_an_attempt_that_fails_leaves_neither_rows_nor_events_and_the_rest_stays(service: Service, alice: Caller) -> None:
    organization, project = await new_place(alice)
    tenant, place = UUID(organization["id"]), UUID(project["id"])
    subject = Subject(ResourceRef(ResourceType.PROJECT, place), tenant, place)
    async with open_system_work(service.runtime.context, "test", tenant) as work:
        projects = ProjectRepository(work)
        await projects.update(place, {"name": "before"}, None)
        work.record(AuditAction.PROJECT_UPDATED, subject, name="before")
        with pytest.raises(ConflictError):  # noqa: PT012 - the attempt is what raises
            async with work.attempt():
                await projects.update(place, {"name": "attempted"}, None)
                work.record(AuditAction.PROJECT_UPDATED, subject, name="attempted")
                raise ConflictError("no")
        async with work.attempt():
            await projects.update(place, {"metadata": {"after": 1}}, None)
            work.record(AuditAction.PROJECT_UPDATED, subject, name="after")
    read = (await alice.get(f"/projects/{project['id']}")).json()
    assert (read["name"], read["metadata"]) == ("before", {"after": 1})
    updates = await events_of(alice, action="PROJECT_UPDATED")
    assert [event["details"]["name"] for event in updates] == ["before", "after"]


async def test_a_transaction_of_which_only_a_failed_attempt_changed_something_owes_no_event(service: Service, alice: Caller) -> None:
    organization, project = await new_place(alice)
    async with open_system_work(service.runtime.context, "test", UUID(organization["id"])) as work:
        with pytest.raises(ConflictError):  # noqa: PT012 - the attempt is what raises
            async with work.attempt():
                await ProjectRepository(work).update(UUID(project["id"]), {"name": "attempted"}, None)
                raise ConflictError("no")
    assert (await alice.get(f"/projects/{project['id']}")).json() == project
