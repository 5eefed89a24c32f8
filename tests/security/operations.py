"""One case for every operation of the API: how to ask it, on what, and which status a permitted caller gets."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.core.permissions import Action
from app.core.resources import ResourceType
from app.http.routing import RouteIndex

ORGANIZATION, PROJECT, DOCUMENT = ResourceType.ORGANIZATION, ResourceType.PROJECT, ResourceType.DOCUMENT


@dataclass(frozen=True)
class Branch:
    """Ids of an organization, of a project in it and of a document in that; ``unique`` differs from request to request."""

    organization_id: str
    slug: str
    project_id: str
    document_id: str
    unique: str = "x"

    def id_of(self, kind: ResourceType) -> str:
        return {ORGANIZATION: self.organization_id, PROJECT: self.project_id, DOCUMENT: self.document_id}[kind]


@dataclass(frozen=True)
class Case:
    """``on`` is the kind of the target; None for a list over everything. ``asks`` narrows a route that serves several kinds."""

    operation: str
    on: ResourceType | None
    path: str
    success: int = 200
    options: Callable[[Branch], dict[str, Any]] = field(default=lambda _branch: {})
    asks: frozenset[Action] | None = None
    destroys: bool = False

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


def _audit_cases() -> Iterator[Case]:
    def project(branch: Branch) -> dict[str, Any]:
        return {"params": {"resource_type": "PROJECT", "resource_id": branch.project_id}}

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
    yield from _membership_cases()
    yield from _audit_cases()


CASES: Final = tuple(_cases())

# Operations without a guard, and the status an identified caller gets; anonymous callers get 401 all the same.
OPEN: Final[Mapping[str, tuple[str, dict[str, Any], int]]] = {
    "create_organization": ("/organizations", {"slug": "new-{unique}"}, 201),
}

# Which action is asked where (AUTHORIZATION.md 2.1), said a second time: the matrix believes the routes, and this holds them to the design.
DESIGNED: Final[Mapping[Action, frozenset[str]]] = {
    Action.ORGANIZATION_READ: frozenset(
        {"list_organizations", "list_all_organizations", "read_organization_by_slug", "read_organization"},
    ),
    Action.ORGANIZATION_UPDATE: frozenset({"update_organization"}),
    Action.ORGANIZATION_DELETE: frozenset({"delete_organization"}),
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
    Action.DOCUMENT_SHARE: frozenset({"grant_role", "list_memberships", "revoke_role"}),
    Action.API_CALL_SHARE: frozenset({"grant_role", "list_memberships", "revoke_role"}),
    Action.MEMBER_MANAGE: frozenset(
        {
            "grant_role",
            "list_memberships",
            "revoke_role",
            "list_audit_events",
            "list_audit_events_of_resource",
            "list_audit_events_of_correlation",
        }
    ),
}
