"""Whatever is done to the trail behind the service's back, verifying names it, and where."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, insert, update

from app.audit.chain import ChainKeys, first_hash
from app.audit.findings import Place
from app.models import AuditChain, AuditCheckpoint, AuditEvent, AuditGap
from tests.support.chains import CHECKPOINTS, EVENTS, GAPS, HEADS, Chain, open_chain
from tests.support.rows import BEGINNING

pytestmark = pytest.mark.anyio

OTHER: dict[str, Any] = {
    "id": uuid4(),
    "occurred_at": BEGINNING,
    "organization_id": uuid4(),
    "project_id": uuid4(),
    "resource_id": uuid4(),
    "details": {"number": 4, "cost": 0.1000000000000000055, "text": 'ü"\\ '},
    "position": 99,
    "hash": "0" * 64,
    "key_id": "0" * 8,
}
# An event that is not at its place is missing there; one that names a key nobody has is told apart, because settings may be at fault.
KINDS = {"organization_id": "missing", "position": "missing", "key_id": "key"}


@pytest.fixture
async def chain(database_url: str) -> AsyncIterator[Chain]:
    async with open_chain(database_url) as made:
        yield made


@pytest.mark.parametrize("column", [column.name for column in EVENTS.columns])
async def test_a_change_of_any_column_is_found(column: str, chain: Chain) -> None:
    event = (await chain.rows())[4]
    await chain.tamper(update(EVENTS).where(EVENTS.c.position == 5).values({column: OTHER.get(column, f"{event[column]}x")}))
    found = (await chain.verify()).first_break
    assert found is not None
    kind = KINDS.get(column, "altered")
    assert (found.position, found.kind) == (5, kind)
    assert found.event_id == (None if kind == "missing" else OTHER["id"] if column == "id" else event["id"])


@pytest.mark.parametrize("column", [column.name for column in EVENTS.columns if column.nullable])
async def test_a_column_that_was_emptied_is_found(column: str, chain: Chain) -> None:
    await chain.tamper(update(EVENTS).where(EVENTS.c.position == 5).values({column: None}))
    assert await chain.broken_at() == (5, "missing" if column == "position" else "altered")


async def test_an_empty_text_is_not_the_same_as_none(chain: Chain) -> None:
    await chain.add(1, correlation_id=None, on_behalf_of="")
    await chain.seal()
    for change in ({"correlation_id": ""}, {"on_behalf_of": None}, {"correlation_id": "", "on_behalf_of": None}):
        await chain.tamper(update(EVENTS).where(EVENTS.c.position == 11).values(change))
        assert await chain.broken_at() == (11, "altered")
        await chain.tamper(update(EVENTS).where(EVENTS.c.position == 11).values(correlation_id=None, on_behalf_of=""))
        assert await chain.broken_at() is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("column", [column.name for column in EVENTS.columns if column.name != "position"])
async def test_a_value_that_its_column_could_not_hold_is_found(column: str, chain: Chain) -> None:
    """SQLite takes anything into any column."""
    async with chain.database.writer.begin() as connection:
        await connection.exec_driver_sql(f"UPDATE audit_events SET {column} = x'ff00' WHERE position = 5")
    assert await chain.broken_at() == (5, {"organization_id": "missing", "key_id": "key"}.get(column, "altered"))


async def swap_positions(chain: Chain) -> None:
    for old, new in ((3, 0), (7, 3), (0, 7)):
        await chain.tamper(update(EVENTS).where(EVENTS.c.position == old).values(position=new))


async def swap_contents(chain: Chain) -> None:
    rows = await chain.rows()
    for here, there in ((3, 7), (7, 3)):
        told = {name: rows[there - 1][name] for name in ("actor_id", "details", "occurred_at", "request_id", "resource_id", "project_id")}
        await chain.tamper(update(EVENTS).where(EVENTS.c.position == here).values(told))


async def move_up(chain: Chain) -> None:
    """Remove an event, and let those behind it take its place."""
    await chain.tamper(delete(EVENTS).where(EVENTS.c.position == 3))
    for position in range(4, 11):
        await chain.tamper(update(EVENTS).where(EVENTS.c.position == position).values(position=position - 1))


async def set_back(chain: Chain) -> None:
    seventh = (await chain.rows())[6]
    head = update(HEADS).where(HEADS.c.organization_id == chain.organization_id).values(position=7, hash=seventh["hash"])
    await chain.tamper(delete(EVENTS).where(EVENTS.c.position > 7), delete(CHECKPOINTS), head)


async def steal_the_next_position(chain: Chain) -> None:
    await chain.tamper(insert(EVENTS).values({**chain.event(11), "position": 11}))


async def steal_a_position(chain: Chain) -> None:
    """Put an event of one's own where another was."""
    fifth = (await chain.rows())[4]
    place = {name: fifth[name] for name in ("position", "hash", "key_id")}
    await chain.tamper(delete(EVENTS).where(EVENTS.c.position == 5), insert(EVENTS).values({**chain.event(5), **place}))


