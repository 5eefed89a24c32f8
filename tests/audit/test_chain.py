"""Chains as nobody has touched them: they verify whole and in parts, under a new key, sealed by many, late or killed in the middle."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import insert, update

from app.audit import verification
from app.audit.chain import ChainKeys, first_hash
from app.audit.findings import Break, BreakKind, Place
from app.audit.sealer import Sealer
from app.core.clock import now
from app.models import AuditCheckpoint
from tests.support.chains import CHECKPOINTS, EVENTS, HEADS, KEYS, Chain, open_chain
from tests.support.database import behind, open_database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def chain(database_url: str) -> AsyncIterator[Chain]:
    async with open_chain(database_url) as made:
        yield made


async def test_a_chain_has_a_position_for_each_event_in_the_order_of_time(chain: Chain) -> None:
    rows = await chain.rows()
    assert [row["position"] for row in rows] == list(range(1, 11))
    assert [row["occurred_at"] for row in rows] == sorted(row["occurred_at"] for row in rows)
    assert len({row["hash"] for row in rows}) == 10
    found = await chain.verify()
    (head,) = await chain.rows(HEADS)
    assert found.sealed_through is not None
    assert (found.ok, found.is_complete, found.checked, found.unsealed) == (True, True, 10, 0)
    assert (found.sealed_through.position, found.sealed_through.hash) == (10, rows[-1]["hash"]) == (head["position"], head["hash"])


async def test_what_is_sealed_later_is_linked_to_it_and_what_is_not_sealed_is_counted(chain: Chain) -> None:
    before = await chain.rows()
    await chain.add(3)
    assert (await chain.verify()).unsealed == 3
    assert (await chain.seal(), await chain.seal()) == (3, 0)
    assert (await chain.rows())[:10] == before, "nothing is sealed twice"
    found = await chain.verify(known=Place(10, before[-1]["hash"]))
    assert (found.ok, found.checked, found.unsealed) == (True, 13, 0)


async def test_an_organization_without_events_has_a_chain_without_an_end(database_url: str) -> None:
    async with open_chain(database_url, 0) as chain:
        found = await chain.verify()
        assert (found.ok, found.is_complete, found.checked, found.sealed_through, found.unsealed) == (True, True, 0, None, 0)
        assert await chain.broken_at(known=Place(1, "0" * 64)) == (1, "known")


async def test_a_part_is_verified_by_itself(chain: Chain) -> None:
    hashes = [row["hash"] for row in await chain.rows()]
    for position in (2, 5, 10, 11, 4711):
        found = await chain.verify(position)
        assert (found.ok, found.is_complete, found.checked) == (True, True, max(0, 11 - position)), position
    assert await chain.broken_at(from_position=6, known=Place(5, hashes[4])) is None
    assert await chain.broken_at(from_position=6, known=Place(5, hashes[5])) == (5, "known")
    assert await chain.broken_at(from_position=6, known=Place(8, hashes[8])) == (8, "known")
    await chain.tamper(update(EVENTS).where(EVENTS.c.position == 3).values(actor_id="mallory"))
    assert await chain.broken_at(from_position=4) is None
    assert await chain.broken_at(from_position=3) == (3, "altered")


async def test_many_events_are_verified_in_several_answers(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "CHUNK", 2)
    monkeypatch.setattr(verification, "MAX_POSITIONS", 4)
    places = []
    position: int | None = 1
    while position is not None:
        found = await chain.verify(position)
        assert found.ok
        places.append((found.checked, found.next_position, found.is_complete))
        position = found.next_position
    assert places == [(4, 5, False), (4, 9, False), (2, None, True)]
    await chain.tamper(update(EVENTS).where(EVENTS.c.position == 6).values(actor_id="mallory"))
    assert [await chain.broken_at(from_position=position) for position in (1, 5, 9)] == [None, (6, "altered"), None]


async def test_the_first_break_is_named_and_no_later_one(chain: Chain) -> None:
    await chain.tamper(
        update(CHECKPOINTS).values(hash="0" * 64),
        update(HEADS).values(hash="0" * 64),
        update(EVENTS).where(EVENTS.c.position > 3).values(ip="-"),
    )
    found = (await chain.verify()).first_break
    assert found == Break(4, BreakKind.ALTERED, (await chain.rows())[3]["id"])


async def test_a_key_can_be_changed_and_the_old_one_is_still_needed(chain: Chain) -> None:
    new = Chain(chain.database, chain.organization_id, ChainKeys("new", ["older", "development"]))
    await new.add(2)
    assert await new.seal() == 2
    assert [row["key_id"] for row in await new.rows()] == [KEYS.current_id] * 10 + [new.keys.current_id] * 2
    assert await new.broken_at() is None
    assert await chain.broken_at() == (11, "key")
    assert await Chain(chain.database, chain.organization_id, ChainKeys("new")).broken_at() == (1, "key")


def test_keys_are_known_by_their_beginning_and_shown_nowhere() -> None:
    keys = ChainKeys("geheim-4711", ["geheim-4710"])
    assert keys.find(keys.current_id) == keys.current == b"geheim-4711"
    assert (keys.find(None), keys.find("")) == (None, None)
    assert "geheim" not in repr(keys)


def test_the_beginning_of_a_chain_is_its_organizations() -> None:
    one, other = UUID(int=1), UUID(int=2)
    assert first_hash(one) == first_hash(one) != first_hash(other)


async def test_checkpoints_are_hourly_and_only_of_chains_that_moved(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await chain.add(1)
    await chain.seal()
    assert await chain.write_checkpoints() == 0, "the last one is younger than an hour"
    past = now() - timedelta(hours=1, seconds=1)
    row = {**(await chain.rows(CHECKPOINTS))[0], "created_at": past}
    del row["mac"], row["key_id"]
    await chain.tamper(update(CHECKPOINTS).values(chain.keys.sign(AuditCheckpoint, row)))
    at_once = await asyncio.gather(*(chain.write_checkpoints() for _ in range(4)))
    assert sum(at_once) == 1
    (head,) = await chain.rows(HEADS)
    assert f"organization {chain.organization_id} position 11 hash {head['hash']}" in caplog.text
    assert await chain.write_checkpoints() == 0
    assert [row["position"] for row in await chain.rows(CHECKPOINTS)] == [10, 11]
    assert await chain.broken_at() is None


async def test_several_processes_seal_at_once(database_url: str) -> None:
    async with open_chain(database_url, 0) as chain, open_database(database_url) as second, open_database(database_url) as third:
        others = [Chain(chain.database) for _ in range(3)]
        for number in range(5):
            for one in (chain, *others):
                await one.add(50, correlation_id=str(number))
            await asyncio.gather(*(Sealer(database, KEYS).seal() for database in (chain.database, second, third) for _ in range(2)))
        await chain.seal()
        for one in (chain, *others):
            found = await one.verify()
            assert (found.ok, found.is_complete, found.checked, found.unsealed) == (True, True, 250, 0)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
async def test_a_transaction_that_commits_late_is_sealed_later(chain: Chain) -> None:
    async with behind(chain.database) as late:
        await late.execute(insert(EVENTS), chain.event(0))
        await chain.add(2)
        assert await chain.seal() == 2
        assert (await chain.verify()).checked == 12
    found = await chain.verify()
    assert (found.ok, found.checked, found.unsealed) == (True, 12, 1)
    assert await chain.seal() == 1
    found = await chain.verify()
    assert (found.ok, found.checked, found.unsealed) == (True, 13, 0)


async def test_a_batch_that_could_not_be_finished_leaves_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_chain(database_url) as chain:
        before = await chain.rows()
        await chain.add(5)
        with monkeypatch.context() as patch:
            patch.setattr(ChainKeys, "sign", lambda *_: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                await chain.seal()
        assert [row for row in await chain.rows() if row["position"] is not None] == before
        assert await chain.seal() == 5
        assert await chain.broken_at() is None
