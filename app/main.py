"""Builds the service from its settings: the only place where everything meets."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Lifespan

from app.api import RESOURCES
from app.audit.chain import ChainKeys
from app.audit.denials import DeniedAttempts
from app.audit.retention import RetentionRules
from app.authn.api_keys import KeyVerifier
from app.authn.bearer import KeyOrTokenVerifier
from app.authn.guesses import GuessLimiter
from app.authn.proxies import ProxyTrust
from app.authn.resolver import ActorResolver, ChainedActorResolver, load_resolver
from app.authz.builtin import BuiltinPolicyEngine
from app.authz.outbox import Outbox
from app.blobs.disk import DiskBlobStore
from app.blobs.store import BlobStore, BlobStoreError
from app.core.actors import Actor
from app.core.errors import AppError
from app.db.engine import Database, PoolLimits, SecondWall
from app.db.filesystems import network_kind
from app.db.migrations import current_version, head_version, migrate, require_head, require_ours
from app.db.roles import create_roles, require_roles
from app.db.tracing import trace_statements
from app.db.urls import DatabaseURLError, read_url
from app.http import docs, ops, well_known
from app.http.faults import FaultMiddleware
from app.http.limits import Quotas, RequestLimits
from app.http.middleware import EdgeMiddleware
from app.http.openapi import make_openapi
from app.http.problems import handle_error
from app.http.protections import ProblemCORSMiddleware, cors_options
from app.http.routes import require_guards
from app.http.routing import DirectRoutes, RouteIndex, redirect_slashes
from app.http.runtime import Runtime
from app.jobs import JobPlan, run_jobs
from app.limits.buckets import LocalLimiter
from app.limits.shared import SharedLimiter
from app.observability.tracing import is_untraced
from app.settings import (
    AuthorizationEngine,
    AuthorizationFallback,
    Environment,
    OrganizationCreation,
    Settings,
    SettingsError,
    load_settings,
)
from app.unit_of_work import WorkContext

if TYPE_CHECKING:
    from app.authn.jwt import JwtVerifier
    from app.authz.openfga_client import OpenFGAClient
    from app.observability.exporting import Tracing

_log = logging.getLogger(__name__)

BREAK_OFF_SECONDS: Final = 5.0  # for requests that were broken off to undo what they began


def make_database(settings: Settings) -> Database:
    """The database the settings name.

    Raises:
        DatabaseURLError: it is of no kind this service takes, cannot do what is asked of it, or is not safe in production.
    """
    jobs = settings.database.jobs_url
    wall = SecondWall(
        row_level_security=settings.database.row_level_security,
        jobs_url=read_url("SAASBASE_DATABASE__JOBS_URL", jobs.get_secret_value()) if jobs is not None else None,
    )
    url = read_url("SAASBASE_DB_URL", settings.db_url.get_secret_value())
    if settings.environment is Environment.PRODUCTION and url.drivername.startswith("sqlite"):
        _require_one_host(Path(url.database or ""))
    return Database(url, _limits(settings), wall)


def _require_one_host(file: Path) -> None:
    if (kind := network_kind(file)) is not None:
        raise DatabaseURLError(
            f"SAASBASE_DB_URL: {kind} is a network or shared file system, where SQLite loses data: use a local disk, or PostgreSQL"
        )


async def migrate_database(settings: Settings, *, with_roles: bool) -> list[str]:
    """Bring the schema to this release as the role that owns it; with the roles the settings name, returns those that are new.

    Raises:
        DatabaseURLError: see ``make_database``.
        DatabaseRoleError: see ``create_roles``.
    """
    target, given = make_database(settings), settings.database.migration_url
    url = read_url("SAASBASE_DATABASE__MIGRATION_URL", given.get_secret_value()) if given is not None else target.url
    owner = Database(url, replace(_limits(settings), statement_seconds=0))
    try:
        await migrate(owner)
        return await create_roles(owner, target) if with_roles else []
    finally:
        await owner.aclose()
        await target.aclose()


def _limits(settings: Settings) -> PoolLimits:
    return PoolLimits(
        size=settings.database.pool_size,
        checkout_seconds=settings.database.pool_timeout_seconds,
        statement_seconds=settings.database.statement_timeout_seconds,
        lock_seconds=settings.database.lock_timeout_seconds,
        transaction_pooler=settings.database.transaction_pooler,
    )


def make_store(settings: Settings) -> BlobStore:
    """The blob store the settings name: S3 when there is a bucket, else the disk."""
    given = settings.storage.s3
    if not given.bucket:
        return DiskBlobStore(settings.storage.local.base_path)
    from app.blobs.s3 import S3BlobStore, S3Options  # noqa: PLC0415 - its library costs half a second and 40 MiB

    options = S3Options(
        bucket=given.bucket,
        prefix=given.prefix,
        endpoint=given.endpoint or None,
        region=given.region or None,
        access_key=given.access_key.get_secret_value() if given.access_key else None,
        secret_key=given.secret_key.get_secret_value() if given.secret_key else None,
        path_style=given.path_style,
        part_bytes=given.part_bytes,
        presign_seconds=given.presign_seconds if given.presign_downloads else None,
    )
    return S3BlobStore(options)


def make_openfga_client(settings: Settings, *, needs_store: bool = True) -> "OpenFGAClient":
    """A client of the OpenFGA server and store the settings name; opens no connection yet.

    Raises:
        SettingsError: they name no store, and one is needed.
    """
    from app.authz.openfga_client import OpenFGAClient  # noqa: PLC0415 - its library, for those who have such a server

    openfga = settings.authz.openfga
    if needs_store and not openfga.store_id:
        raise SettingsError("SAASBASE_AUTHZ__OPENFGA__STORE_ID: is empty; 'saasbase authz setup' makes a store and prints its id")
    return OpenFGAClient(
        openfga.url,
        openfga.store_id,
        model_id=openfga.model_id or None,
        token=openfga.token.get_secret_value() if openfga.token else None,
        timeout_seconds=openfga.timeout_seconds,
    )


def make_chain_keys(settings: Settings) -> ChainKeys:
    """The keys that the audit trail is sealed and verified with."""
    return ChainKeys(settings.audit.key.get_secret_value(), (key.get_secret_value() for key in settings.audit.previous_keys))


def make_tracing(settings: Settings) -> "Tracing | None":
    """What collects and sends spans; None unless the settings ask for it.

    Raises:
        SettingsError: the packages for it are not installed, or an environment variable of OpenTelemetry cannot be used.
    """
    if not settings.telemetry.traces:
        return None
    try:
        from app.observability.exporting import Tracing  # noqa: PLC0415 - an extra

        return Tracing(version(ops.DISTRIBUTION))
    except ModuleNotFoundError as error:
        raise SettingsError(f"SAASBASE_TELEMETRY__TRACES: {error.name} is missing: install saasbase-server[otel]") from None
    except ValueError as error:  # the libraries read some variables when they are imported
        raise SettingsError(f"SAASBASE_TELEMETRY__TRACES: {error}") from None


def make_resolver(settings: Settings) -> ActorResolver | None:
    """The resolver of somebody's own that the settings name, if they name one.

    Raises:
        SettingsError: there is no such class.
    """
    try:
        return load_resolver(settings.actor.resolver) if settings.actor.resolver else None
    except ImportError as error:
        raise SettingsError(f"SAASBASE_ACTOR__RESOLVER: {error}") from None


async def prepare_schema(database: Database) -> None:
    """SQLite migrates itself; on PostgreSQL that is ``saasbase migrate``'s to do.

    Raises:
        SchemaVersionError: the PostgreSQL schema is not the one this release needs, or the database is not this service's.
        DatabaseRoleError: a role sees more, or less, than its work needs.
    """
    if database.is_sqlite:
        await require_ours(database)
        if await current_version(database) != head_version():
            await migrate(database)
    else:
        await require_head(database)
        await require_roles(database)


def create_app(settings: Settings | None = None, *, actor_resolver: ActorResolver | None = None, is_prepared: bool = False) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: the configuration; read from the environment when absent.
        actor_resolver: decides who is calling, instead of the one that the settings name, or make.
        is_prepared: ``prepare_schema`` has just been done.

    Raises:
        SettingsError: the environment holds a setting that cannot be used.
        UnguardedRouteError: a route was declared without a guard.
    """
    settings = settings or load_settings()
    tracing = make_tracing(settings)
    runtime = make_runtime(settings, actor_resolver or make_resolver(settings))
    if tracing is not None:
        trace_statements(runtime.context.database, tracing.provider.get_tracer("saasbase"))
    routes = [route for resource in RESOURCES for route in resource.build(settings.web.base_path)] if settings.web.enabled else []
    require_guards(routes)
    sweep_min_age = timedelta(seconds=settings.storage.sweep_min_age_seconds)
    limiter = runtime.limits.limiter if runtime.limits is not None else None
    plan = JobPlan(sweep_min_age, settings.storage.sweep_interval_seconds, runtime.retention, limiter)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        try:
            if not is_prepared:
                await prepare_schema(runtime.context.database)
            await runtime.store.open()
            jobs = run_jobs(runtime.context, runtime.store, runtime.key_uses, runtime.chain_keys, plan)
            async with jobs, _serve_operations(app, settings):
                yield
                await runtime.traffic.wait_until_over(BREAK_OFF_SECONDS)
        finally:
            try:
                await close_runtime(runtime)
                if tracing is not None:
                    await tracing.aclose()
            finally:
                runtime.access.write()

    index = RouteIndex(routes, max_body_bytes=settings.web.max_body_bytes)
    app = _make_shell(settings, runtime, index, has_operations=not settings.web.ops_port, tracing=tracing, lifespan=lifespan)
    if settings.web.enabled:
        app.include_router(well_known.router)
    if settings.web.cors_origins:
        app.add_middleware(ProblemCORSMiddleware, **cors_options(settings.web.cors_origins, settings.actor.header))
    app.add_middleware(EdgeMiddleware, access=runtime.access, traffic=runtime.traffic, hsts_seconds=settings.web.hsts_seconds)
    app.openapi = cache(lambda: make_openapi(app, routes, settings.actor.header))  # type: ignore[method-assign] # FastAPI's documented way
    return app


