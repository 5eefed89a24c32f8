"""What authorization costs as tenants grow and multiply: the same work in a full place and in an empty one, SQL and all, without HTTP."""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from app.audit.denials import DeniedAttempts
from app.audit.trail import Origin
from app.authz.builtin import BuiltinPolicyEngine
from app.core.actors import Actor, ActorType, Identity
from app.core.pagination import CursorRequest, PageRequest
from app.core.permissions import Action, Role
from app.core.resources import ResourceRef, ResourceType
from app.db.engine import Database
from app.db.migrations import migrate
from app.resources.authz.schemas import AuthorizationQuestion, ObjectsQuestion, WhoCanQuery
from app.resources.authz.service import AuthorizationService
from app.resources.documents.repository import DocumentRepository
from app.resources.documents.schemas import DocumentListQuery
from app.unit_of_work import UnitOfWork, WorkContext
from benchmarks.servers import new_postgres_database
from tests.support import rows
from tests.support.database import APP, OWNER, as_role, behind, make_owner, migrate_with_roles, open_database
from tests.support.postgres import run_postgres
from tests.support.rows import Place, Rows

FULL, EMPTY, ONE_OF_MANY, ALONE = "full", "empty", "one of many", "alone"
CHUNK: Final = 20_000
PROBE, LISTER, SOLO, HEAD = (Actor(ActorType.USER, name) for name in ("probe", "lister", "solo", "head"))

Workload = Callable[["World", str], Awaitable[None]]


@dataclass(frozen=True)
class Sizes:
    """How much is seeded."""

    tenants: int = 200
    documents_each: int = 1000
    members: int = 10_000
    documents: int = 100_000


@dataclass
class World:
    """A database and what the measurements ask about."""

    database: Database
    projects: dict[str, Place] = field(default_factory=dict)
    documents: dict[str, list[Place]] = field(default_factory=dict)

    def work(self, actor: Actor) -> UnitOfWork:
        """A request's unit of work, as a GET opens it."""
        context = WorkContext(self.database, BuiltinPolicyEngine(), DeniedAttempts())
        return UnitOfWork(context, Identity(actor, "header"), Origin(), is_read_only=True)


def tenant_rows(name: str) -> tuple[Place, Rows]:
    home, home_rows = rows.organization(name)
    project, project_rows = rows.project(home)
    return project, home_rows + project_rows + rows.grant(home, HEAD, Role.ORG_OWNER)


def home_of(project: Place) -> Place:
    return Place(ResourceRef(ResourceType.ORGANIZATION, project.organization_id), project.organization_id)


def document_rows(projects: Sequence[Place], each: int) -> Iterator[tuple[Place, Rows]]:
    """Documents without content, those of all projects mixed as time would mix them."""
    for number in range(each):
        for project in projects:
            place, ((model, row), _) = rows.document(project)
            yield place, [(model, {**row, "created_at": rows.BEGINNING + timedelta(seconds=number)})]


async def write(database: Database, told: Iterable[Rows]) -> None:
    """Write rows in chunks, parents before children as they come."""
    every = [row for some in told for row in some]
    for start in range(0, len(every), CHUNK):
        await rows.write(database, every[start : start + CHUNK])


