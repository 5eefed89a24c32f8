"""``audit``: whether the audit trail is as it was written."""

import re
from typing import Annotated, Final

import typer

from app.cli.root import CommandError, read_settings, run

MAX_POSITION: Final = 2**63 - 1

commands = typer.Typer(help="The audit trail: whether it is as it was written.", no_args_is_help=True)


@commands.command("verify")
def verify_chains(
    organization: Annotated[str | None, typer.Option(help="Slug or id of one organization; all when absent.")] = None,
    known_position: Annotated[int | None, typer.Option(min=1, help="A position of that organization's chain, with --known-hash.")] = None,
    known_hash: Annotated[str | None, typer.Option(help="The hash it had, as an earlier line or a checkpoint in the log says.")] = None,
) -> None:
    """Verify the chain of every organization, deleted ones included: one line each, and status 1 when one is broken."""
    from app.audit.findings import Place
    from app.audit.report import UnknownOrganizationError, report
    from app.main import make_chain_keys, make_database, prepare_schema

    known = None
    if known_position is not None and known_hash is not None:
        known = Place(known_position, known_hash.lower())
        if known.position > MAX_POSITION:
            raise typer.BadParameter(f"no position is beyond {MAX_POSITION}", param_hint="--known-position")
        if not re.fullmatch("[0-9a-f]{64}", known.hash):
            raise typer.BadParameter("a hash is 64 digits of 0-9 and a-f", param_hint="--known-hash")
    elif (known_position, known_hash) != (None, None):
        raise typer.BadParameter("are given together or not at all", param_hint="--known-position and --known-hash")
    if known is not None and organization is None:
        raise typer.BadParameter("what is known is known of one chain: name it", param_hint="--organization")
    settings = read_settings()

    async def verify_all() -> bool:
        database, is_whole = make_database(settings), True
        try:
            await prepare_schema(database)
            async for found in report(database, make_chain_keys(settings), organization, known):
                print(found.line, flush=True)
                is_whole = is_whole and found.ok
        except UnknownOrganizationError as error:
            raise CommandError(str(error)) from None
        finally:
            await database.aclose()
        return is_whole

    if not run(verify_all()):
        raise SystemExit(1)
