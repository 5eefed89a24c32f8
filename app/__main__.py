"""The ``saasbase`` command."""

import json
import signal
import sys
from contextlib import nullcontext
from datetime import timedelta
from typing import Annotated

import typer

from app.console import fail, read_settings, run
from app.settings import Settings

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
audit = typer.Typer(help="The audit trail: whether it is as it was written.", no_args_is_help=True)
cli.add_typer(audit, name="audit")


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

    settings = read_settings()

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

    run(prepare())
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

    new = run(migrate_database(read_settings(), with_roles=create_roles))
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

    settings = read_settings()
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

    print(run(sweep_once()))


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

    settings = read_settings()

    async def set_up_once() -> tuple[str, str]:
        client = make_openfga_client(settings, needs_store=False)
        try:
            return await set_up(client, name)
        finally:
            await client.aclose()

    store_id, model_id = run(set_up_once())
    print(f"SAASBASE_AUTHZ__OPENFGA__STORE_ID={store_id}\nSAASBASE_AUTHZ__OPENFGA__MODEL_ID={model_id}")


@authz.command("reconcile")
def reconcile_store(dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what differs.")] = False) -> None:
    """Compare the store in OpenFGA with the database, and bring it to what the database holds."""
    from app.authz.outbox import Outbox
    from app.authz.reconcile import Reconciliation, reconcile
    from app.main import make_database, make_openfga_client, prepare_schema

    settings = read_settings()

    async def reconcile_once() -> Reconciliation:
        client, database = make_openfga_client(settings), make_database(settings)
        try:
            await prepare_schema(database)
            return await reconcile(database, client, Outbox(database, client), is_dry_run=dry_run)
        finally:
            await database.aclose()
            await client.aclose()

    found = run(reconcile_once())
    print(f"compared {found.compared}, missing {found.missing}, too many {found.excess}, with another end {found.different}")
    if found.unsent:
        fail(f"{found.unsent} changes are not sent yet")


@audit.command("verify")
def verify_chains(
    organization: Annotated[str | None, typer.Option(help="Slug or id of one organization; all when absent.")] = None,
) -> None:
    """Verify the chain of every organization, deleted ones included: one line each, and status 1 when one is broken."""
    from app.audit.report import UnknownOrganizationError, report
    from app.main import make_chain_keys, make_database, prepare_schema

    settings = read_settings()

    async def verify_all() -> bool:
        database, is_whole = make_database(settings), True
        try:
            await prepare_schema(database)
            async for found in report(database, make_chain_keys(settings), organization):
                print(found.line, flush=True)
                is_whole = is_whole and found.ok
        except UnknownOrganizationError as error:
            fail(str(error))
        finally:
            await database.aclose()
        return is_whole

    if not run(verify_all()):
        raise SystemExit(1)


def main() -> None:
    """Run the command line."""
    cli()


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
