"""Whatever is pruned by the service, the rest verifies; and what was never pruned cannot pass for it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, insert, text, update

from app.audit import pruning
from app.audit.chain import ChainKeys, first_head
from app.audit.findings import BrokenChainError, Place
from app.audit.sealer import Sealer
from app.models import AuditChain, AuditEvent, AuditGap
from tests.support.chains import EVENTS, GAPS, HEADS, Chain, open_chain
from tests.support.database import behind
from tests.support.rows import BEGINNING

pytestmark = pytest.mark.anyio

AT = AuditEvent.position


@pytest.fixture
async def chain(database_url: str) -> AsyncIterator[Chain]:
    async with open_chain(database_url, 20) as made:
        yield made


async def positions(chain: Chain) -> list[int]:
    return [row["position"] for row in await chain.rows()]


async def refuse(chain: Chain, *chosen: Any) -> str:
    """Nothing at all goes; why."""
    before = await chain.rows(), await chain.rows(GAPS)
    with pytest.raises(BrokenChainError) as refused:
        await chain.prune(*chosen)
    assert (await chain.rows(), await chain.rows(GAPS)) == before
    return refused.value.detail


@pytest.mark.parametrize(
    ("chosen", "gaps"),
    [
        (AT.in_([7, 8, 9]), [(7, 9)]),
        (AT == 1, [(1, 1)]),
        (AT == 20, [(20, 20)]),
        (AT <= 5, [(1, 5)]),
        (AT >= 15, [(15, 20)]),
        (AT % 2 == 0, [(position, position) for position in range(2, 21, 2)]),
        (AT.in_([1, 3, 4, 20]), [(1, 1), (3, 4), (20, 20)]),
        (AT > 0, [(1, 20)]),
        (AT > 20, []),
    ],
)
async def test_what_is_left_verifies(chosen: Any, gaps: list[tuple[int, int]], chain: Chain) -> None:
    gone = sum(last - first + 1 for first, last in gaps)
    assert await chain.prune(chosen) == gone
    assert await chain.gaps() == gaps
    found = await chain.verify()
    assert (found.ok, found.is_complete, found.checked, found.unsealed) == (True, True, 21 - gone, 0)
    assert found.sealed_through is not None
    assert found.sealed_through.position == 21
    assert all([(await chain.verify(position)).ok for position in range(1, 23)]), "from wherever it begins"
    await chain.add(3)
    await chain.seal()
    assert (await chain.verify()).checked == 24 - gone


async def test_gaps_side_by_side_become_one(chain: Chain) -> None:
    for chosen, gaps in (
        ([5], [(5, 5)]),
        ([9], [(5, 5), (9, 9)]),
        ([4, 6], [(4, 6), (9, 9)]),
        ([7, 8], [(4, 9)]),
        ([12, 14, 16], [(4, 9), (12, 12), (14, 14), (16, 16)]),
        ([11, 13, 15, 17], [(4, 9), (11, 17)]),
        ([1, 2, 3, 10, 18, 19, 20], [(1, 20)]),
    ):
        assert await chain.prune(AT.in_(chosen)) == len(chosen)
        assert await chain.gaps() == gaps
        assert await chain.broken_at() is None, chosen
    events = await chain.rows()
    assert {event["action"] for event in events} == {"AUDIT_PRUNED"}
    (gap,) = await chain.rows(GAPS)
    assert gap["prune_event_id"] == events[-1]["id"]


async def test_what_tells_of_prunes_stays(chain: Chain) -> None:
    for expected in (20, 0, 0):
        assert await chain.prune() == expected
    assert await positions(chain) == [21, 22, 23]
    assert await chain.prune(AuditEvent.action == "AUDIT_PRUNED") == 0
    assert await chain.broken_at() is None


async def test_what_is_not_sealed_yet_goes_without_a_gap(chain: Chain) -> None:
    await chain.add(5, actor_id="late")
    assert await chain.prune(AuditEvent.actor_id == "late") == 5
    assert (await chain.gaps(), await chain.broken_at()) == ([], None)
    await chain.add(5, actor_id="late")
    assert await chain.prune() == 25
    assert (await chain.gaps(), await positions(chain), await chain.broken_at()) == ([(1, 20)], [21, 22], None)


async def test_an_organization_that_has_no_chain_yet_is_pruned(database_url: str) -> None:
    async with open_chain(database_url, 0) as chain:
        await chain.add(5)
        assert await chain.prune() == 5
        assert (await positions(chain), await chain.gaps(), await chain.broken_at()) == ([1], [], None)
        head = chain.keys.sign(AuditChain, first_head(chain.organization_id, BEGINNING))
        await chain.tamper(delete(EVENTS), delete(HEADS), insert(HEADS).values(head))
        found = await chain.verify()
        assert (found.ok, found.sealed_through) == (True, None), "as it is until what tells of the prune is sealed"


async def test_a_chain_that_has_lost_its_head_is_not_pruned(chain: Chain) -> None:
    await chain.tamper(delete(HEADS))
    for chosen in ([], [AT == 5], [AuditEvent.actor_id == "nobody"]):
        await refuse(chain, *chosen)
    assert await chain.rows(HEADS) == []


async def test_the_oldest_go_first_and_only_so_many(chain: Chain) -> None:
    await chain.add(3)
    assert await chain.prune(at_most=4, *[AT != 2]) == 4  # noqa: B026 - conditions come after
    assert (await chain.gaps(), await positions(chain)) == ([(1, 1), (3, 5)], [2, *range(6, 25)])
    assert await chain.prune(at_most=100) == 19, "all but the two that tell of prunes"
    assert await chain.broken_at() is None


async def test_many_events_are_pruned_page_by_page(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PAGE", 3)
    monkeypatch.setattr(pruning, "GAPS_AT_ONCE", 2)
    assert await chain.prune(AT.not_in([2, 4, 6, 8, 14])) == 15
    assert await chain.gaps() == [(1, 1), (3, 3), (5, 5), (7, 7), (9, 13), (15, 20)]
    assert await chain.prune(AT <= 20) == 5
    assert (await chain.gaps(), await chain.broken_at()) == ([(1, 20)], None)


async def test_a_chain_is_pruned_with_a_new_key(chain: Chain) -> None:
    await chain.prune(AT == 5)
    new = Chain(chain.database, chain.organization_id, type(chain.keys)("new", ["development"]))
    assert await new.prune(AT.in_([6, 10])) == 2
    assert (await new.gaps(), await new.broken_at()) == ([(5, 6), (10, 10)], None)
    assert await chain.broken_at() == (5, "gap"), "without the new key nobody can tell who made it"


async def test_gaps_of_every_key_verify_after_the_key_was_changed(chain: Chain) -> None:
    await chain.prune(AT.in_([3, 7]))
    await chain.rotate()
    assert await chain.gaps() == [(3, 3), (7, 7)]
    await chain.prune(AT.in_([4, 10, 25]))
    assert await chain.gaps() == [(3, 4), (7, 7), (10, 10), (25, 25)]
    assert await chain.broken_at() is None
    assert all([(await chain.verify(position)).ok for position in range(1, 36)]), "from wherever it begins"


async def test_a_prune_that_was_not_sealed_when_the_key_was_changed_verifies(chain: Chain) -> None:
    await chain.prune(AT == 5, is_sealed=False)
    old, chain.keys = chain.keys, ChainKeys("new", ["development"])
    assert await chain.broken_at() is None
    assert await chain.seal() == 1
    await chain.add(2)
    assert await chain.seal() == 2
    assert [row["key_id"] for row in (await chain.rows())[-3:]] == [old.current_id, *[chain.keys.current_id] * 2]
    assert await chain.broken_at() is None


async def test_a_prune_does_not_make_true_what_an_old_key_has_signed(chain: Chain) -> None:
    leaked = await chain.rotate()
    thirtieth = (await chain.rows())[29]
    place = {"organization_id": chain.organization_id, "first_position": 25, "last_position": 25, "prune_event_id": uuid4()}
    gap = leaked.sign(AuditGap, {**place, "last_hash": (await chain.rows())[24]["hash"]})
    await chain.tamper(delete(EVENTS).where(AT == 25), insert(GAPS).values(gap))
    assert "position 25" in await refuse(chain, AT == 26)
    head = {"organization_id": chain.organization_id, "position": 30, "hash": thirtieth["hash"], "sealed_at": BEGINNING}
    await chain.tamper(update(HEADS).values(leaked.sign(AuditChain, head)))
    assert "position 30" in await refuse(chain, AT == 8)


async def test_what_is_known_of_a_pruned_position_is_compared_only_at_the_end_of_its_gap(chain: Chain) -> None:
    hashes = [row["hash"] for row in await chain.rows()]
    await chain.prune(AT.between(5, 8))
    assert await chain.broken_at(known=Place(8, hashes[7])) is None
    assert await chain.broken_at(known=Place(8, hashes[6])) == (8, "known")
    assert await chain.broken_at(known=Place(6, "0" * 64)) is None


async def test_a_gap_that_was_touched_is_found(chain: Chain) -> None:
    await chain.prune(AT.between(5, 8))
    (gap,) = await chain.rows(GAPS)
    for change in (
        {"first_position": 4},
        {"last_position": 9},
        {"last_position": 2},
        {"last_hash": "0" * 64},
        {"prune_event_id": chain.organization_id},
        {"mac": "0" * 64},
        {"key_id": "0" * 8},
    ):
        await chain.tamper(update(GAPS).values(change))
        found = await chain.broken_at()
        assert found in {(4, "gap"), (5, "gap"), (5, "missing")}, change
        await chain.tamper(update(GAPS).values(dict(gap)))
        assert await chain.broken_at() is None
    await chain.tamper(delete(GAPS))
    assert await chain.broken_at() == (5, "missing")
    await chain.tamper(insert(GAPS).values(dict(gap)), delete(EVENTS).where(EVENTS.c.position == 9))
    assert await chain.broken_at() == (9, "missing")


async def test_an_event_that_comes_back_or_is_slipped_into_a_gap_is_found(chain: Chain) -> None:
    seventh = (await chain.rows())[6]
    await chain.prune(AT.between(5, 8))
    for event in (dict(seventh), {**chain.event(0), "position": 6}, {**chain.event(0), "position": 5}):
        await chain.tamper(insert(EVENTS).values(event))
        position, kind = await chain.broken_at() or (0, "")
        assert (5 <= position <= 7, kind) == (True, "gap")
        await chain.tamper(delete(EVENTS).where(EVENTS.c.position.between(5, 8)))
        assert await chain.broken_at() is None


async def test_a_prune_signs_no_gap_that_somebody_else_made(chain: Chain) -> None:
    await chain.prune(AT == 5)
    await chain.tamper(delete(EVENTS).where(EVENTS.c.position == 6), update(GAPS).values(last_position=6))
    for chosen in (AT == 7, AT == 4, AT.between(3, 10)):
        await refuse(chain, chosen)
        assert await chain.gaps() == [(5, 6)]
    assert await chain.broken_at() == (5, "gap")
    assert await chain.prune(AT.between(9, 12)) == 4, "elsewhere the chain is whole"


async def test_an_event_that_was_removed_cannot_be_pruned_afterwards(chain: Chain) -> None:
    await chain.tamper(delete(EVENTS).where(EVENTS.c.position == 5))
    await refuse(chain, AT <= 10)
    assert await chain.broken_at() == (5, "missing")


CHANGES: dict[str, Any] = {
    "another time": {"occurred_at": BEGINNING - timedelta(days=9000)},
    "another action": {"action": "DOCUMENT_DELETED"},
    "another hash": {"hash": "0" * 64},
    "a key that nobody has": {"key_id": "0" * 8},
    "no key": {"key_id": None},
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("position", [1, 5, 20])
async def test_an_event_that_was_changed_cannot_be_pruned_afterwards(position: int, name: str, chain: Chain) -> None:
    await chain.tamper(update(EVENTS).where(EVENTS.c.position == position).values(CHANGES[name]))
    before = await chain.broken_at()
    for chosen in (AT.in_([position]), AT > 0, AuditEvent.occurred_at < BEGINNING + timedelta(days=1)):
        assert str(position) in await refuse(chain, chosen)
    assert await chain.broken_at() == before is not None


async def test_what_tells_of_a_prune_cannot_be_made_into_something_that_is_pruned(chain: Chain) -> None:
    await chain.prune(AT.between(5, 8))
    await chain.tamper(update(EVENTS).where(EVENTS.c.position == 21).values(action="PROJECT_UPDATED"))
    await refuse(chain, AT >= 20)
    assert (await chain.broken_at(), await chain.broken_at(from_position=10)) == ((5, "gap"), (21, "altered"))


async def test_an_event_that_came_back_cannot_be_pruned_again(chain: Chain) -> None:
    rows = await chain.rows()
    await chain.prune(AT.between(5, 8))
    for back in ([5], [8], [5, 6, 7, 8], [6]):
        await chain.tamper(insert(EVENTS).values([dict(rows[position - 1]) for position in back]))
        await refuse(chain, AT.in_(back))
        assert await chain.gaps() == [(5, 8)]
        await chain.tamper(delete(EVENTS).where(AT.in_(back)))


async def test_nothing_is_pruned_below_a_head_that_nobody_has_signed(chain: Chain) -> None:
    await chain.tamper(update(HEADS).values(position=10))
    assert "position 10" in await refuse(chain, AT == 5)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("table", "column"), [("audit_chains", "sealed_at"), ("audit_gaps", "prune_event_id"), ("audit_events", "hash")])
async def test_a_value_that_its_column_could_not_hold_is_no_fault_of_the_service(table: str, column: str, chain: Chain) -> None:
    """SQLite takes anything into any column."""
    await chain.prune(AT == 5)
    async with chain.database.writer.begin() as connection:
        await connection.exec_driver_sql(f"UPDATE {table} SET {column} = x'ff00'")
    with pytest.raises(BrokenChainError):
        await chain.prune(AT == 6)


class Delayed(Sealer):
    """Waits between reading the events and writing their places."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.database, chain.keys)
        self.has_read = asyncio.Event()
        self.may_write = asyncio.Event()

    async def _place(self, *arguments: Any) -> list[tuple[str, int, str]]:
        self.has_read.set()
        await self.may_write.wait()
        return await super()._place(*arguments)


