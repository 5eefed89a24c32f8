"""Routes of the audit trail."""

from types import SimpleNamespace
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from starlette.responses import StreamingResponse

from app.audit.retention import Choice
from app.audit.verification import verify
from app.authz.engine import Located
from app.core.errors import InvalidError
from app.core.events import AuditAction
from app.core.identifiers import new_id
from app.core.permissions import Action
from app.core.resources import ResourceType
from app.http.bounded import bounded
from app.http.dependencies import TheRuntime, Work
from app.http.routes import Routes
from app.http.schemas import CorrelationId, CursorPageRead, PageRead, show_page
from app.http.targets import TheOrganization, everything, the_organization
from app.models import Organization, Project
from app.resources.audit_events.export import MEDIA_TYPES, export
from app.resources.audit_events.repository import AuditEventRepository, AuditRetentionRepository
from app.resources.audit_events.schemas import (
    AuditEventCreate,
    AuditEventListQuery,
    AuditEventRead,
    AuditRetentionRead,
    AuditRetentionUpdate,
    ExportQuery,
    Pruned,
    PruneQuery,
)
from app.resources.audit_events.verification_schemas import VerificationRead, VerifyQuery
from app.unit_of_work import UnitOfWork

routes = Routes("audit-events")

EXPORTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The events, one on each line",
        "content": {media_type.partition(";")[0]: {"schema": {"type": "string"}, "example": "..."} for media_type in MEDIA_TYPES.values()},
    }
}


async def open_audit_events(work: Work) -> AuditEventRepository:
    """The audit trail for this request. It has no rules of its own, so there is no service between."""
    return AuditEventRepository(work)


AboutVerification = Annotated[VerifyQuery, Query()]
AboutPruning = Annotated[PruneQuery, Query()]
AboutExport = Annotated[ExportQuery, Query()]


async def the_verified_organization(query: AboutVerification, work: Work) -> Located:
    """The organization that the query names."""
    return await work.locate(Organization.id, query.organization_id)


async def the_pruned_organization(query: AboutPruning, work: Work) -> Located:
    """The organization that the query names."""
    return await work.locate(Organization.id, query.organization_id)


async def the_place_of_the_event(new: AuditEventCreate, work: Work) -> Located:
    """The project or the organization that the body names."""
    if new.project_id is not None:
        return await work.locate(Project.id, new.project_id)
    return await work.locate(Organization.id, new.organization_id)


async def the_exported(query: AboutExport, work: Work) -> Located:
    """The project or the organization that the query names."""
    if query.project_id is not None:
        return await work.locate(Project.id, query.project_id)
    if query.organization_id is not None:
        return await work.locate(Organization.id, query.organization_id)
    raise InvalidError("an organization or a project is needed", pointer="query.organization_id", code="missing")


AuditEvents = Annotated[AuditEventRepository, Depends(open_audit_events)]


@routes.get("/audit-events", allow=Action.MEMBER_MANAGE, on=everything)
async def list_audit_events(
    query: Annotated[AuditEventListQuery, Query()], events: AuditEvents
) -> PageRead[AuditEventRead] | CursorPageRead[AuditEventRead]:
    """List what happened in the organizations and projects whose members you manage."""
    return show_page(await events.list_visible(query, query.request()), AuditEventRead)


@routes.post("/audit-events", allow=Action.EXECUTION_CREATE, on=the_place_of_the_event, problems=(404,))
async def create_audit_event(
    place: Annotated[Located, Depends(the_place_of_the_event)], new: AuditEventCreate, work: Work
) -> AuditEventRead:
    """Add what happened in your application to the trail of an organization or project.

    You are its actor, now is its time; neither can be chosen, and nothing of it can be changed afterwards.
    """
    if place.organization_id != new.organization_id:
        raise InvalidError("is not the organization of this project", pointer="/organization_id")
    told = new.model_dump(mode="json", include={"targets", "context"}, exclude_none=True)
    return AuditEventRead.model_validate(SimpleNamespace(**work.record_told(new.action, place, told, outcome=new.outcome)))