async def seed_many(world: World, sizes: Sizes) -> None:
    """Many tenants; and beside them a full project, and one that has a single document and member."""
    tenants = [tenant_rows(f"tenant-{number}") for number in range(sizes.tenants)]
    full, empty = tenant_rows("full"), tenant_rows("empty")
    world.projects = {FULL: full[0], EMPTY: empty[0], ONE_OF_MANY: tenants[sizes.tenants // 2][0]}
    await write(world.database, (told for _, told in (*tenants, full, empty)))
    members = (rows.grant(full[0], Actor(ActorType.USER, f"member-{number}"), Role.PROJECT_VIEWER) for number in range(sizes.members))
    grants = (rows.grant(*given, Role.PROJECT_VIEWER) for given in ((full[0], PROBE), (empty[0], PROBE), (empty[0], SOLO)))
    lister = rows.grant(home_of(world.projects[ONE_OF_MANY]), LISTER, Role.ORG_MEMBER)
    await write(world.database, [*members, *grants, lister])
    for name, projects, each in (
        (ONE_OF_MANY, [project for project, _ in tenants], sizes.documents_each),
        (FULL, [full[0]], sizes.documents),
        (EMPTY, [empty[0]], 1),
    ):
        written = list(document_rows(projects, each))
        world.documents[name] = [place for place, _ in written if place.project_id == world.projects[name].ref.id]
        await write(world.database, (some for _, some in written))


async def seed_one(world: World, sizes: Sizes) -> None:
    """One tenant like each of the many, and nothing else."""
    project, told = tenant_rows("alone")
    await write(world.database, [told, rows.grant(home_of(project), LISTER, Role.ORG_MEMBER)])
    written = list(document_rows([project], sizes.documents_each))
    await write(world.database, (some for _, some in written))
    world.projects, world.documents = {ALONE: project}, {ALONE: [place for place, _ in written]}


@asynccontextmanager
async def open_world(url: str, seed: Callable[[World, Sizes], Awaitable[None]], sizes: Sizes) -> AsyncIterator[World]:
    """On PostgreSQL as in production: the role of the service, confined by row-level security."""
    is_sqlite = url.startswith("sqlite")
    if not is_sqlite:
        await migrate_with_roles(url)
    async with open_database(as_role(url, APP)) as database:
        if is_sqlite:
            await migrate(database)
        world = World(database)
        started = time.perf_counter()
        await seed(world, sizes)
        if not is_sqlite:  # what autovacuum does a minute later; SQLite has nothing of the kind in this service
            async with behind(database) as connection:
                await connection.execute(text("ANALYZE"))
        print(f"seeded {url.partition(':')[0]} in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        yield world


async def check(world: World, where: str) -> None:
    place = world.documents[where][len(world.documents[where]) // 2]
    asked = question(PROBE, place)
    work = world.work(PROBE)
    assert await AuthorizationService(work).check(asked)
    await work.rollback()


async def explain(world: World, where: str) -> None:
    place = world.documents[where][len(world.documents[where]) // 2]
    work = world.work(PROBE)
    assert (await AuthorizationService(work).explain(question(PROBE, place))).allowed
    await work.rollback()


def question(actor: Actor, place: Place) -> AuthorizationQuestion:
    ref = place.ref
    return AuthorizationQuestion(
        actor_type=actor.type, actor_id=actor.id, action=Action.DOCUMENT_READ, resource_type=ref.type, resource_id=ref.id
    )


async def read(world: World, where: str) -> None:
    """What a GET of one document asks of the database: the row and the right in one statement."""
    place = world.documents[where][len(world.documents[where]) // 2]
    work = world.work(PROBE)
    await work.admit(await work.locate_ref(place.ref), Action.DOCUMENT_READ)
    await work.rollback()


async def newest(world: World, _where: str, *, is_numbered: bool = False) -> None:
    work = world.work(LISTER)
    await work.admit_everywhere(Action.DOCUMENT_READ)
    keyset = CursorRequest(20, "created_at", descending=True, after=None, fingerprint="")
    request = PageRequest(0, 20, "created_at", descending=True) if is_numbered else keyset
    page = await DocumentRepository(work).list_visible(DocumentListQuery(), request)
    assert len(page.items) == 20
    await work.rollback()


async def newest_and_total(world: World, where: str) -> None:
    await newest(world, where, is_numbered=True)


async def objects(world: World, where: str) -> None:
    work = world.work({ONE_OF_MANY: LISTER, ALONE: LISTER, FULL: PROBE, EMPTY: SOLO}[where])
    asked = ObjectsQuestion(action=Action.DOCUMENT_READ, resource_type=ResourceType.DOCUMENT)
    assert (await AuthorizationService(work).list_objects(asked)).items
    await work.rollback()


async def batch(world: World, where: str) -> None:
    places = world.documents[where]
    asked = [question(PROBE, places[number % len(places)]) for number in range(200)]
    work = world.work(PROBE)
    assert all(await AuthorizationService(work).batch_check(asked))
    await work.rollback()


async def batch_about_others(world: World, where: str) -> None:
    places = world.documents[where]
    asked = [question(Actor(ActorType.USER, f"member-{number}"), places[number % len(places)]) for number in range(200)]
    work = world.work(HEAD)
    assert None not in await AuthorizationService(work).batch_check(asked)
    await work.rollback()


async def who_can(world: World, where: str) -> None:
    ref = world.documents[where][0].ref
    work = world.work(HEAD)
    asked = WhoCanQuery(action=Action.DOCUMENT_READ, resource_type=ref.type, resource_id=ref.id)
    able, _ = await AuthorizationService(work).who_can(await work.locate_ref(ref), asked)
    assert able
    await work.rollback()


COMPARED: Final[Mapping[str, tuple[Workload, str, str, int]]] = {
    "check on a document": (check, FULL, EMPTY, 40),
    "GET a document": (read, FULL, EMPTY, 40),
    "explain on a document": (explain, FULL, EMPTY, 20),
    "20 newest documents, keyset": (newest, ONE_OF_MANY, ALONE, 20),
    "20 newest documents, page and total": (newest_and_total, ONE_OF_MANY, ALONE, 20),
    "list-objects, first 100 and total": (objects, ONE_OF_MANY, ALONE, 20),
    "batch-check of 200, about oneself": (batch, FULL, EMPTY, 5),
    "batch-check of 200, about 200 others": (batch_about_others, FULL, EMPTY, 5),
    "who-can, 10,000 members against 1": (who_can, FULL, EMPTY, 2),
    "list-objects, 100,000 documents against 1": (objects, FULL, EMPTY, 2),
}


async def took(workload: Workload, world: World, where: str) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    await workload(world, where)
    return (time.perf_counter() - started) * 1000


async def measure(worlds: Mapping[str, World], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """For each workload and round the median of the full and of the empty side, call by call in turns."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, (workload, full, empty, times) in COMPARED.items():
            taken = [[await took(workload, worlds[where], where) for where in (full, empty)] for _ in range(times)]
            if number:  # the first round warms up
                full_side, empty_side = (statistics.median(side) for side in zip(*taken, strict=True))
                found[name].append((full_side, empty_side))
    return found


def print_table(database: str, found: Mapping[str, list[tuple[float, float]]]) -> None:
    print(f"\n| {database} | full, ms | empty, ms | ratio |\n|---|---|---|---|")
    for name, results in found.items():
        full, empty = (statistics.median(side) for side in zip(*results, strict=True))
        ratios = sorted(one / other for one, other in results)
        print(f"| {name} | {full:.2f} | {empty:.2f} | **{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f}) |")


async def run(urls: Sequence[str], sizes: Sizes, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seed the two databases and measure."""
    async with AsyncExitStack() as stack:
        many = await stack.enter_async_context(open_world(urls[0], seed_many, sizes))
        one = await stack.enter_async_context(open_world(urls[1], seed_one, sizes))
        return await measure({FULL: many, EMPTY: many, ONE_OF_MANY: many, ALONE: one}, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tenants", type=int, default=Sizes.tenants)
    parser.add_argument("--documents-each", type=int, default=Sizes.documents_each)
    parser.add_argument("--members", type=int, default=Sizes.members)
    parser.add_argument("--documents", type=int, default=Sizes.documents)
    given = parser.parse_args()
    sizes = Sizes(given.tenants, given.documents_each, given.members, given.documents)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        postgres = stack.enter_context(run_postgres())
        asyncio.run(make_owner(postgres))
        databases = [new_postgres_database(postgres, owner=OWNER) for _ in range(2)]
        print_table("PostgreSQL", asyncio.run(run(databases, sizes, given.rounds)))
        print_table("SQLite", asyncio.run(run([f"sqlite:///{folder}/{name}.db" for name in ("many", "one")], sizes, given.rounds)))


if __name__ == "__main__":
    main()
