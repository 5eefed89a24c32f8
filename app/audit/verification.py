"""Verifies a chain: walks it from one position to the next, in bounded memory, and names the first place where it is broken."""

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast
from uuid import UUID

from sqlalchemy import Row, Select, String, Table, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.chain import HASHED, STRIDE, ChainKeys, first_hash, link, raw_columns
from app.audit.findings import Break, BreakKind, Place, SealedThrough, Verification
from app.audit.gaps import TELLS, TOLD, is_left_by_a_prune
from app.db.base import Base
from app.db.confinement import Tenants
from app.db.engine import Database
from app.db.listing import wire_columns
from app.db.snapshot import open_snapshot
from app.models import AuditChain, AuditCheckpoint, AuditEvent, AuditGap

MAX_POSITIONS: Final = 100_000
CHUNK: Final = 500

_EVENTS: Final = cast("Table", AuditEvent.__table__)
_HEADS: Final = cast("Table", AuditChain.__table__)
_GAPS: Final = cast("Table", AuditGap.__table__)
_CHECKPOINTS: Final = cast("Table", AuditCheckpoint.__table__)


async def verify(
    database: Database, keys: ChainKeys, organization_id: UUID, *, from_position: int = 1, known: Place | None = None
) -> Verification:
    """Check up to 100,000 events of a chain, of one moment, and at its end the head and what lies beyond it.

    ``known`` is compared where the walk passes its position; one that was pruned since, and is not the last of its gap, cannot be.
    """
    async with open_snapshot(database, Tenants.exactly(organization_id)) as connection:
        return await _Walk(connection, keys, organization_id, known).run(from_position)


@dataclass(frozen=True, slots=True)
class _Mark:
    """What somebody says the hash of a position is."""

    place: Place
    kind: BreakKind
    rank: int
    """Of the key that has signed it; -1 = none has."""


class _BrokenError(Exception):
    """Ends a walk."""

    def __init__(self, found: Break) -> None:
        super().__init__(found)
        self.found = found