def gap_of(chain: Chain, last_hash: str, first: int = 5, last: int = 5) -> dict[str, Any]:
    place = {"organization_id": chain.organization_id, "first_position": first, "last_position": last, "last_hash": last_hash}
    return {**place, "prune_event_id": uuid4()}


async def forge_a_gap(chain: Chain) -> None:
    gap = ChainKeys("guessed").sign(AuditGap, gap_of(chain, (await chain.rows())[4]["hash"]))
    await chain.tamper(
        delete(EVENTS).where(EVENTS.c.position == 5), insert(GAPS).values({**gap, "key_id": chain.keys.current_id}), delete(CHECKPOINTS)
    )


async def forge_a_gap_over_everything(chain: Chain) -> None:
    await forge_a_gap(chain)
    await chain.tamper(update(GAPS).values(first_position=1, last_position=10))


async def borrow_a_gap(chain: Chain) -> None:
    """A gap that the service has signed, for another organization."""
    gap = chain.keys.sign(AuditGap, gap_of(Chain(chain.database), (await chain.rows())[4]["hash"]))
    await chain.tamper(delete(EVENTS).where(EVENTS.c.position == 5), insert(GAPS).values({**gap, "organization_id": chain.organization_id}))


async def replace_everything(chain: Chain) -> None:
    """A whole chain of one's own, made with a key of one's own."""
    await chain.tamper(*(delete(table) for table in (EVENTS, HEADS, CHECKPOINTS)))
    mine = Chain(chain.database, chain.organization_id, ChainKeys("guessed"))
    await mine.add(10)
    assert await mine.seal() == 10


async def begin_anew(chain: Chain) -> None:
    head = {"organization_id": chain.organization_id, "position": 0, "hash": first_hash(chain.organization_id), "sealed_at": BEGINNING}
    await chain.tamper(delete(EVENTS), delete(HEADS), insert(HEADS).values(chain.keys.sign(AuditChain, head)))


async def cover_with_a_gap(chain: Chain, position: int, keys: ChainKeys, told_by: UUID) -> None:
    gap = {**gap_of(chain, next(row["hash"] for row in await chain.rows() if row["position"] == position), position, position)}
    signed = keys.sign(AuditGap, {**gap, "prune_event_id": told_by})
    await chain.tamper(delete(EVENTS).where(EVENTS.c.position == position), insert(GAPS).values(signed))


async def make_a_gap_that_nothing_tells_of(chain: Chain) -> None:
    await cover_with_a_gap(chain, 5, chain.keys, uuid4())


async def let_something_else_tell_of_a_gap(chain: Chain) -> None:
    await cover_with_a_gap(chain, 5, chain.keys, (await chain.rows())[8]["id"])


async def cover_with_an_old_key(chain: Chain) -> None:
    await cover_with_a_gap(chain, 15, await chain.rotate(), uuid4())


async def cover_with_an_old_key_and_a_later_prune(chain: Chain) -> None:
    leaked = await chain.rotate()
    assert await chain.prune(AuditEvent.position == 12) == 1
    await cover_with_a_gap(chain, 15, leaked, (await chain.rows())[-1]["id"])


async def cover_with_an_old_key_and_an_earlier_prune(chain: Chain) -> None:
    assert await chain.prune(AuditEvent.position == 3) == 1
    told_by = (await chain.rows())[-1]["id"]
    await cover_with_a_gap(chain, 15, await chain.rotate(), told_by)


async def cover_the_first_of_a_new_key(chain: Chain) -> None:
    """Every event that is left before it was sealed with the old one."""
    leaked = await chain.rotate()
    told = {**chain.event(0), "action": "AUDIT_PRUNED"}
    await cover_with_a_gap(chain, 11, leaked, told["id"])
    await chain.tamper(insert(EVENTS).values(told))
    assert await chain.broken_at() == (11, "gap"), "before what shall tell of it is sealed"
    await chain.seal()


async def rewrite_the_end_with_an_old_key(chain: Chain) -> None:
    leaked = await chain.rotate()
    fourteenth = (await chain.rows())[13]
    head = {"organization_id": chain.organization_id, "position": 14, "hash": fourteenth["hash"], "sealed_at": BEGINNING}
    unseal = update(EVENTS).where(EVENTS.c.position > 14).values(position=None, hash=None, key_id=None, actor_id="mallory")
    await chain.tamper(unseal, update(HEADS).values(leaked.sign(AuditChain, head)))
    assert await Chain(chain.database, chain.organization_id, leaked).seal() == 6


