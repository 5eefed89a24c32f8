"""Takes events out of a chain so that the rest of it can still be verified: what is gone leaves a signed gap."""

import asyncio
import hmac
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, String, and_, delete, insert, or_, select, type_coerce
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from app.audit.chain import HASHED, STRIDE, ChainKeys, first_hash, first_head, link
from app.audit.findings import BrokenChainError
from app.audit.gaps import TELLS, TOLD, is_left_by_a_prune
from app.core.clock import now
from app.core.events import AuditAction
from app.db.listing import wire_columns
from app.db.session import TenantSession
from app.models import AuditChain, AuditEvent, AuditGap

PAGE: Final = 1000
# Gaps that are written at once; their neighbours are looked up by as many parameters.
GAPS_AT_ONCE: Final = 500

_before = aliased(AuditEvent)
# Chosen events as they are stored, the hashed columns first, each with the hash of what it is linked to.
_LINKED: Final = (
    select(
        *(type_coerce(getattr(AuditEvent, name), String).label(name) for name in HASHED),
        type_coerce(AuditEvent.hash, String).label("hash"),
        type_coerce(_before.hash, String).label("hash_before"),
        _before.key_id.label("key_before"),
        AuditGap.last_hash.label("gap_hash_before"),
    )
    .outerjoin(_before, and_(_before.organization_id == AuditEvent.organization_id, _before.position == AuditEvent.position - 1))
    .outerjoin(AuditGap, and_(AuditGap.organization_id == AuditEvent.organization_id, AuditGap.last_position == AuditEvent.position - 1))
    .order_by(AuditEvent.position)
)


@dataclass(slots=True)
class Run:
    """Positions that go, one after the other, and the hash of the last."""

    first: int
    last: int
    last_hash: str


