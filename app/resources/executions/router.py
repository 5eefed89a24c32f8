"""Routes of executions."""

from typing import Annotated

from fastapi import Depends, Query, Request, Response

from app.authz.engine import Located
from app.core.permissions import Action
from app.http.bodies import receive_body
from app.http.bounded import bounded
from app.http.dependencies import Work
from app.http.routes import Routes
from app.http.schemas import CorrelationId, CursorPageRead, PageRead, show_page
from app.http.targets import TheExecution, TheProject, everything, the_execution, the_project
from app.models import Project
from app.resources.executions.batch_schemas import BatchResult, BatchResults, ExecutionBatch
from app.resources.executions.batch_service import BatchService
from app.resources.executions.otlp_schemas import ANSWERS, BODY
from app.resources.executions.otlp_service import SpanService
from app.resources.executions.otlp_wire import MAX_BYTES, MAX_PACKED_BYTES
from app.resources.executions.schemas import (
    ExecutionCancel,
    ExecutionComplete,
    ExecutionEventCreate,
    ExecutionEventListQuery,
    ExecutionEventRead,
    ExecutionFail,
    ExecutionHeartbeat,
    ExecutionListQuery,
    ExecutionRead,
    ExecutionStart,
)
from app.resources.executions.service import ExecutionService
from app.resources.executions.trace_schemas import TimelineRead, TreeRead
from app.resources.executions.traces import timeline, tree

routes = Routes("executions")


async def open_executions(work: Work) -> ExecutionService:
    """The rules of executions for this request."""
    return ExecutionService(work)


async def open_batches(work: Work) -> BatchService:
    """The rules of batches for this request."""
    return BatchService(work)


async def open_spans(work: Work) -> SpanService:
    """The rules of spans for this request."""
    return SpanService(work)


async def the_projected(new: ExecutionStart, work: Work) -> Located:
    """The project that the body names."""
    return await work.locate(Project.id, new.project_id)


Executions = Annotated[ExecutionService, Depends(open_executions)]
Batches = Annotated[BatchService, Depends(open_batches)]
Spans = Annotated[SpanService, Depends(open_spans)]


@routes.post("/executions", allow=Action.EXECUTION_CREATE, on=the_projected, problems=(404,))
async def start_execution(
    project: Annotated[Located, Depends(the_projected)], new: ExecutionStart, executions: Executions
) -> ExecutionRead:
    """Record that you start something.

    You are its actor. End it with `/complete` or `/fail`.
    """
    return await executions.start(project, new)


@routes.post("/projects/{project_id}/executions/batch", allow=Action.EXECUTION_CREATE, on=the_project, status_code=200)
async def record_executions(project: TheProject, batch: ExecutionBatch, executions: Batches) -> BatchResults:
    """Start and end up to 500 executions of a project at once, in the order of the items.

    Each item has an answer of its own, the same as if it came alone: one that cannot be done leaves the others as they are. All
    that can be done becomes durable together. An item may name an execution that an earlier one starts by that item's place:
    `parent_index`, `execution_index`. A parent that is named by its id may lie in another project of the organization.
    """
    outcomes = await executions.take(project, batch.told)
    return BatchResults(results=[BatchResult.of(index, outcome) for index, outcome in enumerate(outcomes)])


@routes.get("/executions", allow=Action.EXECUTION_READ, on=everything)
async def list_executions(
    query: Annotated[ExecutionListQuery, Query()], executions: Executions
) -> PageRead[ExecutionRead] | CursorPageRead[ExecutionRead]:
    """List the executions you may read."""
    return show_page(await executions.list_visible(query, query.request()), ExecutionRead)


@routes.get("/executions/by-project/{project_id}", allow=Action.EXECUTION_READ, on=the_project)
async def list_executions_of_project(
    project: TheProject, request: Request, response: Response, executions: Executions
) -> list[ExecutionRead]:
    """List the executions of a project, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest.
    """
    query = ExecutionListQuery(project_id=project.id)
    return await bounded(
        request, response, query, "/executions", read=ExecutionRead, fetch=lambda page: executions.list_visible(query, page)
    )


@routes.get("/executions/by-correlation/{correlation_id}", allow=Action.EXECUTION_READ, on=everything)
async def list_executions_of_correlation(
    correlation_id: CorrelationId, request: Request, response: Response, executions: Executions
) -> list[ExecutionRead]:
    """List the executions under one correlation id, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest.
    """
    query = ExecutionListQuery(correlation_id=correlation_id)
    return await bounded(
        request, response, query, "/executions", read=ExecutionRead, fetch=lambda page: executions.list_visible(query, page)
    )


@routes.get("/executions/{execution_id}", allow=Action.EXECUTION_READ, on=the_execution)
async def read_execution(execution: TheExecution) -> ExecutionRead:
    """Read an execution."""
    return ExecutionRead.from_row(execution.row)