class _Walk:
    """Goes along one chain. ``position`` and ``hash`` are those of the last event, or the last of a gap, that is behind it."""

    def __init__(self, connection: AsyncConnection, keys: ChainKeys, organization_id: UUID, known: Place | None) -> None:
        self._connection = connection
        self._keys = keys
        self._organization_id = organization_id
        self._known = known
        self._head: Row[Any] | None = None
        self._marks: list[_Mark] = []
        self._checked = 0
        self._rank = 0  # of the newest key that has sealed what is behind: what an older one says of later is not believed
        self.position = 0
        self.hash = first_hash(organization_id)

    async def run(self, from_position: int) -> Verification:
        found, next_position = None, None
        try:
            self._head = next(iter(await self._read(select(_HEADS), AuditChain, BreakKind.HEAD)), None)
            await self._start_behind(min(from_position - 1, self._end))
            while self.position < self._end and self._checked < MAX_POSITIONS:
                await self._go_on()
            if self.position < self._end:
                next_position = self.position + 1
            else:
                await self._look_beyond()
        except _BrokenError as error:
            found = error.found
        head = self._head
        through = SealedThrough(head.position, head.hash, head.sealed_at) if head is not None and head.position else None
        return Verification(self._checked, found, through, await self._count_unsealed(), next_position)

    @property
    def _end(self) -> int:
        return self._head.position if self._head is not None else 0

    async def _start_behind(self, position: int) -> None:
        """Stand on a position, or on the end of the gap it lies in."""
        if position > 0:
            before = select(_EVENTS.c.position, _EVENTS.c.hash, _EVENTS.c.key_id).where(_EVENTS.c.position <= position)
            last = before.order_by(_EVENTS.c.position.desc()).limit(1)
            event = (await self._connection.execute(self._of_it(last, _EVENTS))).one_or_none()
            self._rank = max(self._keys.rank(event.key_id), 0) if event is not None else 0
            if event is not None and event.position == position:
                self.position, self.hash = position, str(event.hash)
            else:
                gaps = await self._read_gaps(position, position)
                if not gaps:
                    self._break(BreakKind.MISSING, position)
                self._check_gap(gaps[0])
                self.position, self.hash = gaps[0].last_position, gaps[0].last_hash
        await self._read_marks(self.position, self.position)
        self._check_marks(self.position)

    async def _go_on(self) -> None:
        """The next events, and the gaps between them."""
        chunk = select(*raw_columns(), type_coerce(_EVENTS.c.hash, String).label("hash"))
        chunk = chunk.where(_EVENTS.c.position > self.position, _EVENTS.c.position <= self._end).order_by(_EVENTS.c.position).limit(CHUNK)
        rows = (await self._connection.execute(self._of_it(chunk, _EVENTS))).all()
        last = rows[-1].position if len(rows) == CHUNK else self._end
        gaps = await self._read_gaps(self.position + 1, last)
        await self._read_marks(self.position + 1, last)
        for number, row in enumerate(rows):
            if not number % STRIDE:
                await asyncio.sleep(0)
            gaps = self._pass_gaps(gaps, row.position)
            if gaps and gaps[0].first_position <= row.position:
                self._break(BreakKind.GAP, row.position, row.id)
            self._check_event(row)
        self._pass_gaps(gaps, last + 1)

    def _pass_gaps(self, gaps: Sequence[Row[Any]], until: int) -> Sequence[Row[Any]]:
        """Step over the gaps before a position; returns the others."""
        while self.position + 1 < until:
            if not gaps or gaps[0].first_position > self.position + 1:
                self._break(BreakKind.MISSING, self.position + 1)
            gap, gaps = gaps[0], gaps[1:]
            self._check_gap(gap)
            if gap.first_position != self.position + 1 or gap.last_position >= until:
                self._break(BreakKind.GAP, self.position + 1)
            self._move_to(gap.last_position, gap.last_hash)
        return gaps

    def _check_gap(self, gap: Row[Any]) -> None:
        if not is_left_by_a_prune(self._keys, gap, self._head.key_id if self._head is not None else None):
            self._break(BreakKind.GAP, gap.first_position)

    def _check_event(self, row: Row[Any]) -> None:
        key = self._keys.find(row.key_id)
        if key is None:
            self._break(BreakKind.KEY if row.key_id else BreakKind.ALTERED, row.position, row.id)
        expected = link(key, self.hash, dict(zip(HASHED, row, strict=False)))
        if row.position != self.position + 1 or not hmac.compare_digest(expected.encode(), str(row.hash).encode()):
            self._break(BreakKind.ALTERED, row.position, row.id)
        rank = self._keys.rank(row.key_id)
        if rank < self._rank:
            self._break(BreakKind.KEY, row.position, row.id)
        self._rank = rank
        self._checked += 1
        self._move_to(row.position, row.hash)

    def _move_to(self, position: int, hash_: str) -> None:
        self.position, self.hash = position, hash_
        self._check_marks(position)

    def _check_marks(self, position: int) -> None:
        """Compare with what is said of this position. What is said of one inside a gap is behind us then."""
        while self._marks and self._marks[0].place.position <= position:
            mark = self._marks.pop(0)
            is_met = mark.place.position != position or hmac.compare_digest(mark.place.hash.encode(), self.hash.encode())
            if mark.rank < self._rank or not is_met:
                self._break(mark.kind, mark.place.position)

    async def _look_beyond(self) -> None:
        """At the end: whether it is the head, and nothing lies beyond it."""
        head = self._head
        if head is not None and not (self._keys.rank_of(AuditChain, head) >= self._rank and head.hash == self.hash):
            self._break(BreakKind.HEAD, head.position)
        beyond = select(type_coerce(_EVENTS.c.id, String).label("id")).where(_EVENTS.c.position > self._end)
        event = (await self._connection.execute(self._of_it(beyond.order_by(_EVENTS.c.position).limit(1), _EVENTS))).one_or_none()
        if event is not None:
            self._break(BreakKind.HEAD, self._end + 1, event.id)
        gaps = select(_GAPS.c.first_position).where(_GAPS.c.last_position > self._end).limit(1)
        if (await self._connection.execute(self._of_it(gaps, _GAPS))).one_or_none() is not None:
            self._break(BreakKind.GAP, self._end + 1)
        await self._read_marks(self._end + 1, None)
        for mark in self._marks:
            self._break(mark.kind, mark.place.position)

    async def _read_gaps(self, first: int, last: int) -> Sequence[Row[Any]]:
        touching = select(*wire_columns(AuditGap), *TOLD).select_from(AuditGap).outerjoin(AuditEvent, TELLS)
        touching = touching.where(_GAPS.c.last_position >= first, _GAPS.c.first_position <= last).order_by(_GAPS.c.first_position)
        return await self._read(touching, AuditGap, BreakKind.GAP)

    async def _read_marks(self, first: int, last: int | None) -> None:
        """What is said, by checkpoints and by the caller, of the positions from ``first`` on."""
        within = select(_CHECKPOINTS).where(_CHECKPOINTS.c.position >= first).order_by(_CHECKPOINTS.c.position)
        if last is not None:
            within = within.where(_CHECKPOINTS.c.position <= last)
        for checkpoint in await self._read(within, AuditCheckpoint, BreakKind.CHECKPOINT):
            place, rank = Place(checkpoint.position, checkpoint.hash), self._keys.rank_of(AuditCheckpoint, checkpoint)
            self._marks.append(_Mark(place, BreakKind.CHECKPOINT, rank))
        known = self._known
        if known is not None and known.position >= first and (last is None or known.position <= last):
            self._marks.append(_Mark(known, BreakKind.KNOWN, self._keys.rank(self._keys.current_id)))
        self._marks.sort(key=lambda mark: mark.place.position)

    async def _count_unsealed(self) -> int:
        count = select(func.count()).select_from(_EVENTS).where(_EVENTS.c.position.is_(None))
        return int((await self._connection.execute(self._of_it(count, _EVENTS))).scalar_one())

    async def _read(self, statement: Select[Any], model: type[Base], kind: BreakKind) -> Sequence[Row[Any]]:
        """Rows of a table beside the trail; on SQLite anything may have been put in their columns."""
        try:
            rows: Sequence[Row[Any]] = (await self._connection.execute(self._of_it(statement, cast("Table", model.__table__)))).all()
        except (ValueError, TypeError):
            self._break(kind, self.position + 1)
        return rows

    def _of_it(self, statement: Select[Any], table: Table) -> Select[Any]:
        return statement.where(table.c.organization_id == self._organization_id)

    def _break(self, kind: BreakKind, position: int, event_id: Any = None) -> NoReturn:
        raise _BrokenError(Break(position, kind, _as_uuid(event_id)))


def _as_uuid(value: Any) -> UUID | None:
    try:
        return value if value is None or isinstance(value, UUID) else UUID(value)
    except (ValueError, TypeError, AttributeError):
        return None
