"""Spans as exporters send them, in the JSON of OTLP, and trees as they come back."""

import json
import secrets
from typing import Any

import httpx

from tests.conftest import Caller

BEGIN = 1763662316_062552_000
SECOND = 1_000_000_000


def new_trace() -> str:
    return secrets.token_hex(16)


def span(trace_id: str, span_id: str, parent_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """A span of one second; ``attributes`` are texts, numbers, or values as OTLP writes them."""
    attributes = [{"key": key, "value": any_value(value)} for key, value in fields.pop("attributes", {}).items()]
    parent = {"parentSpanId": parent_id} if parent_id is not None else {}
    times = {"startTimeUnixNano": str(BEGIN), "endTimeUnixNano": str(BEGIN + SECOND)}
    return {"traceId": trace_id, "spanId": span_id, **parent, "name": span_id, **times, "attributes": attributes, **fields}


def any_value(value: Any) -> dict[str, Any]:
    """A value of an attribute."""
    if isinstance(value, dict):
        return value
    return {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}


def request_of(*spans: Any, resource: Any = None, scope: Any = None) -> dict[str, Any]:
    """An ExportTraceServiceRequest."""
    group = {"resource": resource, "scopeSpans": [{"scope": scope, "spans": list(spans)}]}
    return {"resourceSpans": [group]}


async def send(caller: Caller, project: Any, *spans: Any, expect: int | None = 200, **group: Any) -> httpx.Response:
    """Export spans to a project."""
    content = json.dumps(request_of(*spans, **group))  # ASCII: a client may write what is no Unicode
    return await caller.post(path_of(project), None, expect, content=content, headers={"content-type": "application/json"})


def path_of(project: Any) -> str:
    return f"/projects/{project['id']}/otlp/v1/traces"


def span_id(number: int) -> str:
    return f"{number:016x}"


async def stored(caller: Caller, project: Any) -> dict[str, Any]:
    """The executions of a project, by their span's id."""
    rows = (await caller.get("/executions", params={"project_id": project["id"], "size": 500})).json()["items"]
    assert len({row["span_id"] for row in rows}) == len(rows)
    return {row["span_id"]: row for row in rows}


async def shape(caller: Caller, execution_id: str) -> Any:
    """A tree as nested lists of operations."""

    def told(node: Any) -> Any:
        return [node["operation"], *sorted((told(child) for child in node["children"]), key=str)]

    return told((await caller.get(f"/executions/{execution_id}/tree")).json()["root"])


def family(trace_id: str, count: int) -> list[dict[str, Any]]:
    """A tree of spans: each has up to three children."""
    return [span(trace_id, span_id(n), span_id((n - 2) // 3 + 1) if n > 1 else None, name=f"op {n}") for n in range(1, count + 1)]
