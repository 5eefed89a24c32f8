"""``import``: what another system holds, taken over."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.root import CommandError, read_settings, run
from app.settings import Settings

if TYPE_CHECKING:
    from app.reference.contents import S3Server
    from app.reference.report import Report

commands = typer.Typer(help="What another system holds, taken over.", no_args_is_help=True)


@commands.callback()
def _be_a_group() -> None:
    """Keep ``reference`` a command of its own while it is the only one."""


@commands.command("reference")
def import_reference(  # noqa: PLR0913, PLR0917 - the options of the command
    db_url: Annotated[
        str, typer.Option(metavar="URL", envvar="REFERENCE_DB_URL", help="Its database, in any spelling it takes.", show_envvar=True)
    ],
    storage: Annotated[str, typer.Option(metavar="PLACE", help="Where its documents are: a folder, or s3://BUCKET/PREFIX.")],
    s3_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", envvar="REFERENCE_S3_ENDPOINT", help="S3 server other than Amazon's.", show_envvar=True)
    ] = None,
    s3_region: Annotated[
        str | None, typer.Option(metavar="NAME", envvar="REFERENCE_S3_REGION", help="Region of the bucket.", show_envvar=True)
    ] = None,
    s3_virtual_hosts: Annotated[bool, typer.Option("--s3-virtual-hosts", help="The bucket is a part of the host's name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, and write nothing.")] = False,
) -> None:
    """Take over the database and the documents of SaaSBase 0.1.1. Can be repeated: what is there stays as it is.

    Prints what was read, imported and left out, and a line with the reason for each row that did not come as it was. The keys of
    its S3 server are taken from REFERENCE_S3_ACCESS_KEY and REFERENCE_S3_SECRET_KEY, else from the environment or the machine.
    """
    from app.reference.contents import S3Server

    access_key, secret_key = (os.environ.get(f"REFERENCE_S3_{name}_KEY") or None for name in ("ACCESS", "SECRET"))
    server = S3Server(s3_endpoint, s3_region, access_key, secret_key, path_style=not s3_virtual_hosts)
    report = run(import_all(read_settings(), db_url, storage, server, is_dry_run=dry_run))
    for line in report.lines():
        print(line)


async def import_all(settings: Settings, db_url: str, storage: str, server: "S3Server", *, is_dry_run: bool) -> "Report":
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
        async with open_contents(storage, server) as contents, open_source(db_url) as source:
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
