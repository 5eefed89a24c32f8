"""``audit``: whether the audit trail is as it was written."""

from typing import Annotated

import typer

from app.cli.root import CommandError, read_settings, run

commands = typer.Typer(help="The audit trail: whether it is as it was written.", no_args_is_help=True)


@commands.command("verify")
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
            raise CommandError(str(error)) from None
        finally:
            await database.aclose()
        return is_whole

    if not run(verify_all()):
        raise SystemExit(1)
