"""By whose code a request's processor time is spent on PostgreSQL: ours and the floor in this process, asked past the sockets.

Without uvicorn, sockets and load tool, so less than in RESULTS.md. The time is measured without the profiler (cProfile), which makes small
functions dear; the profiler says how it is shared, and how many functions are called: that does not depend on what else the machine does.
"""

import argparse
import asyncio
import cProfile
import gc
import logging
import os
import pstats
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import uvloop

from app.core.resources import ResourceType
from app.main import create_app
from app.observability.logging import configure_logging
from app.settings import Settings
from benchmarks.floor import make_app as make_floor
from benchmarks.load import Request
from benchmarks.report import number, table
from benchmarks.servers import ACTOR, CONFINED, FLOOR, OURS, Running, new_postgres_database
from benchmarks.workloads import PAGE, WORKLOADS
from benchmarks.worlds import MEMBER, PROJECTS, World
from tests.support.database import APP, OWNER, as_role, make_owner, migrate_with_roles, section_of
from tests.support.postgres import run_postgres

AT_ONCE: Final = 8
ASKED: Final = ("get-key", "get-header", "post-api-call", "keyset", "page-total", "check-allowed")
ASKED_OF_THE_FLOOR: Final = ("get-header", "post-api-call", "keyset")
_OURS: Final = "/app/"
OWNERS: Final = (
    ("FastAPI, Starlette", ("/fastapi/", "/starlette/")),
    ("SQLAlchemy", ("/sqlalchemy/", "/greenlet/", "/aiosqlite/")),
    ("asyncpg", ("/asyncpg/",)),
    ("Pydantic and others", ("/site-packages/", "pydantic")),
    ("ours: HTTP, log lines, metrics", ("/app/http/", "/app/observability/")),
    ("ours: statements, rows", ("/app/db/",)),
    ("ours: identity, authorization", ("/app/authn/", "/app/authz/", "/app/core/", "/app/limits/")),
    ("ours: services, unit of work, audit", (_OURS, "/benchmarks/floor")),
)
LIBRARY: Final = "standard library"

