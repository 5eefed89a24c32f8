"""The ``saasbase`` command."""

from importlib.metadata import version as version_of
from typing import Annotated

import typer

from app.cli import auditing, authorization, importing, inspection, keys, serving

cli = typer.Typer(
    name="saasbase",
    help="SaaSBase Server: the multi-tenant back end of a SaaS product as one async REST service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"saasbase {version_of('saasbase-server')}")
        raise typer.Exit


@cli.callback()
def _take_options(
    _version: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and end.")] = False,
) -> None:
    """Take what belongs to no command."""


for command in (serving.serve, serving.migrate, keys.bootstrap, keys.demo, serving.sweep, inspection.doctor):
    cli.command()(command)
cli.add_typer(keys.commands, name="keys")
cli.add_typer(auditing.commands, name="audit")
cli.add_typer(authorization.commands, name="authz")
cli.add_typer(importing.commands, name="import")
cli.add_typer(inspection.config, name="config")
cli.add_typer(inspection.openapi, name="openapi")


def main() -> None:
    """Run the command line."""
    cli()


if __name__ == "__main__":
    main()