@routes.get(
    "/audit-events/export",
    allow=Action.MEMBER_MANAGE,
    on=the_exported,
    problems=(404,),
    responses=EXPORTED,
    response_class=StreamingResponse,
)
async def export_audit_events(
    place: Annotated[Located, Depends(the_exported)], query: AboutExport, work: Work, runtime: TheRuntime
) -> StreamingResponse:
    """Export the events of an organization or project as a file, oldest first, however many there are.

    Takes the filters of the list; `organization_id` or `project_id` is required. Leaves an AUDIT_EXPORTED event.
    """
    async with UnitOfWork(runtime.context, work.identity, work.origin, is_read_only=False) as recording:
        recording.pin(place.organization_id)
        recording.record(AuditAction.AUDIT_EXPORTED, place, format=query.format.value, chosen=query.listed().filters())
    chunks = export(runtime.context, work.identity, work.origin, query.listed(), query.format)
    name = f'attachment; filename="audit-events.{query.format.value}"'
    return StreamingResponse(chunks, media_type=MEDIA_TYPES[query.format], headers={"Content-Disposition": name})


@routes.get("/audit-events/verify", allow=Action.MEMBER_MANAGE, on=the_verified_organization, problems=(404,))
async def verify_audit_events(query: AboutVerification, runtime: TheRuntime) -> VerificationRead:
    """Verify that no event of an organization was changed, removed, moved or slipped in since it was sealed.

    The answer names the first place where the chain is broken. Events are sealed within a second of their commit. Whoever keeps
    `sealed_through` elsewhere, and passes it later, also sees when the whole chain was replaced or its end cut off.
    """
    found = await verify(
        runtime.context.database, runtime.chain_keys, query.organization_id, from_position=query.from_position, known=query.known
    )
    return VerificationRead.model_validate(found)


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


@routes.delete("/audit-events", allow=Action.ORGANIZATION_DELETE, on=the_pruned_organization, status_code=200, problems=(404, 409))
async def prune_audit_events(
    organization: Annotated[Located, Depends(the_pruned_organization)],
    query: AboutPruning,
    work: Work,
    events: AuditEvents,
    runtime: TheRuntime,
) -> Pruned:
    """Remove events of an organization; only its owners may.

    An AUDIT_PRUNED event stays behind, for good. The chain of what is left can still be verified. `SAASBASE_AUDIT__MIN_RETENTION`
    keeps younger events from everybody: then `occurred_to` must be as old, and without one only older events go. Where the chain is broken
    at an event that would go, or beside it, nothing goes: 409 `chain_broken`.
    """
    query.occurred_to = runtime.retention.prunable_until(query.occurred_to)
    event_id = new_id()
    pruned = await events.prune(query, runtime.chain_keys, event_id)
    chosen = query.model_dump(mode="json", exclude={"organization_id"}, exclude_none=True)
    work.record_told(AuditAction.AUDIT_PRUNED, organization, {"pruned": pruned, "chosen": chosen}, event_id=event_id)
    return Pruned(pruned=pruned)


@routes.get("/organizations/{organization_id}/audit-retention", allow=Action.ORGANIZATION_DELETE, on=the_organization)
async def read_audit_retention(work: Work, runtime: TheRuntime) -> AuditRetentionRead:
    """Read for how long the events of an organization are kept; only its owners may."""
    own = await AuditRetentionRepository(work.session, runtime.chain_keys).read()
    if not own.is_signed:
        return AuditRetentionRead(retention_days=None, effective_days=None)
    return AuditRetentionRead(retention_days=own.days, effective_days=runtime.retention.effective_days(own.days))


@routes.patch("/organizations/{organization_id}/audit-retention", allow=Action.ORGANIZATION_DELETE, on=the_organization)
async def update_audit_retention(
    organization: TheOrganization, changes: AuditRetentionUpdate, work: Work, runtime: TheRuntime
) -> AuditRetentionRead:
    """Choose for how long the events of an organization are kept; only its owners may.

    Older events are pruned once a day, which an AUDIT_PRUNED event tells. It also holds when the organization is deleted.
    A choice that was put into the database past this route is not followed: nothing is pruned then until another is made.
    """
    days = changes.retention_days
    runtime.retention.require_allowed(days)
    before = await AuditRetentionRepository(work.session, runtime.chain_keys).write(organization.organization_id, days)
    if before != Choice(days):
        told = {"before": before.days, "after": days, **({} if before.is_signed else {"before_was_signed": False})}
        work.record_told(AuditAction.AUDIT_RETENTION_CHANGED, organization, told)
    return AuditRetentionRead(retention_days=days, effective_days=runtime.retention.effective_days(days))
