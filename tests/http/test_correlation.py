"""One correlation, given once with a request, leads to everything that the request left behind."""

import json
import logging

import pytest

from app.observability.logging import JsonFormatter
from tests.conftest import Caller
from tests.support.record import new_place

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("headers", "correlation"),
    [({"X-Correlation-ID": "order 7"}, "order 7"), ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE)],
    ids=["X-Correlation-ID", "traceparent"],
)
async def test_calls_executions_events_and_log_lines_share_it(
    alice: Caller, caplog: pytest.LogCaptureFixture, headers: dict[str, str], correlation: str
) -> None:
    _, project = await new_place(alice)
    place = {"organization_id": project["organization_id"], "project_id": project["id"]}
    with caplog.at_level(logging.INFO, logger="app.access"):
        call = (await alice.post(f"/projects/{project['id']}/api-calls", {"name": "call", "operation_key": "op"}, headers=headers)).json()
        execution = (await alice.post("/executions", {**place, "operation": "op"}, headers=headers)).json()
        items = [{"op": "start", "operation": "op"}, {"op": "complete", "execution_index": 0}]
        batch = (await alice.post(f"/projects/{project['id']}/executions/batch", {"items": items}, 200, headers=headers)).json()
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name == "app.access"]
    assert [(line["correlation_id"], line["actor"]) for line in lines] == [(correlation, "user:alice")] * 3
    begun = batch["results"][0]["execution"]["id"]
    for resource, ids in (("api-calls", [call["id"]]), ("executions", [execution["id"], begun])):
        found = (await alice.get(f"/{resource}/by-correlation/{correlation}")).json()
        assert [(one["id"], one["correlation_id"]) for one in found] == [(id_, correlation) for id_ in ids]
    events = (await alice.get(f"/audit-events/by-correlation/{correlation}")).json()
    told = [(event["action"], event["request_id"]) for event in events]
    requests = [line["request_id"] for line in lines]
    actions = ["API_CALL_CREATED", "EXECUTION_STARTED", "EXECUTION_STARTED", "EXECUTION_COMPLETED"]
    assert told == [*zip(actions, [*requests, requests[2]], strict=True)]
    assert {event["correlation_id"] for event in events} == {correlation}
