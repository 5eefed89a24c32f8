"""What is answered to who ends an execution but may not read it; and how much may be merged into its metadata at the end."""

from typing import Any

import pytest

from app.core.text import MAX_JSON_BYTES
from tests.conftest import Caller, Service
from tests.support.answers import pointers_of
from tests.support.keys import key_of
from tests.support.record import new_call, new_execution, new_place

pytestmark = pytest.mark.anyio

SAID: dict[str, Any] = {"input": {"a": 1}, "metadata": {"b": 2}, "provenance": {"c": 3}, "warnings": ["d"]}
UNSAID: dict[str, Any] = {"input": {}, "output": {}, "metadata": {}, "provenance": {}, "warnings": []}


@pytest.mark.parametrize("move", ["heartbeat", "complete", "fail", "cancel"])
async def test_who_may_not_read_is_not_told_what_others_said(service: Service, alice: Caller, move: str) -> None:
    _, project = await new_place(alice)
    narrow, _ = await key_of(service, alice, "PROJECT", project["id"], "PROJECT_EDITOR", actions=["EXECUTION_CREATE"])
    wide, _ = await key_of(service, alice, "PROJECT", project["id"], "PROJECT_EDITOR")
    ids = [(await new_execution(alice, project, **SAID))["id"] for _ in range(2)]
    answer = await narrow.post(f"/executions/{ids[0]}/{move}", {}, 200)
    told, whole = answer.json(), await alice.get(f"/executions/{ids[0]}")
    assert told == {**whole.json(), **UNSAID}
    assert answer.headers["etag"] == whole.headers["etag"]
    assert {name: whole.json()[name] for name in SAID} == SAID
    seen = (await wide.post(f"/executions/{ids[1]}/{move}", {}, 200)).json()
    assert {name: seen[name] for name in SAID} == SAID
    own = await new_execution(narrow, project, **SAID)
    seen = (await narrow.post(f"/executions/{own['id']}/{move}", {}, 200)).json()
    assert {name: seen[name] for name in SAID} == SAID


async def test_a_repeated_call_tells_no_response_to_who_may_not_read_it(service: Service, alice: Caller) -> None:
    _, project = await new_place(alice)
    narrow, _ = await key_of(service, alice, "PROJECT", project["id"], "PROJECT_EDITOR", actions=["API_CALL_CREATE"])
    body = {"idempotency_key": "k", "request_payload": {"q": 1}, "metadata": {"m": 1}}
    made = await new_call(narrow, project["id"], **body)
    whole = (await alice.patch(f"/api-calls/{made['id']}", {"response_payload": {"secret": 1}, "metadata": {"m": 2}})).json()
    sent = {"name": "call", "operation_key": "op", **body}
    repeated = (await narrow.post(f"/projects/{project['id']}/api-calls", sent, 200)).json()
    assert repeated == {**whole, "response_payload": {}, "metadata": {}}
    assert (await alice.post(f"/projects/{project['id']}/api-calls", sent, 200)).json() == whole


@pytest.mark.parametrize("move", ["fail", "cancel"])
async def test_metadata_that_would_grow_too_large_at_the_end_are_refused(alice: Caller, move: str) -> None:
    _, project = await new_place(alice)
    text = "x" * (MAX_JSON_BYTES - 100)
    made = await new_execution(alice, project, metadata={"a": text})
    reason = {"fail": "error_message", "cancel": "reason"}[move]
    for body in ({"metadata": {"b": text}}, {reason: "y" * 200}):
        assert pointers_of(await alice.post(f"/executions/{made['id']}/{move}", body, 422)) == ["/metadata"]
    item = {"op": move, "execution_id": made["id"], "metadata": {"b": text}}
    batch = (await alice.post(f"/projects/{project['id']}/executions/batch", {"items": [item]}, 200)).json()
    assert batch["results"][0]["status"] == 422
    assert (await alice.get(f"/executions/{made['id']}")).json() == made
    ended = (await alice.post(f"/executions/{made['id']}/{move}", {"metadata": {"a": "short", "b": 1}, reason: "why"}, 200)).json()
    assert ended["metadata"]["b"] == 1
