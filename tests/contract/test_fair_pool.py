"""Connections go to who has waited longest, and to nobody who has given up."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.util.queue import Empty

from app.db.engine import Database, PoolLimits
from app.db.fair_pool import borrowed
from tests.conftest import forgive_abandoned_connections

pytestmark = pytest.mark.anyio


@pytest.fixture
async def single(database_url: str) -> AsyncIterator[Database]:
    """With one connection that can write, which was made already."""
    database = Database.from_url(database_url, PoolLimits(size=1, checkout_seconds=0.2))
    try:
        async with database.writer.connect():
            pass
        yield database
    finally:
        await database.aclose()


async def test_who_has_just_come_waits_behind_all_others(single: Database) -> None:
    served: list[str] = []

    async def ask_often(name: str) -> None:
        for _ in range(4):
            async with borrowed(single.writer.sync_engine):
                served.append(name)
                await asyncio.sleep(0)

    await asyncio.gather(*map(ask_often, "abcd"))
    assert "".join(served) == "abcd" * 4


async def test_who_waits_too_long_is_told_so_and_misses_nothing(single: Database) -> None:
    async with single.writer.connect():
        with pytest.raises(PoolTimeoutError):
            await single.writer.connect()
    async with single.writer.connect():
        assert single.writer.pool.checkedout() == 1  # type: ignore[attr-defined] # it is a pool of a fixed size


@pytest.mark.parametrize("pause", range(6))
async def test_what_comes_to_who_goes_away_goes_to_the_next(single: Database, pause: int) -> None:
    async def ask() -> None:
        async with single.writer.connect():
            pass

    async with borrowed(single.writer.sync_engine):  # given back at once when the block ends
        gone, patient = asyncio.create_task(ask()), asyncio.create_task(ask())
        await asyncio.sleep(0.01)
    for _ in range(pause):
        await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await patient
    assert single.writer.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_who_is_cancelled_when_his_time_is_over_is_cancelled(single: Database) -> None:
    async with borrowed(single.writer.sync_engine):
        pool: Any = single.writer.pool
        late = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        (waiting,) = pool._pool._waiting
        waiting.set_exception(Empty())  # as the alarm does
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late


async def test_who_gives_up_while_waiting_is_passed_over(single: Database) -> None:
    async with single.writer.connect():
        gone = asyncio.create_task(single.writer.connect().__aenter__())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    async with single.writer.connect():
        assert single.writer.pool.checkedout() == 1  # type: ignore[attr-defined]


async def test_who_waits_while_no_connection_can_be_made_is_told_so_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"postgresql://nobody:nothing@127.0.0.1:{taken.getsockname()[1]}/none"
        database = Database.from_url(url, PoolLimits(size=2, checkout_seconds=30))
        async with asyncio.timeout(20):
            found = await asyncio.gather(*(database.ping() for _ in range(6)), return_exceptions=True)
        await database.aclose()
    assert [type(error).__name__ for error in found] == ["ConnectionRefusedError"] * 6


async def test_a_block_that_raises_costs_a_connection_and_no_place(single: Database) -> None:
    made: list[Any] = []

    async def raise_in_block(error: BaseException) -> None:
        async with borrowed(single.writer.sync_engine) as driver:
            made.append(driver)
            raise error

    for error in (ValueError(), TimeoutError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            await raise_in_block(error)
        async with borrowed(single.writer.sync_engine) as driver:
            assert driver not in made
        assert single.writer.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_who_is_cancelled_within_the_block_or_on_the_way_to_it_leaves_the_place(database_url: str) -> None:
    forgive_abandoned_connections()
    database = Database.from_url(database_url, PoolLimits(size=1))

    async def hold() -> None:
        async with borrowed(database.writer.sync_engine):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    try:
        for pause in range(8):
            await database.writer.dispose()  # so that the first has to connect
            tasks = [asyncio.create_task(hold()) for _ in range(3)]
            for _ in range(pause):
                await asyncio.sleep(0)
            for task in tasks[:2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert tasks[2].exception() is None
            assert database.count_connections()[0] == 0
    finally:
        await database.aclose()


async def test_a_silent_connection_takes_older_ones_with_it(database_url: str) -> None:
    database = Database.from_url(database_url, PoolLimits(size=2))
    engine = database.reader.sync_engine
    try:
        async with borrowed(engine) as first:
            with pytest.raises(TimeoutError):
                async with borrowed(engine):
                    raise TimeoutError
        async with borrowed(engine) as third:
            assert third is not first
    finally:
        await database.aclose()
