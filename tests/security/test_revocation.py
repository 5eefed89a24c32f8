"""What is taken away is gone with the next request, on every worker and every process: nobody remembers a verdict."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Caller
from tests.support.keys import make_key
from tests.support.server import run_server

pytestmark = pytest.mark.anyio

REQUESTS = 6


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that opens a connection for each request: then the kernel may choose another worker each time."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30, verify=False) as client:
        yield client


@dataclass
class World:
    """Where rights are taken, and where they are used: two processes, or one with two workers."""

    taking: httpx.AsyncClient
    using: httpx.AsyncClient
    org: str = ""
    project: str = ""

    @property
    def owner(self) -> Caller:
        return Caller(self.taking, {"X-SaaSBase-Actor": "user:alice"})

    def caller(self, **headers: str) -> Caller:
        return Caller(self.using, headers)

    async def prepare(self) -> None:
        self.org = (await self.owner.new_organization())["id"]
        self.project = (await self.owner.new_project(self.org))["id"]

    async def expect(self, caller: Caller, status: int) -> None:
        """Every worker answers so, to a read, to a list and to a question."""
        for _ in range(REQUESTS):
            await caller.get(f"/projects/{self.project}", status)
        me = await caller.get("/me", 401 if status == 401 else 200)
        listed = await caller.get("/projects", me.status_code)
        if me.status_code == 200:
            assert bool(listed.json()["items"]) is (status == 200)


async def take_away_everything(world: World) -> None:
    """A membership, a membership of a group, one of a group in a group, a key, and what a principal holds."""
    await world.prepare()
    owner, place = world.owner, {"resource_type": "PROJECT", "resource_id": world.project}
    for group in ("inner", "outer"):
        await owner.post(f"/organizations/{world.org}/groups", {"group_id": group})
    await owner.grant("PROJECT", world.project, "group:outer", "PROJECT_VIEWER")
    bob, agent = world.caller(**{"X-SaaSBase-Actor": "user:bob"}), {"X-SaaSBase-Actor": "agent:helper"}
    await owner.grant("PROJECT", world.project, "agent:helper", "PROJECT_VIEWER")
    for_bob = world.caller(**agent, **{"X-SaaSBase-On-Behalf-Of": "user:bob"})
    grant = {**place, "actor_type": "USER", "actor_id": "bob", "role": "PROJECT_VIEWER"}
    members = {name: f"/organizations/{world.org}/groups/{name}/members" for name in ("inner", "outer")}
    is_bob, is_inner = {"member_type": "USER", "member_id": "bob"}, {"member_type": "GROUP", "member_id": "inner"}
    ways: tuple[tuple[str, Any, str, Any], ...] = (
        ("/memberships", grant, "/memberships", grant),
        (members["outer"], is_bob, members["outer"], is_bob),
        (members["inner"], is_bob, members["outer"], is_inner),
    )
    await owner.post(members["outer"], is_inner)
    for given, body, taken, key in ways:
        await owner.post(given, body)
        for caller in (bob, for_bob):
            await world.expect(caller, 200)
        await owner.delete(taken, params=key)
        for caller in (bob, for_bob):
            await world.expect(caller, 404)
    made = await make_key(owner, "PROJECT", world.project, "PROJECT_VIEWER")
    bearer = world.caller(Authorization=f"Bearer {made['token']}")
    await world.expect(bearer, 200)
    await owner.post(f"/api-keys/{made['api_key']['id']}/revoke", expect=200)
    await world.expect(bearer, 401)


# Nobody is slowed here: a revoked key is shown again and again.


async def test_two_workers_forget_at_once(database_url: str, tmp_path: Path) -> None:
    with run_server(database_url, tmp_path, workers=2, SAASBASE_API_KEYS__GUESS_LIMIT="false") as server:
        async with connect(server.url) as taking, connect(server.url) as using:
            await take_away_everything(World(taking, using))


async def test_two_processes_forget_at_once(database_url: str, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with (
        run_server(database_url, folders[0], SAASBASE_API_KEYS__GUESS_LIMIT="false") as one,
        run_server(database_url, folders[1], SAASBASE_API_KEYS__GUESS_LIMIT="false") as two,
    ):
        async with AsyncExitStack() as stack:
            taking, using = [await stack.enter_async_context(connect(server.url)) for server in (one, two)]
            await take_away_everything(World(taking, using))
            await take_away_everything(World(using, taking))
