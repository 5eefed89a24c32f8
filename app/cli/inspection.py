"""``doctor``, ``config check``, ``openapi export``: what there is, and whether it works."""

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from pydantic import BaseModel, SecretStr
from pydantic_core import to_json

from app.cli.root import CommandError, fail, read_settings, run
from app.settings import PREFIX, Section, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.blobs.store import BlobStore
    from app.db.engine import Database

MASK: Final = "***"
CLOCK_LIMIT_SECONDS: Final = 5.0
_USER_INFO: Final = re.compile(r'(?<=://)[^/?#\s"]*@')

config = typer.Typer(help="The settings.", no_args_is_help=True)
openapi = typer.Typer(help="The OpenAPI document.", no_args_is_help=True)

Check = Callable[[], Awaitable[str]]


def doctor() -> None:
    """Check database, schema, roles, clock, storage, sweeper, authorization, traces and settings; say what is wrong. Status 1 if any is."""
    settings = read_settings()
    if faults := run(_examine(settings)):
        raise SystemExit(faults)


@config.command("check")
def check_config() -> None:
    """Print every setting as it is in force, secrets masked. Status 1 and the reason when one cannot be used."""
    settings = read_settings()
    run(_build(settings))
    for name, value in _effective(settings):
        print(f"{name}={value}")


@openapi.command("export")
def export_openapi(output: Annotated[Path | None, typer.Option(help="File to write; standard output when absent.")] = None) -> None:
    """Write the OpenAPI document of the service as these settings make it, as JSON."""
    text = json.dumps(run(_build(read_settings())).openapi(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{output}: {error.strerror}")


async def _build(settings: Settings) -> "FastAPI":
    """The service, of which nothing is opened: what cannot be built cannot be run either."""
    from app.main import create_app

    return create_app(settings)


async def _examine(settings: Settings) -> int:
    """Print a line for each thing; returns 1 when one of them does not work."""
    from app.main import close_runtime, make_resolver, make_runtime, make_tracing

    runtime = make_runtime(settings, make_resolver(settings))
    database, store, policy = runtime.context.database, runtime.store, runtime.context.policy

    async def look_at_roles() -> str:
        from app.db.roles import require_roles

        if database.is_sqlite:
            return "SQLite has none"
        await require_roles(database)
        return "row-level security is on" if database.row_level_security else "one role does everything, and could change audit events"

    async def look_at_storage() -> str:
        await store.open()
        return "takes writes"

    async def look_at_authorization() -> str:
        await policy.check()
        return settings.authz.engine.value

    async def look_at_traces() -> str:
        if (tracing := make_tracing(settings)) is None:
            return "are off"
        await tracing.aclose()
        return "can be sent; whether they arrive, the log says"

    checks: dict[str, Check] = {
        "database": lambda: _look_at_database(database),
        "schema": lambda: _look_at_schema(database),
        "roles": look_at_roles,
        "clock": lambda: _look_at_clock(database),
        "storage": look_at_storage,
        "sweeper": lambda: _look_at_mark(database, store),
        "authorization": look_at_authorization,
        "traces": look_at_traces,
    }
    print(f"ok   {'settings':<14} {settings.environment.value}")
    try:
        return int(any([await _report(name, check) for name, check in checks.items()]))
    finally:
        await close_runtime(runtime)


async def _report(name: str, check: Check) -> bool:
    """Whether it is at fault."""
    try:
        print(f"ok   {name:<14} {await check()}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is wrong
        print(f"BAD  {name:<14} {_told(error)}")
        return True
    return False


def _told(error: Exception) -> str:
    lines = str(getattr(error, "detail", None) or getattr(error, "orig", None) or error).splitlines()
    advice = getattr(error, "advice", "")
    return (lines[0] if lines else type(error).__name__) + (f" ({advice})" if advice else "")


async def _look_at_database(database: "Database") -> str:
    from app.db.migrations import require_ours

    await require_ours(database)
    started = time.perf_counter()
    await database.ping()
    kind = "SQLite" if database.is_sqlite else "PostgreSQL"
    place = database.url.database if database.is_sqlite else f"{database.url.host}:{database.url.port or 5432}/{database.url.database}"
    told = f"{kind} {place}, {(time.perf_counter() - started) * 1000:.0f} ms"
    if not await database.has_time_limit():
        told += "; through a pooler, and its role has no statement_timeout: 'saasbase migrate --create-roles' or ALTER ROLE sets one"
    return told


async def _look_at_schema(database: "Database") -> str:
    from app.db.migrations import advice_at, current_version, head_version, require_ours

    await require_ours(database)
    current, head = await current_version(database), head_version()
    if current == head:
        return f"at {head}"
    if database.is_sqlite and current is None:
        return "none yet: 'saasbase serve' makes it"
    raise CommandError(f"at {current}, not at {head}: {advice_at(current)}")


async def _look_at_mark(database: "Database", store: "BlobStore") -> str:
    from app.blobs.mark import recognize
    from app.db.migrations import SchemaVersionError, require_head

    try:
        await require_head(database)
    except SchemaVersionError:  # told above
        return "whether the storage is this database's is asked once the schema is there"
    return "the storage is this database's" if await recognize(database, store) else "the storage has no mark yet: 'saasbase serve' sets it"


async def _look_at_clock(database: "Database") -> str:
    from app.core.clock import now

    before = now()
    if (theirs := await database.read_clock()) is None:
        return "the database has none of its own"
    apart = max(0.0, (before - theirs).total_seconds(), (theirs - now()).total_seconds())
    if apart > CLOCK_LIMIT_SECONDS:
        raise CommandError(f"{apart:.0f} s apart from the database's: keys and grants would end at another moment; set both by NTP")
    return f"{apart:.1f} s apart from the database's"


def _effective(section: BaseModel, prefix: str = PREFIX) -> Iterator[tuple[str, str]]:
    for name, value in section:
        full = f"{prefix}{name.upper()}"
        if isinstance(value, Section):
            yield from _effective(value, f"{full}__")
        else:
            yield full, _shown(full, value)


def _shown(name: str, value: Any) -> str:
    """What a secret is, only its setting says: the URLs of databases are shown without their passwords, of the others nothing."""
    if isinstance(value, SecretStr):
        return _without_password(value.get_secret_value()) if name.endswith("_URL") else MASK
    if isinstance(value, tuple) and any(isinstance(part, SecretStr) for part in value):
        return ",".join(MASK for _ in value)
    return _USER_INFO.sub(f"{MASK}@", _written(value))


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, timedelta):
        return f"P{value.days}D"
    if isinstance(value, tuple):
        return to_json(value).decode() if any(map(is_dataclass, value)) else ",".join(map(str, value))
    return str(value)


def _without_password(secret: str) -> str:
    """A database's URL without its password; nothing of what is none."""
    from app.db.urls import DatabaseURLError, parse_database_url

    try:
        return parse_database_url(secret).render_as_string(hide_password=True)
    except DatabaseURLError:
        return MASK
