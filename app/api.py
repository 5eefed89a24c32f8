"""The resources of the API."""

from typing import Final

from app.http.routes import Routes
from app.resources.api_calls.router import routes as api_calls
from app.resources.api_keys.router import routes as api_keys
from app.resources.audit_events.router import routes as audit_events
from app.resources.authz.authzen.router import routes as authzen
from app.resources.authz.router import routes as authz
from app.resources.documents.router import routes as documents
from app.resources.executions.router import routes as executions
from app.resources.groups.router import routes as groups
from app.resources.memberships.router import routes as memberships
from app.resources.organizations.router import routes as organizations
from app.resources.projects.router import routes as projects

RESOURCES: Final[tuple[Routes, ...]] = (
    organizations,
    projects,
    documents,
    api_calls,
    executions,
    memberships,
    groups,
    api_keys,
    authz,
    authzen,
    audit_events,
)
