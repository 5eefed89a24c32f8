"""Takes events out of a chain so that the rest of it can still be verified: what is gone leaves a signed gap."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.chain import ChainKeys
from app.core.events import AuditAction
from app.db.repository import wire_columns
from app.models import AuditChain, AuditEvent, AuditGap

PAGE: Final = 5000
# Gaps that are written at once; their neighbours are looked up by as many parameters.
GAPS_AT_ONCE: Final = 500


@dataclass(slots=True)
class Run:
    """Positions that go, one after the other, and the hash of the last."""

    first: int
    last: int
    last_hash: str


class Pruning:
    """One prune in one organization, recorded by the event with the id ``event_id``. What tells of prunes is never pruned.

    The session is pinned, and runs as the role for jobs. The chain stands still from the first statement to the commit. Memory is
    bounded; each event costs a row that is read and a row that is removed.
    """

    def __init__(self, session: AsyncSession, keys: ChainKeys, organization_id: UUID, event_id: UUID) -> None:
        self._session = session
        self._keys = keys
        self._organization_id = organization_id
        self._event_id = event_id

    async def prune(self, *chosen: ColumnElement[bool]) -> int:
        """Remove every event that meets the conditions, sealed or not; returns how many."""
        conditions = (*chosen, AuditEvent.action != AuditAction.AUDIT_PRUNED.value)
        sealed = await self._prune_sealed(conditions, at_most=None)
        unsealed = select(AuditEvent.id).where(*conditions, AuditEvent.position.is_(None)).limit(1)
        if (await self._session.execute(unsealed)).one_or_none() is None:
            return sealed
        removed = await self._session.execute(delete(AuditEvent).where(*conditions, AuditEvent.position.is_(None)))
        return sealed + int(removed.rowcount)  # type: ignore[attr-defined] # the result of a DELETE has it

    async def prune_oldest(self, at_most: int, *chosen: ColumnElement[bool]) -> int:
        """The same for sealed events only, from the beginning of the chain on; ``at_most`` so many."""
        return await self._prune_sealed((*chosen, AuditEvent.action != AuditAction.AUDIT_PRUNED.value), at_most)

    async def _prune_sealed(self, conditions: Sequence[ColumnElement[bool]], at_most: int | None) -> int:
        end = (await self._session.execute(select(AuditChain.position).with_for_update())).scalar_one_or_none()
        if end is None:
            return 0
        # A row that claims a position and was never sealed is none of the chain's: it stays, and verifying names it.
        sealed = (*conditions, AuditEvent.position <= end, AuditEvent.hash.is_not(None))
        count, last, runs = 0, 0, list[Run]()
        while at_most is None or count < at_most:
            size = PAGE if at_most is None else min(PAGE, at_most - count)
            page = select(AuditEvent.position, AuditEvent.hash).where(*sealed, AuditEvent.position > last)
            rows = (await self._session.execute(page.order_by(AuditEvent.position).limit(size))).all()
            if not rows:
                break
            count, last = count + len(rows), rows[-1].position
            runs = _extend(runs, rows)
            while len(runs) > GAPS_AT_ONCE:  # the last one may go on
                await self._write_gaps(runs[:GAPS_AT_ONCE])
                del runs[:GAPS_AT_ONCE]
        if count:
            await self._write_gaps(runs)
            await self._session.execute(delete(AuditEvent).where(*sealed, AuditEvent.position <= last))
        return count

    async def _write_gaps(self, runs: Sequence[Run]) -> None:
        """Write gaps for runs in ascending order, each grown together with the gaps beside it."""
        ends, starts = [run.first - 1 for run in runs], [run.last + 1 for run in runs]
        beside = select(*wire_columns(AuditGap)).where(or_(AuditGap.last_position.in_(ends), AuditGap.first_position.in_(starts)))
        # One that nobody has signed is left alone: it must not become a part of one that is.
        gaps = [gap for gap in (await self._session.execute(beside)).all() if self._keys.have_signed(AuditGap, gap)]
        merged = _merge(runs, gaps)
        if gaps:
            await self._session.execute(delete(AuditGap).where(AuditGap.first_position.in_([gap.first_position for gap in gaps])))
        await self._session.execute(insert(AuditGap), [self._row(run) for run in merged])

    def _row(self, run: Run) -> dict[str, Any]:
        place = {"first_position": run.first, "last_position": run.last, "last_hash": run.last_hash}
        return self._keys.sign(AuditGap, {"organization_id": self._organization_id, **place, "prune_event_id": self._event_id})


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
