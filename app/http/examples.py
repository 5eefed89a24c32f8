"""Examples for the documentation: made from a schema, with one vocabulary of values by field name, so none can go out of date."""

import json
from typing import Any, Final

from app.http.problems import MEDIA_TYPE, STATUS, make_problem

ORGANIZATION: Final = "01980a3c-0000-7000-8000-000000000001"
PROJECT: Final = "01980a3c-0000-7000-8000-000000000002"
DOCUMENT: Final = "01980a3c-0000-7000-8000-000000000003"
_VERSION: Final = "01980a3c-0000-7000-8000-000000000004"
CALL: Final = "01980a3c-0000-7000-8000-000000000007"
EXECUTION: Final = "01980a3c-0000-7000-8000-000000000008"
KEY: Final = "01980a3c-0000-7000-8000-00000000000a"
_ACCESS: Final = "https://saas.example.com/api/access/v1"
_MOMENT: Final = "2026-11-20T18:11:56.062552Z"

_VALUES: Final[dict[str, Any]] = {
    "action": "PROJECT_CREATED",
    "actor": {"type": "USER", "id": "bob"},
    "actor_id": "bob",
    "actor_type": "USER",
    "added_at": _MOMENT,
    "added_by_subject": "user:alice",
    "after": True,
    "agent_version": "1.4.2",
    "allowed": True,
    "allowed_cidrs": ["203.0.113.0/24"],
    "api_call_id": CALL,
    "api_key_id": KEY,
    "auth_method": "header",
    "authorization": "ok",
    "before": False,
    "by_status": {"COMPLETED": 1},
    "checked": 4711,
    "checksum": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "children": [],
    "confidence": 0.9,
    "correlation_id": "order-4711",
    "cost": {"amount": "0.0042", "currency": "USD"},
    "costs": [{"amount": "0.0042", "currency": "USD"}],
    "created_at": _MOMENT,
    "created_by_subject": "user:alice",
    "current_version_id": _VERSION,
    "current_version_name": "v1",
    "current_version_number": 1,
    "cursor": None,
    "data": {"step": 2},
    "database": "ok",
    "db_schema": "ok",
    "deadline_at": None,
    "depth": 0,
    "details": {"name": "Website"},
    "document_id": DOCUMENT,
    "duration_ms": 1250.5,
    "effective": False,
    "effective_on": {"type": "PROJECT", "id": PROJECT},
    "effective_days": 365,
    "ended_at": _MOMENT,
    "error": None,
    "error_code": "TIMEOUT",
    "error_message": "The model did not answer.",
    "evaluated_scopes": [{"type": "PROJECT", "id": PROJECT}],
    "execution_id": EXECUTION,
    "executions": 1,
    "expand": True,
    "expires_at": "2099-12-31T23:59:59Z",
    "external_request_id": "req-1",
    "first_break": None,
    "gained": ["PROJECT_READ"],
    "granted_at": _MOMENT,
    "granted_by_subject": "user:alice",
    "granted_on": {"type": "PROJECT", "id": PROJECT},
    "group_id": "devs",
    "has_more": False,
    "hash": "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
    "has_next": False,
    "has_previous": False,
    "heartbeat_at": None,
    "idempotency_key": "invoice-4711",
    "inherited": False,
    "input": {"document": DOCUMENT},
    "ip": "203.0.113.7",
    "is_active": True,
    "is_complete": True,
    "is_critical": True,
    "kind": "AGENT",
    "last_used_at": None,
    "last_used_ip": None,
    "level": "PROJECT",
    "limit": 1000,
    "lost": [],
    "may_act_for_others": False,
    "media_type": "application/pdf",
    "member": {"type": "USER", "id": "bob"},
    "member_id": "bob",
    "member_type": "USER",
    "message": "Read 3 of 7 pages.",
    "metadata": {"plan": "pro"},
    "model_name": "m-1",
    "model_provider": "acme",
    "next_cursor": None,
    "next_position": None,
    "occurred_at": _MOMENT,
    "offset_ms": 0,
    "ok": True,
    "on_behalf_of": None,
    "only_actions": None,
    "operation": "tag-document",
    "operation_key": "ocr",
    "organization_id": ORGANIZATION,
    "outcome": "SUCCESS",
    "output": {"tags": ["invoice"]},
    "overlap_seconds": 86400,
    "page": 0,
    "parent_execution_id": None,
    "path": [{"subject": "user:bob"}, {"group": "devs"}, {"role": "PROJECT_VIEWER", "on": f"project:{PROJECT}"}],
    "position": 4711,
    "prefix": "k3v9x0q2m4ab",
    "project_id": PROJECT,
    "provenance": {},
    "pruned": 3,
    "read_actions": {"PROJECT": "PROJECT_READ"},
    "reason": "user:bob holds PROJECT_VIEWER on PROJECT 01980a3c-0000-7000-8000-000000000002",
    "request_id": "5f0c1d6c1a7e4c0f9f6f3f0f2b1d7c9e",
    "request_payload": {"page": 1},
    "requested_at": _MOMENT,
    "resource": {"type": "PROJECT", "id": PROJECT},
    "resource_id": PROJECT,
    "resource_type": "PROJECT",
    "resource_types": ["ORGANIZATION", "PROJECT", "DOCUMENT", "API_CALL"],
    "responded_at": _MOMENT,
    "response_payload": {"text": "..."},
    "retention_days": 365,
    "revoked_at": None,
    "role": "PROJECT_VIEWER",
    "root_execution_id": EXECUTION,
    "scope": {"type": "PROJECT", "id": PROJECT},
    "scope_id": PROJECT,
    "scope_type": "PROJECT",
    "sealed_at": _MOMENT,
    "session_id": "chat-17",
    "share_actions": {"PROJECT": "MEMBER_MANAGE"},
    "size": 20,
    "size_bytes": 48211,
    "slug": "acme",
    "source": "EFFECTIVE_ROLE",
    "span_id": None,
    "started_at": _MOMENT,
    "status": "ok",
    "storage": "ok",
    "storage_uri": "disk:7c0e4d6f0b0f4f4d8f5d0a1b2c3d4e5f",
    "sufficient_roles": [],
    "tags": ["invoice"],
    "target": {"type": "DOCUMENT", "id": DOCUMENT},
    "target_id": DOCUMENT,
    "target_type": "DOCUMENT",
    "timeout_seconds": 60,
    "token": "sbk_k3v9x0q2m4ab.the-secret-that-is-shown-once",
    "total_items": 1,
    "total_pages": 1,
    "trace_id": None,
    "unsealed": 0,
    "updated_at": _MOMENT,
    "usage": {"input_tokens": 1200, "output_tokens": 80, "cached_tokens": 0, "reasoning_tokens": 0},
    "user_agent": "curl/8.5.0",
    "version": "1.0.0",
    "version_name": "v2",
    "version_number": 2,
    "warnings": [],
}
# What a thing is called and which id it has depends on what the operation is about.
_VALUES_BY_TAG: Final[dict[str, dict[str, Any]]] = {
    "organizations": {"id": ORGANIZATION, "name": "Acme"},
    "projects": {"id": PROJECT, "name": "Website"},
    "documents": {"id": DOCUMENT, "name": "contract.pdf", "metadata": {"kind": "contract"}},
    "api-calls": {"id": CALL, "name": "Read the invoice", "status": "COMPLETED", "metadata": {}},
    "executions": {
        "name": "page-read",
        "id": EXECUTION,
        "status": "COMPLETED",
        "actor": {"type": "AGENT", "id": "tagger"},
        "metadata": {},
    },
    "groups": {"id": "01980a3c-0000-7000-8000-000000000009", "name": "Developers", "metadata": {}},
    "api-keys": {"id": KEY, "name": "ci", "metadata": {}, "role": "PROJECT_EDITOR", "actions": ["PROJECT_READ", "DOCUMENT_CREATE"]},
    "authorization": {
        "type": "USER",
        "id": "bob",
        "action": "PROJECT_READ",
        "actions": ["PROJECT_READ"],
        "name": "Acme",
        "api_key": None,
        "items": [{"type": "PROJECT", "id": PROJECT}],
        "organizations": [{"id": ORGANIZATION, "slug": "acme", "name": "Acme", "roles": ["ORG_MEMBER"]}],
        "status": 404,
        "code": "not_found",
        "detail": "There is no such resource, or you may not see it.",
    },
    "authzen": {
        "type": "project",
        "id": PROJECT,
        "name": "PROJECT_READ",
        "subject": {"type": "user", "id": "bob"},
        "action": {"name": "PROJECT_READ"},
        "resource": {"type": "project", "id": PROJECT},
        "decision": True,
        "options": {"evaluations_semantic": "execute_all"},
        "policy_decision_point": "https://saas.example.com",
        "access_evaluation_endpoint": f"{_ACCESS}/evaluation",
        "access_evaluations_endpoint": f"{_ACCESS}/evaluations",
        "search_subject_endpoint": f"{_ACCESS}/search/subject",
        "search_resource_endpoint": f"{_ACCESS}/search/resource",
        "search_action_endpoint": f"{_ACCESS}/search/action",
    },
    "memberships": {"id": "01980a3c-0000-7000-8000-000000000005"},
    "audit-events": {
        "id": "01980a3c-0000-7000-8000-000000000006",
        "actor": {"type": "USER", "id": "alice"},
        "action": "invoice.sent",
        "type": "invoice",
        "name": "Invoice 4711",
        "context": {"amount": "12.50"},
        "kind": "missing",
    },
    "operations": {"name": "SaaSBase Server"},
}


