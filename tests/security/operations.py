"""One case for every operation of the API: how to ask it, on what, and which status a permitted caller gets."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.core.permissions import Action
from app.core.resources import ResourceType
from app.http.routing import RouteIndex

ORGANIZATION, PROJECT, DOCUMENT, API_CALL = ResourceType


@dataclass(frozen=True)
class Branch:
    """Ids of an organization, of a project in it and of what lies in that; ``unique`` differs from request to request."""

    organization_id: str
    slug: str
    project_id: str
    document_id: str
    api_call_id: str
    execution_id: str
    api_key_id: str
    group_id: str
    unique: str = "x"

    def id_of(self, kind: ResourceType) -> str:
        ids = {ORGANIZATION: self.organization_id, PROJECT: self.project_id, DOCUMENT: self.document_id, API_CALL: self.api_call_id}
        return ids[kind]


@dataclass(frozen=True)
class Case:
    """``on`` is the kind of the target; None for a list over everything. ``asks`` narrows a route that serves several kinds.

    ``fresh`` names what is made anew for each request, because the operation can succeed only once on it.
    ``is_secret`` is what hides its target from all who may not do it.
    """

    operation: str
    on: ResourceType | None
    path: str
    success: int = 200
    options: Callable[[Branch], dict[str, Any]] = field(default=lambda _branch: {})
    asks: frozenset[Action] | None = None
    destroys: bool = False
    fresh: str | None = None
    is_secret: bool = False

    @property
    def label(self) -> str:
        return f"{self.operation} on {self.on.value if self.on else 'everything'}"

    def path_in(self, branch: Branch) -> str:
        return self.path.format(**vars(branch))


def routes_of(app: FastAPI) -> dict[str, APIRoute]:
    """Every operation below the base path, by its id."""
    index = next(route for route in app.router.routes if isinstance(route, RouteIndex))
    return {str(route.operation_id): route for route in index.routes}


def _json(**body: Any) -> Callable[[Branch], dict[str, Any]]:
    return lambda branch: {"json": {key: value.format(**vars(branch)) for key, value in body.items()}}


def _file(**fields: str) -> Callable[[Branch], dict[str, Any]]:
    return lambda branch: {
        "files": {"file": ("f.txt", b"content", "text/plain")},
        "data": {key: value.format(**vars(branch)) for key, value in fields.items()},
    }


def _membership_cases() -> Iterator[Case]:
    # AUTHORIZATION.md 2.5, rule 1: who manages members on the upper levels, who shares on the leaves.
    manages, shares = frozenset({Action.MEMBER_MANAGE}), frozenset({Action.DOCUMENT_SHARE})
    least = {ORGANIZATION: "ORG_MEMBER", PROJECT: "PROJECT_VIEWER", DOCUMENT: "DOCUMENT_VIEWER"}
    for kind, role in least.items():

        def grant(branch: Branch, kind: ResourceType = kind, role: str = role) -> dict[str, str]:
            who = {"actor_type": "USER", "actor_id": f"guest-{branch.unique}"}
            return {"resource_type": kind.value, "resource_id": branch.id_of(kind), **who, "role": role}

        def place(branch: Branch, kind: ResourceType = kind) -> dict[str, Any]:
            return {"params": {"resource_type": kind.value, "resource_id": branch.id_of(kind)}}

        def given(branch: Branch, grant: Callable[[Branch], dict[str, str]] = grant) -> dict[str, Any]:
            return {"json": grant(branch)}

        def named(branch: Branch, grant: Callable[[Branch], dict[str, str]] = grant) -> dict[str, Any]:
            return {"params": grant(branch)}

        asks = shares if kind is DOCUMENT else manages
        yield Case("grant_role", kind, "/memberships", 201, given, asks)
        yield Case("list_memberships", kind, "/memberships", 200, place, asks | manages)
        yield Case("revoke_role", kind, "/memberships", 204, named, asks)


def _document_cases() -> Iterator[Case]:
    one = "/documents/{document_id}"
    yield Case("create_document", PROJECT, "/projects/{project_id}/documents", 201, _file())
    yield Case("list_documents_of_project", PROJECT, "/projects/{project_id}/documents")
    yield Case("list_documents", None, "/documents")
    yield Case("read_document", DOCUMENT, one)
    yield Case("update_document", DOCUMENT, one, 200, _json(name="named by {unique}"))
    yield Case("delete_document", DOCUMENT, one, 204, destroys=True)
    yield Case("download_document", DOCUMENT, f"{one}/content")
    yield Case("create_document_version", DOCUMENT, f"{one}/versions", 201, _file(version_name="v-{unique}"))
    yield Case("list_versions_of_document", DOCUMENT, f"{one}/versions")
    yield Case("read_document_version", DOCUMENT, f"{one}/versions/v1")
    yield Case("download_document_version", DOCUMENT, f"{one}/versions/v1/content")
    yield Case("list_document_versions", None, "/document-versions")


def _api_call_cases() -> Iterator[Case]:
    one = "/api-calls/{api_call_id}"
    new = _json(name="call", operation_key="ocr")
    yield Case("create_api_call", PROJECT, "/projects/{project_id}/api-calls", 201, new)
    yield Case("list_api_calls_of_project", PROJECT, "/projects/{project_id}/api-calls")
    yield Case("list_api_calls", None, "/api-calls")
    yield Case("list_api_calls_of_correlation", None, "/api-calls/by-correlation/any")
    yield Case("read_api_call", API_CALL, one)
    yield Case("update_api_call", API_CALL, one, 200, _json(status="RECEIVED"))
    yield Case("delete_api_call", API_CALL, one, 204, destroys=True, fresh="api_call_id")


def _execution_cases() -> Iterator[Case]:
    one = "/executions/{execution_id}"
    new = _json(organization_id="{organization_id}", project_id="{project_id}", operation="tag")
    yield Case("start_execution", PROJECT, "/executions", 201, new)
    batch = {"items": [{"op": "start", "operation": "tag"}, {"op": "complete", "execution_index": 0}]}
    yield Case("record_executions", PROJECT, "/projects/{project_id}/executions/batch", 200, lambda _branch: {"json": batch})
    yield Case("import_spans", PROJECT, "/projects/{project_id}/otlp/v1/traces", 200, _json())
    yield Case("list_executions", None, "/executions")
    yield Case("list_executions_of_project", PROJECT, "/executions/by-project/{project_id}")
    yield Case("list_executions_of_correlation", None, "/executions/by-correlation/any")
    yield Case("read_execution", PROJECT, one)
    yield Case("list_child_executions", PROJECT, f"{one}/children")
    yield Case("complete_execution", PROJECT, f"{one}/complete", 200, _json(), fresh="execution_id")
    yield Case("fail_execution", PROJECT, f"{one}/fail", 200, _json(), fresh="execution_id")
    yield Case("cancel_execution", PROJECT, f"{one}/cancel", 200, _json(), fresh="execution_id")
    yield Case("beat_execution", PROJECT, f"{one}/heartbeat", 200, _json())
    yield Case("add_execution_event", PROJECT, f"{one}/events", 201, _json(name="step"))
    yield Case("list_execution_events", PROJECT, f"{one}/events")
    yield Case("read_execution_tree", PROJECT, f"{one}/tree")
    yield Case("read_execution_timeline", PROJECT, f"{one}/timeline")


def _api_key_cases() -> Iterator[Case]:
    one = "/api-keys/{api_key_id}"
    new = _json(name="ci", scope_type="PROJECT", scope_id="{project_id}", role="PROJECT_VIEWER")
    yield Case("create_api_key", PROJECT, "/api-keys", 201, new)
    yield Case("list_api_keys", None, "/api-keys", 200, lambda branch: {"params": {"organization_id": branch.organization_id}})
    yield Case("read_api_key", PROJECT, one)
    yield Case("update_api_key", PROJECT, one, 200, _json(name="named by {unique}"))
    yield Case("rotate_api_key", PROJECT, f"{one}/rotate", 200, _json())
    yield Case("revoke_api_key", PROJECT, f"{one}/revoke", 200, fresh="api_key_id")
    yield Case("delete_api_key", PROJECT, one, 204, destroys=True, fresh="api_key_id")


def _group_cases() -> Iterator[Case]:
    every = "/organizations/{organization_id}/groups"
    one = f"{every}/{{group_id}}"
    bob = {"member_type": "USER", "member_id": "bob"}
    yield Case("create_group", ORGANIZATION, every, 201, _json(group_id="{unique}"))
    yield Case("list_groups", ORGANIZATION, every)
    yield Case("read_group", ORGANIZATION, one)
    yield Case("update_group", ORGANIZATION, one, 200, _json(name="named by {unique}"))
    yield Case("delete_group", ORGANIZATION, one, 204, destroys=True, fresh="group_id")
    yield Case("list_group_members", ORGANIZATION, f"{one}/members")
    yield Case("add_group_member", ORGANIZATION, f"{one}/members", 201, _json(member_type="USER", member_id="{unique}"))
    yield Case("remove_group_member", ORGANIZATION, f"{one}/members", 204, lambda _branch: {"params": bob})


def _question_cases() -> Iterator[Case]:
    def asked(branch: Branch) -> dict[str, Any]:
        return {"params": {"action": "PROJECT_READ", "resource_type": "PROJECT", "resource_id": branch.project_id}}

    yield Case("list_who_can", PROJECT, "/authz/who-can", 200, asked, is_secret=True)
    yield Case("explain_who_can", PROJECT, "/authz/who-can-explain", 200, asked, is_secret=True)


def _audit_cases() -> Iterator[Case]:
    posted = _json(organization_id="{organization_id}", project_id="{project_id}", action="invoice.sent")
    yield Case("create_audit_event", PROJECT, "/audit-events", 201, posted)
    yield Case("export_audit_events", PROJECT, "/audit-events/export", 200, lambda branch: {"params": {"project_id": branch.project_id}})

    def project(branch: Branch) -> dict[str, Any]:
        return {"params": {"resource_type": "PROJECT", "resource_id": branch.project_id}}

    def organization(branch: Branch) -> dict[str, Any]:
        return {"params": {"organization_id": branch.organization_id, "occurred_to": "2001-01-01T00:00:00Z"}}

    def chain(branch: Branch) -> dict[str, Any]:
        return {"params": {"organization_id": branch.organization_id}}

    yield Case("verify_audit_events", ORGANIZATION, "/audit-events/verify", 200, chain)
    retention = "/organizations/{organization_id}/audit-retention"
    yield Case("read_audit_retention", ORGANIZATION, retention)
    yield Case("update_audit_retention", ORGANIZATION, retention, 200, lambda _branch: {"json": {"retention_days": 365}})
    yield Case("prune_audit_events", ORGANIZATION, "/audit-events", 200, organization)
    yield Case("list_audit_events", None, "/audit-events")
    yield Case("list_audit_events_of_resource", None, "/audit-events/by-resource", 200, project)
    yield Case("list_audit_events_of_correlation", None, "/audit-events/by-correlation/any")


def _cases() -> Iterator[Case]:
    organization, project = "/organizations/{organization_id}", "/projects/{project_id}"
    yield Case("list_organizations", None, "/organizations")
    yield Case("list_all_organizations", None, "/organizations/all")
    yield Case("read_organization_by_slug", ORGANIZATION, "/organizations/by-slug/{slug}")
    yield Case("read_organization", ORGANIZATION, organization)
    yield Case("update_organization", ORGANIZATION, organization, 200, _json(name="named by {unique}"))
    yield Case("delete_organization", ORGANIZATION, organization, 204, destroys=True)
    yield Case("create_project", ORGANIZATION, "/projects", 201, _json(organization_id="{organization_id}", name="by {unique}"))
    yield Case("list_projects", None, "/projects")
    yield Case("list_projects_of_organization", ORGANIZATION, "/projects/by-organization/{organization_id}")
    yield Case("read_project", PROJECT, project)
    yield Case("update_project", PROJECT, project, 200, _json(name="named by {unique}"))
    yield Case("delete_project", PROJECT, project, 204, destroys=True)
    yield from _document_cases()
    yield from _api_call_cases()
    yield from _execution_cases()
    yield from _membership_cases()
    yield from _group_cases()
    yield from _api_key_cases()
    yield from _question_cases()
    yield from _audit_cases()


CASES: Final = tuple(_cases())

_ABOUT_ONESELF: Final = {
    "actor_type": "USER",
    "actor_id": "{actor_id}",
    "resource_type": "PROJECT",
    "resource_id": "00000000-0000-0000-0000-000000000000",
}

_ACCESS: Final = {
    "subject": {"type": "user", "id": "{actor_id}"},
    "action": {"name": "PROJECT_READ"},
    "resource": {"type": "project", "id": "00000000-0000-0000-0000-000000000000"},
}

# Operations without a guard, and the status an identified caller gets; anonymous callers get 401 all the same.
OPEN: Final[Mapping[str, tuple[str, dict[str, Any], int]]] = {
    "create_organization": ("/organizations", {"slug": "new-{unique}"}, 201),
    "check_authorization": ("/authz/check", {**_ABOUT_ONESELF, "action": "PROJECT_READ"}, 200),
    "explain_authorization": ("/authz/explain", {**_ABOUT_ONESELF, "action": "PROJECT_READ"}, 200),
    "list_effective_roles": ("/authz/effective-roles", _ABOUT_ONESELF, 200),
    "check_authorizations": ("/authz/batch-check", {"checks": [{**_ABOUT_ONESELF, "action": "PROJECT_READ"}]}, 200),
    "list_objects": ("/authz/list-objects", {"action": "PROJECT_READ", "resource_type": "PROJECT"}, 200),
    "list_actions": ("/authz/list-actions", _ABOUT_ONESELF, 200),
    "simulate_grants": ("/authz/simulate", {"grants": []}, 200),
    "evaluate_access": ("/access/v1/evaluation", _ACCESS, 200),
    "evaluate_accesses": ("/access/v1/evaluations", {**_ACCESS, "evaluations": [{}]}, 200),
    "search_subjects": ("/access/v1/search/subject", _ACCESS, 200),
    "search_resources": ("/access/v1/search/resource", _ACCESS, 200),
    "search_actions": ("/access/v1/search/action", _ACCESS, 200),
    "read_policy": ("/authz/policy", {}, 200),
    "read_me": ("/me", {}, 200),
}

# Which action is asked where (AUTHORIZATION.md 2.1), said a second time: the matrix believes the routes, and this holds them to the design.
DESIGNED: Final[Mapping[Action, frozenset[str]]] = {
    Action.ORGANIZATION_READ: frozenset(
        {
            "list_organizations",
            "list_all_organizations",
            "read_organization_by_slug",
            "read_organization",
            "list_groups",
            "read_group",
            "list_group_members",
        },
    ),
    Action.ORGANIZATION_UPDATE: frozenset({"update_organization"}),
    Action.ORGANIZATION_DELETE: frozenset({"delete_organization", "prune_audit_events", "read_audit_retention", "update_audit_retention"}),
    Action.PROJECT_CREATE: frozenset({"create_project"}),
    Action.PROJECT_READ: frozenset({"list_projects", "list_projects_of_organization", "read_project"}),
    Action.PROJECT_UPDATE: frozenset({"update_project"}),
    Action.PROJECT_DELETE: frozenset({"delete_project"}),
    Action.DOCUMENT_CREATE: frozenset({"create_document"}),
    Action.DOCUMENT_READ: frozenset(
        {
            "list_documents_of_project",
            "list_documents",
            "read_document",
            "download_document",
            "list_versions_of_document",
            "read_document_version",
            "download_document_version",
            "list_document_versions",
        }
    ),
    Action.DOCUMENT_WRITE: frozenset({"update_document", "create_document_version"}),
    Action.DOCUMENT_DELETE: frozenset({"delete_document"}),
    Action.API_CALL_CREATE: frozenset({"create_api_call"}),
    Action.API_CALL_READ: frozenset(
        {"list_api_calls_of_project", "list_api_calls", "list_api_calls_of_correlation", "read_api_call"},
    ),
    Action.API_CALL_WRITE: frozenset({"update_api_call"}),
    Action.API_CALL_DELETE: frozenset({"delete_api_call"}),
    Action.EXECUTION_CREATE: frozenset(
        {
            "start_execution",
            "complete_execution",
            "fail_execution",
            "cancel_execution",
            "beat_execution",
            "add_execution_event",
            "create_audit_event",
            "import_spans",
            "record_executions",
        }
    ),
    Action.EXECUTION_READ: frozenset(
        {
            "list_executions",
            "list_executions_of_project",
            "list_executions_of_correlation",
            "read_execution",
            "list_child_executions",
            "list_execution_events",
            "read_execution_tree",
            "read_execution_timeline",
        }
    ),
    Action.DOCUMENT_SHARE: frozenset({"grant_role", "list_memberships", "revoke_role"}),
    Action.API_CALL_SHARE: frozenset({"grant_role", "list_memberships", "revoke_role"}),
    Action.MEMBER_MANAGE: frozenset(
        {
            "grant_role",
            "list_memberships",
            "revoke_role",
            "export_audit_events",
            "list_audit_events",
            "list_audit_events_of_resource",
            "list_audit_events_of_correlation",
            "verify_audit_events",
            "create_group",
            "update_group",
            "delete_group",
            "add_group_member",
            "remove_group_member",
            "create_api_key",
            "list_api_keys",
            "read_api_key",
            "update_api_key",
            "rotate_api_key",
            "revoke_api_key",
            "delete_api_key",
            "list_who_can",
            "explain_who_can",
        }
    ),
}
