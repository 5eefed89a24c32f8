"""``serve``, ``migrate``, ``sweep``: the service, its schema and its store."""

import atexit
import gc
import logging
import sys
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.root import fail, read_settings, run
from app.settings import PREFIX, Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_log = logging.getLogger(__name__)

# A worker that says nothing for so long is replaced. On a busy machine it takes several seconds until one has started to speak.
WORKER_SILENCE_SECONDS: Final = 30
YOUNG_OBJECTS: Final = 10_000


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Number of processes.", min=1)] = 1,
) -> None:
    """Serve the API. A SQLite database is migrated first; a PostgreSQL one must be at this release's schema."""
    gc.disable()  # what is loaded stays: looking through it again and again is a seventh of the time a start takes
    import uvicorn

    from app.cli.stopping import run_server
    from app.http.connection import PatientProtocol
    from app.main import make_database, make_openfga_client, make_resolver, make_store, make_tracing, prepare_schema
    from app.observability.metrics import shared_folder
    from app.settings import AuthorizationEngine

    settings = read_settings()

    async def prepare() -> None:
        if (tracing := make_tracing(settings)) is not None:  # that it can be had; each process has its own
            await tracing.aclose()
        make_resolver(settings)
        if settings.authz.engine is AuthorizationEngine.OPENFGA:
            await make_openfga_client(settings).aclose()  # that it is configured; whether it answers is asked when it is needed
        database, store = make_database(settings), make_store(settings)
        try:
            await prepare_schema(database)
            await store.open()
        finally:
            await database.aclose()
            await store.aclose()

    run(prepare())
    _require_second_port(settings, port)
    _warn_of_known_secrets(settings)  # not before: a start that fails says nothing but why
    print(_greeting(settings, host, port), file=sys.stderr, flush=True)
    config = uvicorn.Config(
        "app.cli.serving:make_app" if workers > 1 else partial(make_app, is_prepared=True),
        factory=True,
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http=PatientProtocol,
        ws="none",
        proxy_headers=False,  # trust decisions look at the transport peer, so nobody may rewrite it
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=settings.web.shutdown_seconds,
        timeout_worker_healthcheck=WORKER_SILENCE_SECONDS,
    )
    _leave_alone_what_is_there()
    with shared_folder() if settings.web.metrics and workers > 1 else nullcontext():
        run_server(config)


def _leave_alone_what_is_there() -> None:
    """What has been made so far stays. The collector would look through it for a tenth of a second, in which nobody is served.

    Nor does a request, some hundred objects, leave anything for it (``tests/http/test_garbage``): it looks when there are many more.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    gc.enable()


def _warn_of_known_secrets(settings: Settings) -> None:
    """Production refuses them; elsewhere they are told, because the environment may have been forgotten, too."""
    defaults = Settings.model_construct()
    names = {
        f"{PREFIX}API_KEYS__PEPPER": settings.api_keys.pepper == defaults.api_keys.pepper,
        f"{PREFIX}AUDIT__KEY": settings.audit.key == defaults.audit.key,
    }
    if known := [name for name, is_default in names.items() if is_default]:
        _log.warning("%s: everybody knows the default; set a secret of your own before you keep anything real here", " and ".join(known))


def _require_second_port(settings: Settings, port: int) -> None:
    """Every worker process opens it for itself, and would fail for itself."""
    from app.http.ops_port import listen

    second = settings.web.ops_port
    if not second:
        return
    if second == port:
        fail(f"SAASBASE_WEB__OPS_PORT: {second} is the port of the API")
    try:
        listen(settings.web.ops_host, second, shared=False).close()
    except OSError as error:
        fail(f"SAASBASE_WEB__OPS_PORT: cannot listen on {settings.web.ops_host}:{second}: {error.strerror}")


def make_app(*, is_prepared: bool = False) -> "ASGIApp":
    """The service as each worker process makes it, which inherits no logging from the one that started it. See ``create_app``."""
    gc.disable()
    from app.cli.stopping import Stoppable
    from app.http.access import AccessLog
    from app.http.connection import Patience, PatientProtocol
    from app.main import create_app

    settings = read_settings()
    web = settings.web
    PatientProtocol.patience = Patience(web.header_seconds, web.body_idle_seconds, web.read_idle_seconds)
    PatientProtocol.hsts_seconds = web.hsts_seconds
    app = create_app(settings, is_prepared=is_prepared)
    access: AccessLog = app.state.runtime.access
    PatientProtocol.access = access
    atexit.register(access.write)  # also when a second signal ends it without waiting
    _leave_alone_what_is_there()
    return Stoppable(app, app.state.runtime.traffic, web.drain_seconds)


def migrate(
    create_roles: Annotated[bool, typer.Option("--create-roles", help="Also make the roles named in the URLs, with their rights.")] = False,
) -> None:
    """Bring the database schema to this release's version. Safe to run from many places at once."""
    from app.db.migrations import head_version
    from app.main import migrate_database

    new = run(migrate_database(read_settings(), with_roles=create_roles))
    print(f"schema is at {head_version()}")
    for name in new:
        print(f"created the role {name}")


def sweep(
    min_age: Annotated[int | None, typer.Option(help="Seconds; the configured minimum when absent.", min=0)] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Make the store this database's, and remove what this database does not name.")
    ] = False,
) -> None:
    """Remove contents that no document version names, once. Status 1 when the store is another database's."""
    from app.blobs.mark import take_over as write_mark
    from app.blobs.sweeper import sweep as run_sweep
    from app.main import make_database, make_store, prepare_schema

    settings = read_settings()
    age = settings.storage.sweep_min_age_seconds if min_age is None else min_age

    async def sweep_once() -> str:
        database, store = make_database(settings), make_store(settings)
        try:
            await prepare_schema(database)
            await store.open()
            if take_over:
                await write_mark(database, store)
            found = await run_sweep(database, store, timedelta(seconds=age))
        finally:
            await database.aclose()
            await store.aclose()
        return f"examined {found.examined}, removed {found.removed}"

    print(run(sweep_once()))


def _greeting(settings: Settings, host: str, port: int) -> str:
    web = settings.web
    api = f"http://{_in_url(host)}:{port}"
    operations = f"http://{_in_url(web.ops_host)}:{web.ops_port}" if web.ops_port else api
    lines = [f"SaaSBase Server  {operations}/docs" if web.docs else f"SaaSBase Server  {api}"]
    header, trusted = settings.actor.header, settings.actor.trusted_proxies
    if settings.actor.resolver:
        lines.append(f"Who is calling:  {settings.actor.resolver} says it (SAASBASE_ACTOR__RESOLVER)")
    elif trusted:
        lines.append(f"Who is calling:  the header '{header}: user:alice', believed from {', '.join(map(str, trusted))}")
        lines.append("                 Trusting a header is for development and for proxies that set it themselves.")
    else:
        lines.append(f"Who is calling:  nobody may name himself in {header} (SAASBASE_ACTOR__TRUSTED_PROXIES is empty)")
    return "\n".join(lines)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
