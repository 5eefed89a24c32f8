"""OTLP as the documentation shows it: bodies that no model of ours describes."""

from typing import Any, Final

from app.resources.executions.otlp_wire import JSON, PROTOBUF

_BINARY: Final = {"type": "string", "format": "binary"}
_REQUEST: Final[dict[str, Any]] = {
    "type": "object",
    "description": "`ExportTraceServiceRequest` in JSON.",
    "properties": {"resourceSpans": {"type": ["array", "null"], "items": {"type": "object"}}},
    "examples": [
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "tagger"}}]},
                    "scopeSpans": [
                        {
                            "scope": {"name": "my.library"},
                            "spans": [
                                {
                                    "traceId": "5b8efff798038103d269b633813fc60c",
                                    "spanId": "eee19b7ec3c1b174",
                                    "parentSpanId": "eee19b7ec3c1b173",
                                    "name": "chat m-1",
                                    "kind": 3,
                                    "startTimeUnixNano": "1763662316062552000",
                                    "endTimeUnixNano": "1763662317312552000",
                                    "attributes": [
                                        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                                        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "1200"}},
                                    ],
                                }
                            ],
                        }
                    ],
                }
            ]
        }
    ],
}
_ANSWER: Final[dict[str, Any]] = {
    "type": "object",
    "description": "`ExportTraceServiceResponse` in JSON; empty when every span was taken in.",
    "properties": {
        "partialSuccess": {
            "type": "object",
            "properties": {"rejectedSpans": {"type": "string"}, "errorMessage": {"type": "string"}},
        }
    },
    "examples": [{"partialSuccess": {"rejectedSpans": "1", "errorMessage": "1 rejected: it ends before it starts"}}],
}

BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {PROTOBUF: {"schema": _BINARY}, JSON: {"schema": _REQUEST}}},
}
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "What was not taken in, if anything", "content": {PROTOBUF: {"schema": _BINARY}, JSON: {"schema": _ANSWER}}},
}
