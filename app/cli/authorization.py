"""``authz``: OpenFGA as policy engine."""

import json
from typing import Annotated

import typer

from app.cli.root import fail, read_settings, run

STORE_NAME = "saasbase"

commands = typer.Typer(
    help="OpenFGA as policy engine: its model, its store, and whether the store holds what the database holds.", no_args_is_help=True
)


@commands.command("model")
def print_model() -> None:
    """Print the authorization model, generated from the role matrix, as JSON."""
    from app.authz.model import make_model

    print(json.dumps(make_model(), indent=2))


@commands.command("setup")
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


@commands.command("reconcile")
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