async def waits_for_a_lock(chain: Chain) -> None:
    """Until some transaction of this database does."""
    waiting = text("SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()")
    async with asyncio.timeout(60):
        while True:
            async with behind(chain.database) as connection:
                if (await connection.execute(waiting)).first() is not None:
                    return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
@pytest.mark.parametrize("is_new", [True, False])
async def test_a_prune_waits_for_who_seals(is_new: bool, database_url: str) -> None:
    async with open_chain(database_url, 0 if is_new else 5) as chain:
        await chain.add(5)
        sealer = Delayed(chain)
        sealing = asyncio.create_task(sealer.seal())
        await sealer.has_read.wait()
        pruning = asyncio.create_task(chain.prune())
        await waits_for_a_lock(chain)
        sealer.may_write.set()
        assert (await sealing, await pruning) == (5, 5 if is_new else 10)
        assert (await positions(chain), await chain.broken_at()) == ([6 if is_new else 11], None)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
async def test_what_goes_away_while_it_is_sealed_leaves_no_hole(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with open_chain(database_url, 0) as chain:
        await chain.add(5)
        sealer = Delayed(chain)
        sealing = asyncio.create_task(sealer.seal())
        await sealer.has_read.wait()
        await chain.tamper(delete(EVENTS).where(EVENTS.c.actor_id == "user-2"))
        sealer.may_write.set()
        assert await sealing == 0
        assert f"events of organization {chain.organization_id} went away" in caplog.text
        assert await sealer.seal() == 4
        assert (await positions(chain), await chain.broken_at()) == ([1, 2, 3, 4], None)


async def test_pruning_and_sealing_wait_for_each_other(chain: Chain) -> None:
    for number in range(5):
        third, seventh = (AT % 3).in_([number % 3]), AuditEvent.actor_id == "user-7"
        await asyncio.gather(chain.add(40), chain.prune(third), chain.seal(), chain.prune(seventh))
        found = await chain.verify()
        assert found.ok, found
    await chain.seal()
    found = await chain.verify()
    assert (found.ok, found.unsealed) == (True, 0)