def _make_shell(  # noqa: PLR0913 - what it is made of
    settings: Settings,
    runtime: Runtime,
    index: RouteIndex,
    *,
    has_operations: bool,
    tracing: "Tracing | None" = None,
    lifespan: Lifespan[FastAPI] | None = None,
) -> FastAPI:
    """An application with the health routes, and what is for operators and developers unless another port has that."""
    has_docs = has_operations and settings.web.docs
    app = FastAPI(
        telemetry=_telemetry_of(tracing),
        title="SaaSBase Server",
        version=version(ops.DISTRIBUTION),
        openapi_url=docs.OPENAPI if has_docs else None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.runtime = runtime
    app.router.routes.append(index)
    app.add_middleware(DirectRoutes, index=index)
    redirect_slashes(app.router)
    app.include_router(ops.router)
    if has_operations and settings.web.metrics:
        app.include_router(ops.metrics_router)
    if has_docs:
        app.include_router(docs.router)
        app.mount(docs.PREFIX, docs.static_files, name="static")
    app.add_middleware(FaultMiddleware, traffic=runtime.traffic, body_idle_seconds=settings.web.body_idle_seconds)
    for error in (AppError, HTTPException, BlobStoreError, ClientDisconnect, RequestValidationError):
        app.add_exception_handler(error, handle_error)
    return app


def _telemetry_of(tracing: "Tracing | None") -> TelemetryConfig:
    """Of what FastAPI can tell by itself the spans of requests, and nothing that variables of the environment could add."""
    nothing_else: TelemetryConfig = {"metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
    if tracing is None:
        return {**nothing_else, "tracing": False}
    return {**nothing_else, "tracing": True, "tracer_provider": tracing.provider, "exclude": is_untraced}


@asynccontextmanager
async def _serve_operations(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    """While the block lasts, the port for operators and developers, if there is to be one."""
    if not settings.web.ops_port:
        yield
        return
    from app.http.ops_port import serve_beside  # noqa: PLC0415 - the server is not needed by who brings his own

    runtime: Runtime = app.state.runtime
    second = _make_shell(settings, runtime, RouteIndex((), max_body_bytes=settings.web.max_body_bytes), has_operations=True)
    second.state.is_read_only = True
    second.add_middleware(EdgeMiddleware, access=runtime.access, traffic=runtime.traffic, hsts_seconds=settings.web.hsts_seconds)
    second.openapi = app.openapi  # type: ignore[method-assign] # FastAPI's documented way
    async with serve_beside(second, settings.web.ops_host, settings.web.ops_port):
        yield


def make_runtime(settings: Settings, actor_resolver: ActorResolver | None = None) -> Runtime:
    """The parts of the service, connected; opens nothing yet.

    Raises:
        DatabaseURLError: see ``make_database``.
        SettingsError: see ``make_openfga_client``.
    """
    secret = settings.actor.proxy_secret
    trust = ProxyTrust(settings.actor.trusted_proxies, secret.get_secret_value() if secret else None)
    anonymous = Actor.from_subject(settings.actor.anonymous) if settings.actor.anonymous.strip() else None
    database = make_database(settings)
    pepper = settings.api_keys.pepper.get_secret_value().encode()
    context = _make_context(settings, database)
    keys = KeyVerifier(database, pepper, context.policy)
    tokens = _make_tokens(settings)
    guarded = GuessLimiter(keys) if settings.api_keys.guess_limit else keys  # signatures of tokens cannot be guessed
    bearer = KeyOrTokenVerifier(guarded, tokens) if tokens is not None else guarded
    return Runtime(
        context=context,
        tokens=tokens,
        key_uses=keys.uses,
        pepper=pepper,
        chain_keys=make_chain_keys(settings),
        retention=RetentionRules.of(settings.audit.min_retention, settings.audit.retention),
        store=make_store(settings),
        resolver=actor_resolver or ChainedActorResolver(settings.actor.header, trust, anonymous, bearer),
        trust=trust,
        base_path=settings.web.base_path,
        max_body_bytes=settings.web.max_body_bytes,
        max_upload_bytes=settings.storage.max_upload_bytes,
        limits=_make_limits(settings, database),
        may_create_organizations=settings.organizations.creation is OrganizationCreation.AUTHENTICATED,
    )


def _make_tokens(settings: Settings) -> "JwtVerifier | None":
    if not settings.jwt.issuers:
        return None
    from app.authn.jwt import JwtVerifier  # noqa: PLC0415 - its libraries take 13 MiB

    return JwtVerifier(settings.jwt.issuers, settings.jwt.algorithms, settings.jwt.leeway_seconds)


def _make_limits(settings: Settings, database: Database) -> RequestLimits | None:
    given = settings.limits
    quotas = Quotas(given.key_per_minute, given.actor_per_minute, given.peer_per_minute)
    if quotas == Quotas(0, 0, 0):
        return None
    return RequestLimits(quotas, SharedLimiter(database) if given.shared else LocalLimiter())


async def close_runtime(runtime: Runtime) -> None:
    """Let go of everything the parts have opened."""
    await runtime.context.policy.aclose()
    await runtime.context.database.aclose()
    await runtime.store.aclose()
    if runtime.tokens is not None:
        await runtime.tokens.aclose()


def _make_context(settings: Settings, database: Database) -> WorkContext:
    if settings.authz.engine is AuthorizationEngine.BUILTIN:
        return WorkContext(database, BuiltinPolicyEngine(), DeniedAttempts())
    from app.authz.openfga import OpenFGAPolicyEngine  # noqa: PLC0415 - see make_openfga_client

    client = make_openfga_client(settings)
    policy = OpenFGAPolicyEngine(client, falls_back=settings.authz.fallback is AuthorizationFallback.SQL)
    return WorkContext(database, policy, DeniedAttempts(), Outbox(database, client))