Ask = Callable[[Request], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one request: microseconds, calls of functions, and which part of the time is whose."""

    us: float
    calls: float
    shares: Mapping[str, float]


def asking(app: Any) -> Ask:
    """Sends a request to an application as a server would that has it whole; answers with the status."""

    async def ask(request: Request) -> int:
        url = urlsplit(request.path)
        body, status = request.body or b"", 0
        head = {"Host": "service", **request.headers, **({"Content-Length": str(len(body))} if body else {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": url.path,
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in head.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return waiting.pop() if waiting else {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)

        await app(scope, receive, send)
        return status

    return ask


async def measure(ask: Ask, request: Request, times: int, rounds: int) -> Cost:
    """The least of the rounds, and the shares of one more."""
    each = max(times // AT_ONCE, 1)

    async def ask_often() -> None:
        for _ in range(each):
            if await ask(request) not in {200, 201}:
                raise RuntimeError(f"{request.method} {request.path} failed")

    async def ask_all() -> float:
        started = time.process_time()
        await asyncio.gather(*(ask_often() for _ in range(AT_ONCE)))
        return (time.process_time() - started) / (each * AT_ONCE) * 1e6

    await ask_all()
    gc.collect()
    gc.freeze()
    least = min([await ask_all() for _ in range(rounds)])
    profile = cProfile.Profile()
    profile.enable()
    await ask_all()
    profile.disable()
    found: Any = pstats.Stats(profile)
    return Cost(least, found.total_calls / (each * AT_ONCE), dict(share_out(found.stats)))


def share_out(stats: Mapping[Any, Any]) -> Iterator[tuple[str, float]]:
    """For each owner its part of the time; what is written in C is its caller's, but for Pydantic's."""
    spent: defaultdict[str, float] = defaultdict(float)
    for (path, _, name), (_, _, own, _, callers) in stats.items():
        if path != "~":
            spent[owner_of(path)] += own
            continue
        for (calling, _, _), (_, _, part, _) in callers.items():
            spent[owner_of("pydantic" if "pydantic" in name else calling)] += part
    spent.pop("", None)
    whole = sum(spent.values())
    for owner, seconds in spent.items():
        yield owner, seconds / whole


def owner_of(path: str) -> str:
    """Whose code a file is; nobody's if it is this one."""
    if path == __file__:
        return ""
    return next((owner for owner, parts in OWNERS if any(part in path for part in parts)), LIBRARY)


async def fill(client: httpx.AsyncClient) -> World:
    """What the requests ask for: projects by their names, one with more calls than a page has, and a key."""

    async def post(path: str, body: dict[str, Any]) -> Any:
        answer = await client.post(f"/api{path}", json=body, headers=ACTOR)
        return answer.raise_for_status().json()

    organization = (await post("/organizations", {"slug": "shares"}))["id"]
    projects = {name: (await post("/projects", {"organization_id": organization, "name": name}))["id"] for name in PROJECTS}
    for project in projects.values():
        grant = {"resource_type": "PROJECT", "resource_id": project, "actor_type": MEMBER.type.value, "actor_id": MEMBER.id}
        await post("/memberships", {**grant, "role": "PROJECT_VIEWER"})
        for _ in range(PAGE + 1):
            await post(f"/projects/{project}/api-calls", {"name": "call", "operation_key": "ocr", "request_payload": {"page": 1}})
    scope = {"scope_type": ResourceType.ORGANIZATION.value, "scope_id": organization}
    token = (await post("/api-keys", {"name": "shares", **scope, "role": "ORG_MEMBER"}))["token"]
    return World(Running(OURS, "http://service", os.getpid()), projects, token)


async def measure_all(url: str, folder: Path, given: argparse.Namespace) -> tuple[dict[str, Cost], World]:
    """What each kind of request costs ours on a database that has its schema, and what is in that."""
    storage = {"local": {"base_path": folder / "documents"}, "sweep_interval_seconds": 0}
    settings = {"db_url": url, "database": section_of(url), "storage": storage, "actor": {"trusted_proxies": "127.0.0.1/32"}}
    app = create_app(Settings.model_validate(settings))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            world = await fill(client)
        wanted = [workload for workload in WORKLOADS if workload.name in ASKED]
        found = {each.name: await measure(asking(app), each.make(world), given.times, given.rounds) for each in wanted}
    return found, world


async def measure_floor(world: World, given: argparse.Namespace) -> dict[str, Cost]:
    """The same of the floor, on the database that its environment names."""
    app = make_floor()
    async with app.router.lifespan_context(app):
        wanted = [workload for workload in WORKLOADS if workload.name in ASKED_OF_THE_FLOOR]
        return {each.name: await measure(asking(app), each.make(world), given.times, given.rounds) for each in wanted}


def render(title: str, costs: Mapping[str, Cost]) -> Iterator[str]:
    """A table of microseconds."""
    yield f"**{title}**, microseconds"
    owners = [*(owner for owner, _ in OWNERS), LIBRARY]
    spent = [(owner, [cost.us * cost.shares.get(owner, 0) for cost in costs.values()]) for owner in owners]
    rows = [(owner, *map(number, times)) for owner, times in spent if any(times)]
    rows.append(("**together**", *(f"**{number(cost.us)}**" for cost in costs.values())))
    rows.append(("functions called", *(number(cost.calls) for cost in costs.values())))
    yield from table(("", *costs), rows)


@contextmanager
def quiet() -> Iterator[None]:
    """Access lines are written as in production, and thrown away."""
    with open(os.devnull, "w") as nothing:  # noqa: PTH123 - it is a device
        kept, sys.stderr = sys.stderr, nothing
        configure_logging("INFO", as_json=True)
        try:
            yield
        finally:
            logging.getLogger().handlers.clear()
            sys.stderr = kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1600, help="requests of each kind in a round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(run_postgres())
        asyncio.run(make_owner(postgres))
        databases = [new_postgres_database(postgres, owner=OWNER) for _ in range(2)]
        for database in databases:
            asyncio.run(migrate_with_roles(database))
        for name, url in {CONFINED: as_role(databases[1], APP), OURS: as_role(databases[0], OWNER)}.items():
            with quiet():
                costs, world = uvloop.run(measure_all(url, folder, given))
            print("\n".join(render(name, costs)), flush=True)
        os.environ.update(FLOOR_DATABASE=url, FLOOR_FOLDER=str(folder))
        print("\n".join(render(FLOOR, uvloop.run(measure_floor(world, given)))))


if __name__ == "__main__":
    main()