async def set_back_with_an_old_key(chain: Chain) -> None:
    leaked = await chain.rotate()
    fifteenth = (await chain.rows())[14]
    head = {"organization_id": chain.organization_id, "position": 15, "hash": fifteenth["hash"], "sealed_at": BEGINNING}
    await chain.tamper(delete(EVENTS).where(EVENTS.c.position > 15), update(HEADS).values(leaked.sign(AuditChain, head)))
    await chain.add(1)
    assert await chain.seal() == 0, "signed anew it would pass"


async def check_with_an_old_key(chain: Chain) -> None:
    leaked = await chain.rotate()
    place = {"id": uuid4(), "organization_id": chain.organization_id, "position": 20, "hash": (await chain.rows())[19]["hash"]}
    await chain.tamper(insert(CHECKPOINTS).values(leaked.sign(AuditCheckpoint, {**place, "created_at": BEGINNING})))


MANIPULATIONS: dict[str, tuple[Callable[[Chain], Awaitable[None]], tuple[int, str]]] = {
    "delete the first": (lambda chain: chain.tamper(delete(EVENTS).where(EVENTS.c.position == 1)), (1, "missing")),
    "delete one in the middle": (lambda chain: chain.tamper(delete(EVENTS).where(EVENTS.c.position == 5)), (5, "missing")),
    "delete the last": (lambda chain: chain.tamper(delete(EVENTS).where(EVENTS.c.position == 10)), (10, "missing")),
    "delete all": (lambda chain: chain.tamper(delete(EVENTS)), (1, "missing")),
    "cut the tail": (lambda chain: chain.tamper(delete(EVENTS).where(EVENTS.c.position > 7)), (8, "missing")),
    "delete the head": (lambda chain: chain.tamper(delete(HEADS)), (1, "head")),
    "edit the head": (lambda chain: chain.tamper(update(HEADS).values(sealed_at=BEGINNING)), (10, "head")),
    "edit a checkpoint": (lambda chain: chain.tamper(update(CHECKPOINTS).values(created_at=BEGINNING)), (10, "checkpoint")),
    "swap positions": (swap_positions, (3, "altered")),
    "swap contents": (swap_contents, (3, "altered")),
    "move up": (move_up, (3, "altered")),
    "cut the tail and set the head back": (set_back, (7, "head")),
    "steal the next position": (steal_the_next_position, (11, "head")),
    "steal a position": (steal_a_position, (5, "altered")),
    "forge a gap": (forge_a_gap, (5, "gap")),
    "forge a gap over everything": (forge_a_gap_over_everything, (1, "gap")),
    "borrow a gap": (borrow_a_gap, (5, "gap")),
    "replace everything": (replace_everything, (1, "key")),
    "begin anew": (begin_anew, (10, "checkpoint")),
    "make a gap that nothing tells of": (make_a_gap_that_nothing_tells_of, (5, "gap")),
    "let something else tell of a gap": (let_something_else_tell_of_a_gap, (5, "gap")),
    "cover with an old key": (cover_with_an_old_key, (15, "gap")),
    "cover with an old key and a later prune": (cover_with_an_old_key_and_a_later_prune, (15, "gap")),
    "cover with an old key and an earlier prune": (cover_with_an_old_key_and_an_earlier_prune, (15, "gap")),
    "cover the first of a new key": (cover_the_first_of_a_new_key, (11, "gap")),
    "rewrite the end with an old key": (rewrite_the_end_with_an_old_key, (15, "key")),
    "set the head back with an old key": (set_back_with_an_old_key, (15, "head")),
    "make a checkpoint with an old key": (check_with_an_old_key, (20, "checkpoint")),
}


@pytest.mark.parametrize("name", MANIPULATIONS)
async def test_a_manipulation_is_found_where_it_was_made(name: str, chain: Chain) -> None:
    manipulate, expected = MANIPULATIONS[name]
    assert await chain.broken_at() is None
    await manipulate(chain)
    assert await chain.broken_at() == expected


