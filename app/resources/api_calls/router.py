"""Routes of API calls."""

from typing import Annotated

from fastapi import Depends, Query, Request, Response

from app.core.permissions import Action
from app.http.bounded import bounded
from app.http.dependencies import TheRuntime, Work
from app.http.responses import ResourceResponse
from app.http.routes import Routes
from app.http.schemas import CorrelationId, CursorPageRead, PageRead, show_page
from app.http.targets import TheApiCall, TheProject, everything, the_api_call, the_project
from app.resources.api_calls.schemas import ApiCallCreate, ApiCallListQuery, ApiCallRead, ApiCallUpdate
from app.resources.api_calls.service import ApiCallService

routes = Routes("api-calls")


async def open_api_calls(work: Work) -> ApiCallService:
    """The rules of API calls for this request."""
    return ApiCallService(work)


ApiCalls = Annotated[ApiCallService, Depends(open_api_calls)]


@routes.post(
    "/projects/{project_id}/api-calls",
    allow=Action.API_CALL_CREATE,
    on=the_project,
    response_model=ApiCallRead,
    responses={200: {"model": ApiCallRead, "description": "The call that was created with this idempotency key before"}},
)
async def create_api_call(
    project: TheProject, new: ApiCallCreate, api_calls: ApiCalls, runtime: TheRuntime
) -> ApiCallRead | ResourceResponse:
    """Record an API call.

    With an `idempotency_key`, a repeat with the same body answers 200 and the call that exists; without its response and metadata
    when your credential may not read it.
    """
    call, is_new = await api_calls.create(project, new)
    return call if is_new else ResourceResponse(call, 200, runtime.base_path)


@routes.get("/projects/{project_id}/api-calls", allow=Action.API_CALL_READ, on=the_project)
async def list_api_calls_of_project(project: TheProject, request: Request, response: Response, api_calls: ApiCalls) -> list[ApiCallRead]:
    """List the API calls of a project, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest.
    """
    query = ApiCallListQuery(project_id=project.id)
    return await bounded(request, response, query, "/api-calls", read=ApiCallRead, fetch=lambda page: api_calls.list_visible(query, page))


@routes.get("/api-calls", allow=Action.API_CALL_READ, on=everything)
async def list_api_calls(
    query: Annotated[ApiCallListQuery, Query()], api_calls: ApiCalls
) -> PageRead[ApiCallRead] | CursorPageRead[ApiCallRead]:
    """List the API calls you may read."""
    return show_page(await api_calls.list_visible(query, query.request()), ApiCallRead)


@routes.get("/api-calls/by-correlation/{correlation_id}", allow=Action.API_CALL_READ, on=everything)
async def list_api_calls_of_correlation(
    correlation_id: CorrelationId, request: Request, response: Response, api_calls: ApiCalls
) -> list[ApiCallRead]:
    """List the API calls under one correlation id, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest.
    """
    query = ApiCallListQuery(correlation_id=correlation_id)
    return await bounded(request, response, query, "/api-calls", read=ApiCallRead, fetch=lambda page: api_calls.list_visible(query, page))


@routes.get("/api-calls/{api_call_id}", allow=Action.API_CALL_READ, on=the_api_call)
async def read_api_call(call: TheApiCall) -> ApiCallRead:
    """Read an API call."""
    return ApiCallRead.from_row(call.row)


@routes.patch("/api-calls/{api_call_id}", allow=Action.API_CALL_WRITE, on=the_api_call)
async def update_api_call(call: TheApiCall, changes: ApiCallUpdate, api_calls: ApiCalls) -> ApiCallRead:
    """Move an API call on, or store its response.

    The first end stamps `responded_at`; an ended call stays as it ended.
    """
    return await api_calls.update(call, changes)


@routes.delete("/api-calls/{api_call_id}", allow=Action.API_CALL_DELETE, on=the_api_call)
async def delete_api_call(call: TheApiCall, api_calls: ApiCalls) -> None:
    """Delete an API call."""
    await api_calls.delete(call)