@routes.get("/executions/{execution_id}/children", allow=Action.EXECUTION_READ, on=the_execution)
async def list_child_executions(
    execution: TheExecution, request: Request, response: Response, executions: Executions
) -> list[ExecutionRead]:
    """List the executions directly below one, as an array.

    At most 1000, oldest first; a `Link` header with `rel="next"` leads to the rest. Shows those that you may read, in any project.
    """
    query = ExecutionListQuery(parent_execution_id=execution.row.id)
    return await bounded(
        request, response, query, "/executions", read=ExecutionRead, fetch=lambda page: executions.list_children(query, page)
    )


@routes.get("/executions/{execution_id}/tree", allow=Action.EXECUTION_READ, on=the_execution)
async def read_execution_tree(execution: TheExecution, executions: Executions) -> TreeRead:
    """Read an execution with everything below it, nested, with totals at every level.

    In one statement however deep it is; at most 10,000 executions.
    """
    nodes, is_complete = await executions.trace(execution)
    return tree(nodes, is_complete=is_complete)


@routes.get("/executions/{execution_id}/timeline", allow=Action.EXECUTION_READ, on=the_execution)
async def read_execution_timeline(execution: TheExecution, executions: Executions) -> TimelineRead:
    """Read an execution and everything below it as a time line: offsets, durations, depth and the critical path.

    In one statement however deep it is; at most 10,000 executions.
    """
    nodes, is_complete = await executions.trace(execution)
    return timeline(nodes, is_complete=is_complete)


@routes.post("/executions/{execution_id}/events", allow=Action.EXECUTION_CREATE, on=the_execution)
async def add_execution_event(execution: TheExecution, new: ExecutionEventCreate, executions: Executions) -> ExecutionEventRead:
    """Add what happens while an execution runs: a step, a partial result, a remark."""
    return await executions.add_event(execution, new)


@routes.get("/executions/{execution_id}/events", allow=Action.EXECUTION_READ, on=the_execution)
async def list_execution_events(
    execution: TheExecution, query: Annotated[ExecutionEventListQuery, Query()], executions: Executions
) -> PageRead[ExecutionEventRead] | CursorPageRead[ExecutionEventRead]:
    """List what happened while an execution ran, oldest first."""
    return show_page(await executions.list_events(execution, query.request()), ExecutionEventRead)


@routes.post("/executions/{execution_id}/complete", allow=Action.EXECUTION_CREATE, on=the_execution, status_code=200)
async def complete_execution(execution: TheExecution, result: ExecutionComplete, executions: Executions) -> ExecutionRead:
    """End an execution well. An ended execution stays as it ended."""
    return await executions.end(execution, result)


@routes.post("/executions/{execution_id}/fail", allow=Action.EXECUTION_CREATE, on=the_execution, status_code=200)
async def fail_execution(execution: TheExecution, error: ExecutionFail, executions: Executions) -> ExecutionRead:
    """End an execution badly. An ended execution stays as it ended."""
    return await executions.end(execution, error)


@routes.post("/executions/{execution_id}/cancel", allow=Action.EXECUTION_CREATE, on=the_execution, status_code=200)
async def cancel_execution(execution: TheExecution, asked: ExecutionCancel, executions: Executions) -> ExecutionRead:
    """End an execution that is no longer wanted. An ended execution stays as it ended."""
    return await executions.end(execution, asked)


@routes.post("/executions/{execution_id}/heartbeat", allow=Action.EXECUTION_CREATE, on=the_execution, status_code=200)
async def beat_execution(execution: TheExecution, beat: ExecutionHeartbeat, executions: Executions) -> ExecutionRead:
    """Say that an execution is still running; this moves its deadline by its timeout from now."""
    return await executions.beat(execution, beat)


@routes.post(
    "/projects/{project_id}/otlp/v1/traces",
    allow=Action.EXECUTION_CREATE,
    on=the_project,
    status_code=200,
    unlimited_body=True,
    openapi_extra=BODY,
    responses=ANSWERS,
    response_class=Response,
)
async def import_spans(project: TheProject, request: Request, spans: Spans) -> Response:
    """Take in the spans of an OpenTelemetry exporter as executions.

    OTLP/HTTP: an `ExportTraceServiceRequest` of at most 10,000 spans, in protobuf (at most 32 MiB) or JSON (at most 8 MiB), as it is or
    packed with gzip (at most 8 MiB packed). A span becomes one execution, however often it is sent, below its parent, whichever comes
    first. `gen_ai.*` and OpenInference attributes fill its columns; all that the span said stands in `metadata.otel`. Spans that cannot
    be accepted are counted in the answer. Errors are problems as everywhere here, where OTLP would have a `google.rpc.Status`:
    exporters go by the status code and `Retry-After`.
    """
    body = await receive_body(request, MAX_BYTES, max_packed_bytes=MAX_PACKED_BYTES)
    return Response(await spans.import_(project, body.unpack, body.media_type), media_type=body.media_type)
