"""``bootstrap``, ``demo`` and ``keys``: the first key, and every other one from the command line."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from app.cli.root import read_settings, run
from app.core.clock import now
from app.core.permissions import Role

SECONDS_A_DAY = 86400

commands = typer.Typer(help="API keys, made and ended from the command line.", no_args_is_help=True)

OrganizationOption = Annotated[str, typer.Option("--organization", metavar="SLUG", help="Slug of the organization.")]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, or its token's part before the dot.", show_default=False)]


def bootstrap(
    organization: OrganizationOption,
    owner: Annotated[str, typer.Option(metavar="SUBJECT", help="Who owns it, such as user:alice.")],
    name: Annotated[str, typer.Option(help="Name of the key.")] = "bootstrap",
) -> None:
    """Make an organization, its owner, and an API key that may do everything in it. Prints the key, this once."""
    from app.cli import operating

    print(run(operating.bootstrap(read_settings(), organization, owner, name)))


def demo() -> None:
    """Fill a small believable world to look around in: an organization named demo. Prints an API key for it, this once."""
    from app.cli.demo import make_demo

    print(run(make_demo(read_settings())))


@commands.command("create")
def create_key(  # noqa: PLR0913 - its options
    *,
    organization: OrganizationOption,
    role: Annotated[Role, typer.Option(metavar="ROLE", help="What the key may do there and below, such as ORG_MEMBER.")],
    name: Annotated[str, typer.Option(help="Name of the key.")],
    project: Annotated[UUID | None, typer.Option(metavar="ID", help="Id of a project, which the key is for then.")] = None,
    days: Annotated[int | None, typer.Option(metavar="DAYS", help="Days until it ends; never when absent.", min=1, max=36500)] = None,
    acts_for_others: Annotated[bool, typer.Option("--acts-for-others", help="It may name in a header who it acts for.")] = False,
) -> None:
    """Make an API key and print its token, this once."""
    from app.cli import operating

    ends = now() + timedelta(days=days) if days is not None else None
    wanted = {"role": role, "name": name, "expires_at": ends, "may_act_for_others": acts_for_others}
    print(run(operating.create_key(read_settings(), organization, project, **wanted)))


@commands.command("list")
def list_keys(organization: OrganizationOption) -> None:
    """List the keys of an organization and of its projects, oldest first, those that have ended too. Shows no secret."""
    from app.cli import operating

    rows = [("id", "prefix", "scope", "role", "created", "last used", "ends", "name")]
    for key in run(operating.list_keys(read_settings(), organization)):
        ends = f"revoked {_minute(key.revoked_at)}" if key.revoked_at is not None else _minute(key.expires_at)
        scope = f"{key.scope.type.value}:{key.scope.id}"
        rows.append((str(key.id), key.prefix, scope, key.role.value, _minute(key.created_at), _minute(key.last_used_at), ends, key.name))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _minute(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ") if moment is not None else "never"


@commands.command("rotate")
def rotate_key(
    key: KeyArgument,
    overlap_seconds: Annotated[int, typer.Option(help="How long the old secret works on.", min=0)] = SECONDS_A_DAY,
) -> None:
    """Give a key a new secret and print the new token, this once."""
    from app.cli import operating

    print(run(operating.rotate_key(read_settings(), key, overlap_seconds)))


@commands.command("revoke")
def revoke_key(key: KeyArgument) -> None:
    """End a key, and every key it has made, from the next request on."""
    from app.cli import operating

    key_id, since = run(operating.revoke_key(read_settings(), key))
    print(f"{key_id} is revoked since {since}")