_CODES: Final = {status: error.code for error, status in STATUS.items()}


class NoExampleError(LookupError):
    """A field has no value in the vocabulary and its schema does not suggest one."""


class Examples:
    """Examples for the operations of one document."""

    def __init__(self, components: dict[str, Any]) -> None:
        self._schemas = components["schemas"]

    def add_to(self, operation: dict[str, Any]) -> None:
        """Give an operation's body, its answer and its path an example each."""
        tag = operation["tags"][0]
        for name, media in operation.get("requestBody", {}).get("content", {}).items():
            if name == "application/json":
                media["example"] = self._of(media["schema"], tag)
            elif "properties" in media["schema"]:
                self._add_to_form(media["schema"], tag)
        for status, response in operation["responses"].items():
            for name, media in response.get("content", {}).items():
                if name == MEDIA_TYPE:
                    media["example"] = _problem(int(status), response["description"])
                elif name == "application/json" and status.startswith("2"):
                    media["example"] = self._of(media["schema"], tag)
        for parameter in operation.get("parameters", ()):
            if parameter["required"]:
                parameter["schema"]["examples"] = [self._of(parameter["schema"], tag, parameter["name"])]

    def _add_to_form(self, form: dict[str, Any], tag: str) -> None:
        for name, field in form["properties"].items():
            if field.get("format") != "binary":
                # /docs fills the form with these: an empty text is not sent, anything else would be taken for the reader's wish.
                field["examples"] = [self._of(field, tag, name) if name in form["required"] else ""]

    def _of(self, schema: dict[str, Any], tag: str, name: str = "") -> Any:
        if "examples" in schema:
            return schema["examples"][0]
        known = {**_VALUES, **_VALUES_BY_TAG[tag]}
        if name in known:
            return known[name]
        if "$ref" in schema:
            return self._of(self._schemas[schema["$ref"].rpartition("/")[2]], tag)
        if "anyOf" in schema:
            return self._of(schema["anyOf"][0], tag)
        if schema.get("type") == "array":
            return [self._of(schema["items"], tag)]
        if "properties" in schema:
            return {key: self._of(described, tag, key) for key, described in schema["properties"].items()}
        raise NoExampleError(f"{name!r} in {tag}: add it to app/http/examples.py")


def _problem(status: int, description: str) -> Any:
    scope = {"type": "http", "path": "/api/...", "headers": [(b"x-request-id", _VALUES["request_id"].encode())]}
    return json.loads(bytes(make_problem(scope, status, _CODES.get(status), description).body))
