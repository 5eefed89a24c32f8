"""Routes for whoever runs the service: alive, ready, which version, metrics. They need no identity and tell nothing about tenants."""

import asyncio
from importlib.metadata import version

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from app.blobs.store import BlobStoreError
from app.core.errors import UnavailableError
from app.db.errors import as_app_error
from app.db.migrations import current_version, head_version
from app.http.runtime import Runtime, runtime_of
from app.observability import metrics

DISTRIBUTION = "saasbase-server"

router = APIRouter(tags=["operations"])
metrics_router = APIRouter(include_in_schema=False)


class Liveness(BaseModel):
    """The process answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """Whether each thing the service depends on works: `ok`, or what is wrong. The status is `draining` while the service is ending."""

    status: str
    database: str
    db_schema: str
    storage: str
    authorization: str


class Version(BaseModel):
    """Which release this is."""

    name: str
    version: str
    db_schema: str = Field(examples=["0001"])


@router.get("/livez", operation_id="read_liveness", summary="Is the process alive")
async def read_liveness() -> Liveness:
    """Answers as long as the process does; asks nothing else."""
    return Liveness()


@router.get(
    "/readyz",
    operation_id="read_readiness",
    summary="Can it serve requests",
    response_model=Readiness,
    responses={503: {"model": Readiness}},
)
async def read_readiness(request: Request) -> JSONResponse:
    """Asks the database and the policy engine, compares the schema with this release, and asks the store."""
    runtime = runtime_of(request)
    database, schema = await _check_database(runtime)
    storage = await _check_storage(runtime)
    authorization = await _check_authorization(runtime)
    is_ready = database == schema == storage == authorization == "ok"
    status = "draining" if runtime.traffic.is_draining else "ok" if is_ready else "unavailable"
    found = Readiness(status=status, database=database, db_schema=schema, storage=storage, authorization=authorization)
    return JSONResponse(found.model_dump(), 200 if status == "ok" else 503)


@router.get("/version", operation_id="read_version", summary="Which release this is")
async def read_version() -> Version:
    """The release and the schema it was made for."""
    return Version(name="SaaSBase Server", version=version(DISTRIBUTION), db_schema=head_version())


@metrics_router.get("/metrics")
async def read_metrics(request: Request) -> Response:
    """The numbers of all worker processes, for Prometheus."""
    runtime_of(request).access.write()
    text = await asyncio.to_thread(metrics.render)
    return Response(text, media_type=metrics.CONTENT_TYPE)


async def _check_database(runtime: Runtime) -> tuple[str, str]:
    database = runtime.context.database
    try:
        await database.ping()
        current = await current_version(database)
    except Exception as error:  # noqa: BLE001 - whatever it is, the service is not ready
        known = as_app_error(error)
        return (known.code if known else "unavailable"), "unknown"
    return "ok", "ok" if current == head_version() else f"at {current}, not at {head_version()}"


async def _check_storage(runtime: Runtime) -> str:
    try:
        await runtime.store.ping()
    except BlobStoreError as error:
        return str(error)
    return "ok"


async def _check_authorization(runtime: Runtime) -> str:
    try:
        await runtime.context.policy.check()
    except UnavailableError as error:
        return error.detail
    return "ok"
