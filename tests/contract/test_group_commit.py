"""What is written to SQLite at the same time is written together, and nobody pays for what another one asked."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.db.engine import Database, PoolLimits
from app.db.fair_pool import borrowed
from app.db.group_commit import MAX_GROUP, GroupCommit

pytestmark = pytest.mark.anyio

CHECKOUT_SECONDS = 0.3


class Numbers:
    """A table of unique numbers, written by group commit, and what the one connection was told."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.database = Database.from_url(f"sqlite:///{file}", PoolLimits(checkout_seconds=CHECKOUT_SECONDS, lock_seconds=0.2))
        self.told: list[str] = []
        self._commit = GroupCommit(self.database.writer.sync_engine, CHECKOUT_SECONDS)

    async def open(self) -> None:
        async with borrowed(self.database.writer.sync_engine) as driver:
            await driver.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
            await driver.set_trace_callback(self.told.append)

    async def send(self, *statements: tuple[str, list[Any]]) -> bool:
        return await self._commit.write(statements)

    async def write(self, *numbers: Any) -> bool:
        return await self.send(*(("INSERT INTO numbers VALUES (?)", [number]) for number in numbers))

    async def fail(self) -> bool:
        return await self.send(("INSERT INTO absent VALUES (1)", []))

    async def aclose(self) -> None:
        await self._commit.aclose()

    @property
    def commits(self) -> int:
        return self.told.count("COMMIT")

    @property
    def rows(self) -> list[int]:
        with closing(sqlite3.connect(self.file)) as connection:
            return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]


@pytest.fixture
async def numbers(tmp_path: Path) -> AsyncIterator[Numbers]:
    made = Numbers(tmp_path / "numbers.db")
    await made.open()
    yield made
    assert made.database.count_connections()[0] == 0
    await made.database.aclose()


async def test_who_comes_at_the_same_time_is_written_by_one_transaction(numbers: Numbers) -> None:
    assert await asyncio.gather(*map(numbers.write, range(MAX_GROUP))) == [True] * MAX_GROUP
    assert (numbers.rows, numbers.commits) == ([*range(MAX_GROUP)], 1)


async def test_a_group_has_its_bound(numbers: Numbers) -> None:
    await asyncio.gather(*map(numbers.write, range(2 * MAX_GROUP + 1)))
    assert (len(numbers.rows), numbers.commits) == (2 * MAX_GROUP + 1, 3)


@pytest.mark.parametrize("refused", [[3, 3], [4, 0], ["\ud800"], [2**63]])
async def test_what_is_refused_costs_the_others_nothing(numbers: Numbers, refused: list[Any]) -> None:
    """A constraint in the middle of one's rows, one of two who want the same, and what the driver itself cannot write."""
    await numbers.write(0)
    outcomes = [*await asyncio.gather(numbers.write(1), numbers.write(*refused), numbers.write(2))]
    assert (outcomes, numbers.rows) == ([True, False, True], [0, 1, 2])


async def test_of_two_who_want_the_same_the_first_gets_it(numbers: Numbers) -> None:
    assert [*await asyncio.gather(numbers.write(1), numbers.write(1, 2))] == [True, False]
    assert numbers.rows == [1]


@pytest.mark.parametrize("others", [[1, 2], [1, 1]], ids=["alone", "beside a refusal"])
async def test_a_fault_is_told_to_whose_it_is(numbers: Numbers, others: list[int]) -> None:
    asked = [numbers.write(others[0]), numbers.fail(), numbers.write(object()), numbers.write(*others[1:]), numbers.write(3)]
    outcomes = [*await asyncio.gather(*asked, return_exceptions=True)]
    assert [outcomes[0], *outcomes[3:]] == [True, others[1] != others[0], True]
    assert [type(outcome) for outcome in outcomes[1:3]] == [sqlite3.OperationalError, sqlite3.ProgrammingError]
    assert (numbers.rows, numbers.commits) == (sorted({*others, 3}), 1)


async def test_a_commit_that_is_refused_is_refused_to_whose_it_is(numbers: Numbers) -> None:
    """A foreign key that is looked at last."""
    with closing(sqlite3.connect(numbers.file)) as other:
        other.execute("CREATE TABLE marks (number INTEGER REFERENCES numbers DEFERRABLE INITIALLY DEFERRED)")

    async def mark(number: int) -> bool:
        return await numbers.send(("INSERT INTO marks VALUES (?)", [number]))

    assert [*await asyncio.gather(mark(1), numbers.write(1), mark(2), numbers.write(3))] == [False, True, False, True]
    assert [*await asyncio.gather(mark(1), numbers.write(2), mark(2))] == [True] * 3


async def test_a_file_that_another_process_keeps_locked(numbers: Numbers) -> None:
    with closing(sqlite3.connect(numbers.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcomes = await asyncio.gather(*map(numbers.write, range(3)), return_exceptions=True)
        assert {getattr(outcome, "sqlite_errorcode", None) for outcome in outcomes} == {sqlite3.SQLITE_BUSY}
        other.execute("ROLLBACK")
    assert (await numbers.write(5), numbers.rows) == (True, [5])


async def test_who_goes_away_in_the_line_leaves_nothing_and_keeps_nobody(numbers: Numbers) -> None:
    async with numbers.database.writer.connect():
        tasks = [asyncio.create_task(numbers.write(number)) for number in range(4)]
        await asyncio.sleep(0.01)
        for gone in (tasks[0], tasks[3]):  # also the one that began the line
            gone.cancel()
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks[1:3]) == [True, True]
    assert numbers.rows == [1, 2]
    assert all(tasks[gone].cancelled() for gone in (0, 3))


async def test_nothing_is_left_to_write_when_all_have_gone(numbers: Numbers) -> None:
    async with numbers.database.writer.connect():
        task = asyncio.create_task(numbers.write(1))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await numbers.write(2), numbers.rows) == (True, [2])


async def test_each_has_his_own_time_to_wait(numbers: Numbers) -> None:
    """Counted from when he came, also behind others who wait in vain."""
    clock = asyncio.get_running_loop().time

    async def vainly(pause: float) -> float:
        await asyncio.sleep(pause)
        came = clock()
        with pytest.raises(PoolTimeoutError):
            await numbers.write(1)
        return clock() - came

    async with numbers.database.writer.connect():
        waits = await asyncio.gather(vainly(0), vainly(0.1), vainly(0.2))
        late = asyncio.create_task(numbers.write(2))
        await asyncio.sleep(0.1)
    assert (await late, numbers.rows) == (True, [2])
    assert all(CHECKOUT_SECONDS <= wait < CHECKOUT_SECONDS + 0.1 for wait in waits)


async def test_who_goes_away_while_he_is_written_waits_for_that(numbers: Numbers) -> None:
    """Also the end of the service does."""
    with closing(sqlite3.connect(numbers.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        tasks = [asyncio.create_task(numbers.write(number)) for number in range(3)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        closed = asyncio.create_task(numbers.aclose())
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in (*tasks, closed))
        other.execute("ROLLBACK")
        await asyncio.wait([*tasks, closed])
        assert all(task.cancelled() for task in tasks)
    assert numbers.rows == [0, 1, 2]