async def test_a_head_that_was_true_once_is_behind_a_checkpoint_and_behind_what_is_known_outside(database_url: str) -> None:
    async with open_chain(database_url, 7) as chain:
        (old,) = await chain.rows(HEADS)
        await chain.tamper(delete(CHECKPOINTS))  # it would be too young for another
        await chain.add(3)
        await chain.seal()
        assert await chain.write_checkpoints() == 1
        through = (await chain.verify()).sealed_through
        assert through is not None
        await chain.tamper(delete(EVENTS).where(EVENTS.c.position > 7), update(HEADS).values(dict(old)))
        assert await chain.broken_at() == (10, "checkpoint")
        await chain.tamper(delete(CHECKPOINTS))
        assert await chain.broken_at() is None, "without a copy outside nothing is left that could tell"
        assert await chain.broken_at(known=Place(through.position, through.hash)) == (10, "known")
        await chain.add(3)
        await chain.seal()
        assert await chain.broken_at(known=Place(through.position, through.hash)) == (10, "known"), "nor does it help to go on"


async def test_what_was_sealed_after_the_newest_checkpoint_can_be_taken_back_unseen(database_url: str) -> None:
    """The README says so; a checkpoint of a later position would show it."""
    async with open_chain(database_url, 7) as chain:
        (old,) = await chain.rows(HEADS)
        through = (await chain.verify()).sealed_through
        assert through is not None
        await chain.add(3)
        await chain.seal()
        await chain.tamper(delete(EVENTS).where(EVENTS.c.position > 7), update(HEADS).values(dict(old)))
        assert await chain.broken_at(known=Place(through.position, through.hash)) is None
        assert (through.position, len(await chain.rows(CHECKPOINTS))) == (7, 1)


async def test_where_everything_was_removed_only_a_copy_outside_and_the_log_tell(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    through = (await chain.verify()).sealed_through
    assert through is not None
    await chain.tamper(*(delete(table) for table in (EVENTS, HEADS, GAPS, CHECKPOINTS)))
    known = Place(through.position, through.hash)
    assert (await chain.broken_at(), await chain.broken_at(known=known)) == (None, (10, "known"))
    await chain.prune()  # it begins the chain, and the first seal tells
    await chain.add(11)
    assert await chain.seal() == 11
    assert (await chain.broken_at(), await chain.broken_at(known=known)) == (None, (10, "known"))
    assert caplog.text.count(f"audit chain begins: organization {chain.organization_id}") == 1


async def test_a_chain_that_was_moved_to_another_organization_is_not_its_chain(chain: Chain) -> None:
    other = Chain(chain.database)
    await chain.tamper(*(update(table).values(organization_id=other.organization_id) for table in (EVENTS, HEADS, CHECKPOINTS)))
    assert await other.broken_at() == (1, "altered")
    assert await chain.broken_at() is None, "of its own nothing is left: what is known outside tells"
    assert await chain.broken_at(known=Place(10, (await other.rows())[9]["hash"])) == (10, "known")


async def test_nothing_is_sealed_on_a_broken_head_and_others_go_on(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    other = Chain(chain.database)
    of_it = HEADS.c.organization_id == chain.organization_id
    for manipulate in (steal_the_next_position, set_back, lambda chain: chain.tamper(delete(HEADS).where(of_it))):
        await manipulate(chain)
        before = await chain.rows(HEADS)
        await chain.add(1)
        await other.add(1)
        assert await chain.seal() == 1, "the other organization's"
        assert await chain.rows(HEADS) == before
        assert f"the audit chain of organization {chain.organization_id} is broken" in caplog.text
        assert "UPDATE" not in caplog.text
        caplog.clear()
        assert await other.broken_at() is None
    place = {"organization_id": chain.organization_id, "position": 7, "hash": "0" * 64, "sealed_at": BEGINNING}
    unsigned = {**place, "key_id": chain.keys.current_id, "mac": "0" * 64}
    await chain.tamper(insert(HEADS).values(unsigned), delete(CHECKPOINTS))
    assert await chain.write_checkpoints() == 1, "the other's: no checkpoint is made of a head that nobody has signed"


async def test_a_chain_without_a_head_does_not_begin_anew(chain: Chain) -> None:
    await chain.tamper(delete(HEADS), delete(EVENTS).where(EVENTS.c.position <= 3))
    await chain.add(1)
    assert await chain.seal() == 0, "it would fill the place of one that is gone"
    assert await chain.rows(HEADS) == []
    assert await chain.broken_at() == (1, "head")


async def test_the_head_of_another_future_of_the_chain_is_not_its_head(database_url: str) -> None:
    async with open_chain(database_url, 7) as chain:
        heads = []
        for _ in range(2):
            heads.append(dict((await chain.rows(HEADS))[0]))
            await chain.add(3)
            await chain.seal()
        await chain.tamper(delete(CHECKPOINTS), delete(EVENTS).where(EVENTS.c.position > 7), update(HEADS).values(heads[0]))
        await chain.add(3)
        await chain.seal()
        assert await chain.broken_at() is None
        await chain.tamper(update(HEADS).values(heads[1]))
        assert await chain.broken_at() == (10, "head")
