"""Routes of the audit trail."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request, Response

from app.authz.engine import Located
from app.core.events import AuditAction
from app.core.permissions import Action
from app.core.resources import ResourceType
from app.http.bounded import bounded
from app.http.dependencies import Work
from app.http.routes import Routes
from app.http.schemas import CorrelationId, CursorPageRead, PageRead, show_page
from app.http.targets import everything
from app.models import Organization
from app.resources.audit_events.repository import AuditEventRepository
from app.resources.audit_events.schemas import AuditEventListQuery, AuditEventRead, Pruned, PruneQuery

routes = Routes("audit-events")


async def open_audit_events(work: Work) -> AuditEventRepository:
    """The audit trail for this request. It has no rules of its own, so there is no service between."""
    return AuditEventRepository(work)


async def the_pruned_organization(query: Annotated[PruneQuery, Query()], work: Work) -> Located:
    """The organization that the query names."""
    return await work.locate(Organization.id, query.organization_id)


AuditEvents = Annotated[AuditEventRepository, Depends(open_audit_events)]


@routes.get("/audit-events", allow=Action.MEMBER_MANAGE, on=everything)
async def list_audit_events(
    query: Annotated[AuditEventListQuery, Query()], events: AuditEvents
) -> PageRead[AuditEventRead] | CursorPageRead[AuditEventRead]:
    """List what happened in the organizations and projects whose members you manage."""
    return show_page(await events.list_visible(query, query.request()), AuditEventRead)


@routes.get("/audit-events/by-resource", allow=Action.MEMBER_MANAGE, on=everything)
async def list_audit_events_of_resource(
    resource_type: ResourceType, resource_id: UUID, request: Request, response: Response, events: AuditEvents
) -> list[AuditEventRead]:
    """List what happened to one resource, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest.
    """
    query = AuditEventListQuery(resource_type=resource_type, resource_id=resource_id)
    return await bounded(
        request, response, query, "/audit-events", read=AuditEventRead, fetch=lambda page: events.list_visible(query, page)
    )


@routes.get("/audit-events/by-correlation/{correlation_id}", allow=Action.MEMBER_MANAGE, on=everything)
async def list_audit_events_of_correlation(
    correlation_id: CorrelationId, request: Request, response: Response, events: AuditEvents
) -> list[AuditEventRead]:
    """List what happened under one correlation id, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest.
    """
    query = AuditEventListQuery(correlation_id=correlation_id)
    return await bounded(
        request, response, query, "/audit-events", read=AuditEventRead, fetch=lambda page: events.list_visible(query, page)
    )


@routes.delete("/audit-events", allow=Action.ORGANIZATION_DELETE, on=the_pruned_organization, status_code=200, problems=(404,))
async def prune_audit_events(
    organization: Annotated[Located, Depends(the_pruned_organization)],
    query: Annotated[PruneQuery, Query()],
    work: Work,
    events: AuditEvents,
) -> Pruned:
    """Remove events of an organization; only its owners may. An AUDIT_PRUNED event stays behind."""
    pruned = await events.prune(query)
    chosen = query.model_dump(mode="json", exclude={"organization_id"}, exclude_none=True)
    work.record(AuditAction.AUDIT_PRUNED, organization, pruned=pruned, chosen=chosen)
    return Pruned(pruned=pruned)