class Pruning:
    """One prune in one organization, recorded by the event with the id ``event_id``. What tells of prunes is never pruned.

    The session is pinned, and runs as the role for jobs. The chain stands still from the first statement to the commit. A sealed event
    goes only as the one that was sealed: a gap in place of one that was altered would hide it. Memory is bounded; each event costs a row
    that is read, a hash and a row that is removed.
    """

    def __init__(self, session: TenantSession, keys: ChainKeys, organization_id: UUID, event_id: UUID) -> None:
        self._session = session
        self._keys = keys
        self._organization_id = organization_id
        self._event_id = event_id
        self._head_key_id: str | None = None

    async def prune(self, *chosen: ColumnElement[bool]) -> int:
        """Remove every event that meets the conditions, sealed or not; returns how many.

        Raises:
            BrokenChainError: the chain is, at one of them or beside it; the transaction must not be committed.
        """
        conditions = (*chosen, AuditEvent.action != AuditAction.AUDIT_PRUNED.value)
        if await self._lock_head() is None:
            await self._begin_chain()
        sealed = await self._prune_sealed(conditions, at_most=None)
        unsealed = select(AuditEvent.id).where(*conditions, AuditEvent.position.is_(None)).limit(1)
        if (await self._session.execute(unsealed)).one_or_none() is None:
            return sealed
        removed = await self._session.execute(delete(AuditEvent).where(*conditions, AuditEvent.position.is_(None)))
        return sealed + int(removed.rowcount)  # type: ignore[attr-defined] # the result of a DELETE has it

    async def prune_oldest(self, at_most: int, *chosen: ColumnElement[bool]) -> int:
        """The same for sealed events only, from the beginning of the chain on; ``at_most`` so many.

        Raises:
            BrokenChainError: see ``prune``.
        """
        return await self._prune_sealed((*chosen, AuditEvent.action != AuditAction.AUDIT_PRUNED.value), at_most)

    async def _prune_sealed(self, conditions: Sequence[ColumnElement[bool]], at_most: int | None) -> int:
        head = await self._lock_head()
        if head is None:
            return 0
        # A row that claims a position and was never sealed is none of the chain's: it stays, and verifying names it.
        sealed = (*conditions, AuditEvent.position.between(1, head.position), AuditEvent.hash.is_not(None))
        count, last, runs = 0, 0, list[Run]()
        while at_most is None or count < at_most:
            size = PAGE if at_most is None else min(PAGE, at_most - count)
            rows = (await self._session.execute(_LINKED.where(*sealed, AuditEvent.position > last).limit(size))).all()
            if not rows:
                break
            await self._check_links(rows)
            count, last = count + len(rows), rows[-1].position
            runs = _extend(runs, rows)
            while len(runs) > GAPS_AT_ONCE:  # the last one may go on
                await self._write_gaps(runs[:GAPS_AT_ONCE])
                del runs[:GAPS_AT_ONCE]
        if count:
            await self._write_gaps(runs)
            await self._session.execute(delete(AuditEvent).where(*sealed, AuditEvent.position <= last))
        return count

    async def _lock_head(self) -> Row[Any] | None:
        heads = await self._read(select(*wire_columns(AuditChain)).with_for_update(), position=1)
        for head in heads:
            if not self._keys.have_signed(AuditChain, head):
                _refuse(head.position)
            self._head_key_id = head.key_id
            if head.key_id != self._keys.current_id:
                await self._require_no_newer_key(head)
        return next(iter(heads), None)

    async def _require_no_newer_key(self, head: Row[Any]) -> None:
        last = select(AuditEvent.key_id).where(AuditEvent.position <= head.position).order_by(AuditEvent.position.desc()).limit(1)
        if self._keys.rank((await self._session.execute(last)).scalar_one_or_none()) > self._keys.rank(head.key_id):
            _refuse(head.position)

    async def _begin_chain(self) -> None:
        """Begin a chain that has no head yet: without one to lock, a sealer would seal what goes meanwhile."""
        sealed = select(AuditEvent.id).where(AuditEvent.position.is_not(None)).limit(1)
        if (await self._session.execute(sealed)).one_or_none() is not None:
            _refuse(1)
        with suppress(IntegrityError):  # a sealer was first, and its transaction has ended
            async with self._session.attempt():
                await self._session.execute(insert(AuditChain), self._keys.sign(AuditChain, first_head(self._organization_id, now())))

    async def _check_links(self, rows: Iterable[Any]) -> None:
        """Whether these are the events that were sealed. Who has signed the gaps beside them is seen when theirs is written."""
        for number, row in enumerate(rows):
            if not number % STRIDE:
                await asyncio.sleep(0)
            found = (row.hash_before, row.gap_hash_before) if row.position > 1 else (first_hash(self._organization_id), None)
            key, before = self._keys.find(row.key_id), [hash_ for hash_ in found if hash_ is not None]
            if key is None or len(before) != 1 or self._keys.rank(row.key_id) < self._keys.rank(row.key_before):
                _refuse(row.position)
            expected = link(key, before[0], dict(zip(HASHED, row, strict=False)))
            if not hmac.compare_digest(expected.encode(), str(row.hash).encode()):
                _refuse(row.position)

    async def _write_gaps(self, runs: Sequence[Run]) -> None:
        """Write gaps for runs in ascending order, each grown together with the gaps beside it."""
        ends, starts = [run.first - 1 for run in runs], [run.last + 1 for run in runs]
        here = or_(AuditGap.first_position.in_([run.first for run in runs]), AuditGap.last_position.in_([run.last for run in runs]))
        overlapping = (await self._session.execute(select(AuditGap.first_position).where(here).limit(1))).scalar_one_or_none()
        if overlapping is not None:  # it says that they are gone already
            _refuse(overlapping)
        beside = select(*wire_columns(AuditGap), *TOLD).select_from(AuditGap).outerjoin(AuditEvent, TELLS)
        beside = beside.where(or_(AuditGap.last_position.in_(ends), AuditGap.first_position.in_(starts)))
        gaps = await self._read(beside, position=runs[0].first)
        for gap in gaps:
            is_own = gap.prune_event_id == self._event_id and self._keys.have_signed(
                AuditGap, gap
            )  # what tells of it comes with the commit
            if not is_own and not is_left_by_a_prune(self._keys, gap, self._head_key_id):
                _refuse(gap.first_position)
        merged = _merge(runs, gaps)
        if gaps:
            await self._session.execute(delete(AuditGap).where(AuditGap.first_position.in_([gap.first_position for gap in gaps])))
        await self._session.execute(insert(AuditGap), [self._row(run) for run in merged])

    async def _read(self, statement: Select[Any], position: int) -> Sequence[Row[Any]]:
        """Rows of a table beside the trail. On SQLite anything may have been put in their columns."""
        try:
            rows: Sequence[Row[Any]] = (await self._session.execute(statement)).all()
        except (ValueError, TypeError):
            _refuse(position)
        return rows

    def _row(self, run: Run) -> dict[str, Any]:
        place = {"first_position": run.first, "last_position": run.last, "last_hash": run.last_hash}
        return self._keys.sign(AuditGap, {"organization_id": self._organization_id, **place, "prune_event_id": self._event_id})


def _refuse(position: Any) -> NoReturn:
    raise BrokenChainError(f"The chain of this audit trail is broken at position {position}, so nothing of it is pruned; verify it.")


def _extend(runs: list[Run], rows: Iterable[Any]) -> list[Run]:
    """The runs with the next positions, which come in ascending order."""
    for row in rows:
        if runs and runs[-1].last + 1 == row.position:
            runs[-1].last, runs[-1].last_hash = row.position, row.hash
        else:
            runs.append(Run(row.position, row.position, row.hash))
    return runs


def _merge(runs: Iterable[Run], gaps: Iterable[Row[Any]]) -> list[Run]:
    """Runs and the gaps beside them, as few as possible."""
    parts = [*runs, *(Run(gap.first_position, gap.last_position, gap.last_hash) for gap in gaps)]
    merged: list[Run] = []
    for part in sorted(parts, key=lambda part: part.first):
        if merged and merged[-1].last + 1 == part.first:
            merged[-1] = Run(merged[-1].first, part.last, part.last_hash)
        else:
            merged.append(part)
    return merged
