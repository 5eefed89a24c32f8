"""The servers that are compared, and the same rows in the database of each: written past their HTTP, because there are so many."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg

from app.core.actors import Actor, ActorType
from app.core.permissions import Role
from app.db.migrations import migrate
from benchmarks.authorization import write
from benchmarks.servers import CONFINED, FLOOR, OURS, REFERENCE, Running, new_postgres_database, run_floor, run_reference, serve
from tests.support import rows
from tests.support.database import APP, OWNER, as_role, migrate_with_roles, open_database
from tests.support.rows import Place

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
SIDES: Final = (
    (REFERENCE, SQLITE),
    (OURS, SQLITE),
    (REFERENCE, POSTGRESQL),
    (FLOOR, POSTGRESQL),
    (OURS, POSTGRESQL),
    (CONFINED, POSTGRESQL),
)
# The projects of a world.
QUIET, GROWING, LONG, SHORT, CROWD, HANDFUL = "quiet", "growing", "long", "short", "crowd", "handful"
PROJECTS: Final = (QUIET, GROWING, LONG, SHORT, CROWD, HANDFUL)
ALICE, MEMBER = Actor(ActorType.USER, "alice"), Actor(ActorType.USER, "member-0")

Side = tuple[str, str]
"""Program and database."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much lies in each database."""

    long: int = 100_000
    short: int = 1_000
    crowd: int = 10_000
    handful: int = 10


@dataclass(frozen=True, slots=True)
class World:
    """A server, and the ids of the projects in its database by name."""

    server: Running
    projects: Mapping[str, str]
    token: str
    """An API key that may read the quiet project; the floor does not ask for one."""

    @property
    def program(self) -> str:
        """Which of the compared programs it is."""
        return self.server.name


@contextmanager
def run_worlds(folder: Path, postgres: str, sizes: Sizes) -> Iterator[dict[Side, World]]:
    """All of them at once, for loads that go to one at a time; on a PostgreSQL that has the owner's role."""
    with ExitStack() as stack:
        template = new_postgres_database(postgres, owner=OWNER)
        projects = asyncio.run(_fill(template, sizes))
        worlds = {}
        for side in SIDES:
            program, database = side
            place = folder / "-".join(side).replace(" ", "-")
            if program == REFERENCE:
                url = f"jdbc:sqlite:{place}/reference.db" if database == SQLITE else new_postgres_database(postgres)
                worlds[side] = _fill_reference(stack.enter_context(run_reference(place, url)), url, sizes)
            elif database == SQLITE:
                url = f"sqlite:///{place}/ours.db"
                worlds[side] = _with_key(stack.enter_context(serve(place, url)), asyncio.run(_fill(url, sizes)))
            else:
                url = new_postgres_database(postgres, OWNER, template.rpartition("/")[2])
                worlds[side] = stack.enter_context(_run_on_postgres(program, place, url, projects))
        yield worlds


@contextmanager
def _run_on_postgres(program: str, folder: Path, url: str, projects: Mapping[str, str]) -> Iterator[World]:
    if program == FLOOR:
        with run_floor(folder, as_role(url, OWNER)) as floor:
            yield World(floor, projects, token="none")
        return
    # As the role of the service row-level security confines it; as the owner of the tables it does not.
    with serve(folder, as_role(url, APP if program == CONFINED else OWNER), name=program) as server:
        yield _with_key(server, projects)


def _with_key(server: Running, projects: Mapping[str, str]) -> World:
    wanted = {"name": "bench", "scope_type": "PROJECT", "scope_id": projects[QUIET], "role": Role.PROJECT_VIEWER.value}
    return World(server, projects, server.post("/api-keys", wanted)["token"])


async def _fill(url: str, sizes: Sizes) -> dict[str, str]:
    """Schema and rows of ours; the ids of the projects by name."""
    if not url.startswith("sqlite"):
        await migrate_with_roles(url)
    async with open_database(as_role(url, APP)) as database:
        if database.is_sqlite:
            await migrate(database)
        home, told = rows.organization("bench")
        made = [rows.project(home, name) for name in PROJECTS]
        places = {name: place for name, (place, _) in zip(PROJECTS, made, strict=True)}
        await write(database, [told, rows.grant(home, ALICE, Role.ORG_OWNER), *(some for _, some in made)])
        for name, count in ((LONG, sizes.long), (SHORT, sizes.short)):
            await write(database, (_call(places[name], number) for number in range(count)))
        for name, count in ((CROWD, sizes.crowd), (HANDFUL, sizes.handful)):
            members = (Actor(ActorType.USER, f"member-{number}") for number in range(count))
            await write(database, (rows.grant(places[name], member, Role.PROJECT_VIEWER) for member in members))
    if not url.startswith("sqlite"):
        await _vacuum(as_role(url, OWNER))
    return {name: str(place.ref.id) for name, place in places.items()}


def _call(project: Place, number: int) -> rows.Rows:
    _, ((model, row),) = rows.api_call(project)
    return [(model, {**row, "requested_at": rows.BEGINNING + timedelta(seconds=number)})]


def _fill_reference(server: Running, url: str, sizes: Sizes) -> World:
    """The same rows in the reference. The one member that is asked about is told to it: it looks in its memory, not into the table."""
    organization = server.post("/organizations", {"slug": "bench"})["id"]
    projects = {name: server.post("/projects", {"organization_id": organization, "name": name})["id"] for name in PROJECTS}
    moments = [(rows.BEGINNING + timedelta(seconds=number)).isoformat().replace("+00:00", "Z") for number in range(sizes.long)]
    calls = [
        _reference_call(organization, projects[name], moment)
        for name, count in ((LONG, sizes.long), (SHORT, sizes.short))
        for moment in moments[:count]
    ]
    _insert(url, "api_calls", calls)
    for name, count in ((CROWD, sizes.crowd), (HANDFUL, sizes.handful)):
        grant = {"resource_type": "PROJECT", "resource_id": projects[name], "actor_type": "USER", "role": Role.PROJECT_VIEWER.value}
        server.post("/memberships", {**grant, "actor_id": MEMBER.id})
        told = {**grant, "inherited": 0, "granted_at": moments[0]}
        _insert(url, "memberships", [{"id": str(uuid4()), **told, "actor_id": f"member-{number}"} for number in range(1, count)])
    return _with_key(server, projects)


def _reference_call(organization: str, project: str, moment: str) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "organization_id": organization,
        "project_id": project,
        "name": "call",
        "operation_key": "ocr",
        "status": "RECEIVED",
        "requested_at": moment,
        "request_payload_json": json.dumps({}),
        "response_payload_json": json.dumps({}),
        "metadata_json": json.dumps({}),
        "created_at": moment,
        "updated_at": moment,
        "created_by_subject": ALICE.subject,
    }


def _insert(url: str, table: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Write rows into a table of the reference."""
    columns = list(records[0])
    values = [tuple(record.values()) for record in records]
    if url.startswith("jdbc:sqlite:"):
        with sqlite3.connect(url.removeprefix("jdbc:sqlite:")) as connection:
            connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})", values)
        return
    asyncio.run(_copy(url, table, columns, values))


async def _copy(url: str, table: str, columns: list[str], values: list[tuple[Any, ...]]) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.copy_records_to_table(table, columns=columns, records=values)
    finally:
        await connection.close()
    await _vacuum(url)


async def _vacuum(url: str) -> None:
    """What PostgreSQL would do by itself a minute later, in the middle of a measurement."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
