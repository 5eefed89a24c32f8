"""The ``saasbase`` command."""

import typer

from app.cli import auditing, authorization, importing, inspection, keys, serving

cli = typer.Typer(
    name="saasbase",
    help="SaaSBase Server: the multi-tenant back end of a SaaS product as one async REST service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
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
