"""The chain under load and under kill -9: three processes seal what 64 writers write, and it verifies all the while."""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, text

from tests.conftest import Caller
from tests.support.chains import EVENTS, Chain
from tests.support.database import open_database
from tests.support.server import Server, run_server

pytestmark = pytest.mark.anyio

WRITERS = 64
PROCESSES = 3
CHANGES = 4
EVENTS_EACH = 10_000
KILLS = 4
SEED = random.randrange(1 << 30)  # shown by the assertion that fails
ALICE = {"X-SaaSBase-Actor": "user:alice"}


@asynccontextmanager
async def callers_of(*servers: Server) -> AsyncIterator[list[Caller]]:
    """Alice at each of them."""
    async with AsyncExitStack() as stack:
        found = []
        for server in servers:
            limits = httpx.Limits(max_connections=WRITERS)
            client = httpx.AsyncClient(base_url=server.url, headers=ALICE, limits=limits, timeout=60, verify=False)
            found.append(Caller(await stack.enter_async_context(client), ALICE))
        yield found


async def write(caller: Caller, organization_id: str, number: int) -> None:
    project = await caller.new_project(organization_id, name=f"project {number}")
    for change in range(CHANGES - 1):
        await caller.patch(f"/projects/{project['id']}", {"name": f"project {number} {change}"})


async def verify(caller: Caller, organization_id: str) -> Any:
    found = (await caller.get("/audit-events/verify", params={"organization_id": organization_id})).json()
    assert found["ok"], found
    return found


async def verify_until(done: asyncio.Event, caller: Caller, organization_id: str) -> int:
    """Again and again, each time with what was learned before; how often."""
    known: dict[str, Any] = {}
    count = 0
    while not done.is_set():
        params = {"organization_id": organization_id, **known}
        found = (await caller.get("/audit-events/verify", params=params)).json()
        assert found["ok"], found
        if (through := found["sealed_through"]) is not None:
            known = {"known_position": through["position"], "known_hash": through["hash"]}
        count += 1
    return count


async def test_64_writers_in_three_processes(database_url: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(run_server(database_url, tmp_path)) for _ in range(PROCESSES)]
        callers = await stack.enter_async_context(callers_of(*servers))
        organization = (await callers[0].new_organization())["id"]
        done = asyncio.Event()
        watchers = [asyncio.create_task(verify_until(done, caller, organization)) for caller in callers]
        await asyncio.gather(*(write(callers[number % PROCESSES], organization, number) for number in range(WRITERS)))
        done.set()
        assert all([await watcher > 1 for watcher in watchers])
        while (found := await verify(callers[0], organization))["unsealed"]:
            await asyncio.sleep(0.1)
        assert (found["checked"], found["is_complete"]) == (2 + WRITERS * CHANGES, True)
        logs = [server.log for server in servers]
    for log in logs:
        assert "Traceback" not in log
        assert not re.search(r'"status": ?5\d\d', log)


async def test_sealing_goes_on_where_a_process_was_killed(database_url: str, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    async with open_database(database_url) as database:
        chain = Chain(database, uuid4())
        sealed, left = 0, list[int]()
        for _ in range(KILLS):
            with run_server(database_url, tmp_path) as server:
                sealed = await _count_sealed(chain)
                await chain.add(EVENTS_EACH)
                while (await _count_sealed(chain)) == sealed:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(chance.uniform(0, 0.02))
                server.kill()
            await _wait_for_the_database(chain)
            found = await chain.verify()
            assert found.ok, (SEED, found)
            sealed = found.checked
            left.append(found.unsealed)
            assert sealed == await _count_sealed(chain), SEED
        assert any(left), "it was always too late: nothing was killed in the middle"
        assert await chain.seal() == KILLS * EVENTS_EACH - sealed
        found = await chain.verify()
        assert (found.ok, found.is_complete, found.checked, found.unsealed) == (True, True, KILLS * EVENTS_EACH, 0), SEED


async def _count_sealed(chain: Chain) -> int:
    organization_id: UUID = chain.organization_id
    async with chain.database.for_jobs.open_read() as connection:
        count = select(func.count()).select_from(EVENTS).where(EVENTS.c.organization_id == organization_id, EVENTS.c.position > 0)
        return int((await connection.execute(count)).scalar_one())


async def _wait_for_the_database(chain: Chain) -> None:
    """PostgreSQL ends what it was told before it notices that nobody is there any more: a commit can come after the kill."""
    if chain.database.is_sqlite:
        return
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(30), chain.database.for_jobs.open_read() as connection:
        while (await connection.execute(others)).scalar_one():
            await asyncio.sleep(0.01)
