"""The ``saasbase`` command."""

import asyncio
import json
import signal
import sys
import threading
from collections.abc import Coroutine
from contextlib import nullcontext
from datetime import timedelta
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from app.db.engine import DatabaseURLError
from app.db.migrations import SchemaVersionError
from app.db.roles import DatabaseRoleError
from app.settings import LogFormat, Settings, SettingsError, load_settings

Result = TypeVar("Result")
STORE_NAME = "saasbase"

cli = typer.Typer(
    name="saasbase",
    help="SaaSBase Server: the multi-tenant back end of a SaaS product as one async REST service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
authz = typer.Typer(
    help="OpenFGA as policy engine: its model, its store, and whether the store holds what the database holds.", no_args_is_help=True
)
cli.add_typer(authz, name="authz")


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Number of processes.", min=1)] = 1,
) -> None:
    """Serve the API. A SQLite database is migrated first; a PostgreSQL one must be at this release's schema."""
    import uvicorn

    from app.main import make_database, make_openfga_client, make_store, prepare_schema
    from app.observability.metrics import shared_folder
    from app.settings import AuthorizationEngine

    settings = _settings()

    async def prepare() -> None:
        if settings.authz.engine is AuthorizationEngine.OPENFGA:
            await make_openfga_client(settings).aclose()  # that it is configured; whether it answers is asked when it is needed
        database, store = make_database(settings), make_store(settings)
        try:
            await prepare_schema(database)
            await store.open()
        finally:
            await database.aclose()
            await store.aclose()

    _run(prepare())
    print(_greeting(settings, host, port), file=sys.stderr, flush=True)
    # uvicorn ends in order and then raises the signal once more, which would make an ordinary stop look like a crash.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    with shared_folder() if settings.web.metrics and workers > 1 else nullcontext():
        uvicorn.run(
            "app.main:create_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            loop="uvloop",
            http="httptools",
            ws="none",
            proxy_headers=False,  # trust decisions look at the transport peer, so nobody may rewrite it
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=30,
        )


@cli.command()
def migrate(
    create_roles: Annotated[bool, typer.Option("--create-roles", help="Also make the roles named in the URLs, with their rights.")] = False,
) -> None:
    """Bring the database schema to this release's version. Safe to run from many places at once."""
    from app.db.migrations import head_version
    from app.main import migrate_database

    new = _run(migrate_database(_settings(), with_roles=create_roles))
    print(f"schema is at {head_version()}")
    for name in new:
        print(f"created the role {name}")


@cli.command()
def sweep(
    min_age: Annotated[int | None, typer.Option(help="Seconds; the configured minimum when absent.", min=0)] = None,
) -> None:
    """Remove contents that no document version names, once."""
    from app.blobs.sweeper import sweep as run_sweep
    from app.main import make_database, make_store, prepare_schema

    settings = _settings()
    age = settings.storage.sweep_min_age_seconds if min_age is None else min_age

    async def sweep_once() -> str:
        database, store = make_database(settings), make_store(settings)
        try:
            await prepare_schema(database)
            await store.open()
            found = await run_sweep(database, store, timedelta(seconds=age))
        finally:
            await database.aclose()
            await store.aclose()
        return f"examined {found.examined}, removed {found.removed}"

    print(_run(sweep_once()))


@authz.command("model")
def print_model() -> None:
    """Print the authorization model, generated from the role matrix, as JSON."""
    from app.authz.model import make_model

    print(json.dumps(make_model(), indent=2))


@authz.command("setup")
def set_up_store(name: Annotated[str, typer.Option(help="Name of the store when none is configured.")] = STORE_NAME) -> None:
    """Make the store and its model in OpenFGA, each unless it is there, and print the settings that name them."""
    from app.authz.reconcile import set_up
    from app.main import make_openfga_client

    settings = _settings()

    async def set_up_once() -> tuple[str, str]:
        client = make_openfga_client(settings, needs_store=False)
        try:
            return await set_up(client, name)
        finally:
            await client.aclose()

    store_id, model_id = _run(set_up_once())
    print(f"SAASBASE_AUTHZ__OPENFGA__STORE_ID={store_id}\nSAASBASE_AUTHZ__OPENFGA__MODEL_ID={model_id}")


@authz.command("reconcile")
def reconcile_store(dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what differs.")] = False) -> None:
    """Compare the store in OpenFGA with the database, and bring it to what the database holds."""
    from app.authz.outbox import Outbox
    from app.authz.reconcile import Reconciliation, reconcile
    from app.main import make_database, make_openfga_client, prepare_schema

    settings = _settings()

    async def reconcile_once() -> Reconciliation:
        client, database = make_openfga_client(settings), make_database(settings)
        try:
            await prepare_schema(database)
            return await reconcile(database, client, Outbox(database, client), is_dry_run=dry_run)
        finally:
            await database.aclose()
            await client.aclose()

    found = _run(reconcile_once())
    print(f"compared {found.compared}, missing {found.missing}, too many {found.excess}, with another end {found.different}")
    if found.unsent:
        _fail(f"{found.unsent} changes are not sent yet")


def main() -> None:
    """Run the command line."""
    cli()


def _settings() -> Settings:
    from app.observability.logging import configure_logging

    try:
        settings = load_settings()
    except SettingsError as error:
        _fail(str(error))
    is_terminal = sys.stderr.isatty()
    as_json = settings.log.format is LogFormat.JSON or (settings.log.format is LogFormat.AUTO and not is_terminal)
    configure_logging(settings.log.level, as_json=as_json)
    return settings


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from app.authz.openfga_client import OpenFGAError
    from app.blobs.store import BlobStoreError

    try:
        return asyncio.run(_settled(work))
    except (DatabaseURLError, SchemaVersionError, DatabaseRoleError, SettingsError) as error:
        _fail(str(error))
    except OpenFGAError as error:
        _fail(f"OpenFGA (SAASBASE_AUTHZ__OPENFGA__URL) {error}")
    except CommandError as error:  # a version this release does not know: the database was migrated by a newer one
        _fail(f"the schema cannot be migrated: {error}")
    except BlobStoreError as error:
        _fail(f"documents cannot be stored: {error} ({error.advice or 'see SAASBASE_STORAGE__LOCAL__BASE_PATH'})")
    except (SQLAlchemyError, OSError) as error:
        _fail(f"the database cannot be used: {type(error).__name__}: {str(getattr(error, 'orig', error)).splitlines()[0]}")


async def _settled(work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for aiosqlite's threads: after a failed open one answers once more, and complains loudly when the loop is closed."""
    try:
        return await work
    finally:
        for thread in threading.enumerate():
            if "_connection_worker_thread" in thread.name:
                await asyncio.to_thread(thread.join, 1)


def _fail(text: str) -> NoReturn:
    for line in text.splitlines():
        print(f"saasbase: {line}", file=sys.stderr)
    raise SystemExit(1)


def _greeting(settings: Settings, host: str, port: int) -> str:
    lines = [f"SaaSBase Server  http://{host}:{port}/docs"]
    header, trusted = settings.actor.header, settings.actor.trusted_proxies
    if trusted:
        lines.append(f"Who is calling:  the header '{header}: user:alice', believed from {', '.join(map(str, trusted))}")
        lines.append("                 Trusting a header is for development and for proxies that set it themselves.")
    else:
        lines.append(f"Who is calling:  nobody may name himself in {header} (SAASBASE_ACTOR__TRUSTED_PROXIES is empty)")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
