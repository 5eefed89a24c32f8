"""``import``: what another system holds, taken over."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.root import CommandError, read_settings, run
from app.settings import Settings

if TYPE_CHECKING:
    from app.reference.report import Report

commands = typer.Typer(help="What another system holds, taken over.", no_args_is_help=True)


@commands.callback()
def _be_a_group() -> None:
    """Keep ``reference`` a command of its own while it is the only one."""


@commands.command("reference")
def import_reference(
    db_url: Annotated[
        str, typer.Option(metavar="URL", envvar="REFERENCE_DB_URL", help="Its database, in any spelling it takes.", show_envvar=True)
    ],
    storage: Annotated[str, typer.Option(metavar="FOLDER", help="Where its documents are.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, and write nothing.")] = False,
) -> None:
    """Take over the database and the documents of SaaSBase 0.1.1. Can be repeated: what is there stays as it is.

    Prints what was read, imported and left out, and a line with the reason for each row that did not come as it was.
    """
    report = run(import_all(read_settings(), db_url, storage, is_dry_run=dry_run))
    for line in report.lines():
        print(line)


async def import_all(settings: Settings, db_url: str, storage: str, *, is_dry_run: bool) -> "Report":
    """Take everything over into what the settings name; in a dry run nothing is written, and no database made.

    Raises:
        CommandError: the reference cannot be read.
    """
    from app.db.migrations import require_head
    from app.main import close_runtime, make_runtime, prepare_schema
    from app.reference.contents import open_contents
    from app.reference.importer import Importer
    from app.reference.source import SourceError, open_source
    from app.reference.target import exists

    runtime = make_runtime(settings)
    database = runtime.context.database
    try:
        contents = open_contents(storage)
        async with open_source(db_url) as source:
            if not is_dry_run:
                await prepare_schema(database)
                await runtime.store.open()
            elif exists(database):
                await require_head(database)
            return await Importer(source, contents, runtime.context, runtime.store, is_dry_run=is_dry_run).run()
    except SourceError as error:
        raise CommandError(str(error)) from None
    finally:
        await close_runtime(runtime)
