"""The sealer: gives every event its place in the chain of its organization, and notes hourly where each chain stands.

The order of a chain is the order of sealing. A transaction that commits late is sealed later; no event can slip in between or past it.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import BigInteger, Row, Select, Table, Update, Uuid, bindparam, exists, func, insert, or_, select, update
from sqlalchemy import cast as cast_to
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.audit.chain import HASHED, STRIDE, ChainKeys, first_head, link, raw_columns
from app.audit.findings import BrokenChainError
from app.core.clock import now
from app.core.identifiers import new_id
from app.db.engine import Database
from app.db.functions import each_array, text_at
from app.models import AuditChain, AuditCheckpoint, AuditEvent, AuditGap, AuditRetention

_log = logging.getLogger(__name__)

BATCH: Final = 1000
CHECKPOINT_EVERY: Final = timedelta(hours=1)

_EVENTS: Final = cast("Table", AuditEvent.__table__)
_HEADS: Final = cast("Table", AuditChain.__table__)
_CHECKPOINTS: Final = cast("Table", AuditCheckpoint.__table__)
_GAPS: Final = cast("Table", AuditGap.__table__)
_RETENTIONS: Final = cast("Table", AuditRetention.__table__)
_WAITING: Final = select(_EVENTS.c.organization_id).where(_EVENTS.c.position.is_(None)).distinct()
_UNSEALED: Final = (
    select(*raw_columns())
    .where(_EVENTS.c.organization_id == bindparam("organization_id"), _EVENTS.c.position.is_(None))
    .order_by(_EVENTS.c.occurred_at, _EVENTS.c.id)
    .limit(BATCH)
)


class _UnsealableError(Exception):
    """Events went away while they were being sealed: their places would stay empty."""


class Sealer:
    """Seals organization by organization. Any number of processes may do it at once: whoever has locked a head seals its chain."""

    def __init__(self, database: Database, keys: ChainKeys) -> None:
        self._database = database.for_jobs  # what concerns every tenant is done by who sees every tenant
        self._keys = keys
        self.broken: set[UUID] = set()  # organizations whose events wait, because their chain is

    async def lag_seconds(self) -> float:
        """How old the oldest event is that is not sealed; 0 when there is none. A probe of an index for each organization that waits."""
        async with self._database.open_read() as connection:
            oldest = (await connection.execute(_oldest_unsealed())).scalar_one()
        return max((now() - oldest).total_seconds(), 0) if oldest is not None else 0

    async def seal(self) -> int:
        """Seal everything that is committed now; returns how many events. A chain that is broken stays as it is, and is logged once."""
        async with self._database.open_read() as connection:
            waiting = (await connection.execute(_WAITING)).scalars().all()
        self.broken.intersection_update(waiting)  # another process may have gone on with a chain that was mended
        sealed = 0
        for organization_id in waiting:
            try:
                count = BATCH
                while count == BATCH:  # fewer are all there were: what has come since waits for the next time, or no batch would be large
                    count = await self._seal_batch(organization_id)
                    sealed += count
            except BrokenChainError as error:
                if organization_id not in self.broken:
                    self.broken.add(organization_id)
                    _log.error("the audit chain of organization %s is broken, nothing more of it is sealed: %s", organization_id, error)
            except _UnsealableError:
                _log.warning(
                    "events of organization %s went away while they were being sealed; the others are sealed next time", organization_id
                )
            else:
                self.broken.discard(organization_id)
        return sealed

    async def write_checkpoints(self) -> int:
        """Note where each chain stands that has moved, at most once an hour, in the database and in the log; returns how many."""
        recent = or_(_CHECKPOINTS.c.position >= _HEADS.c.position, _CHECKPOINTS.c.created_at > now() - CHECKPOINT_EVERY)
        is_noted = exists().where(_CHECKPOINTS.c.organization_id == _HEADS.c.organization_id, recent)
        async with self._database.open_read() as connection:
            heads = (await connection.execute(select(_HEADS).where(_HEADS.c.position > 0, ~is_noted))).all()
        return sum([await self._write_checkpoint(head) for head in heads if self._keys.have_signed(AuditChain, head)])

    async def _write_checkpoint(self, head: Row[Any]) -> bool:
        place = {"organization_id": head.organization_id, "position": head.position, "hash": head.hash}
        row = self._keys.sign(AuditCheckpoint, {"id": new_id(), **place, "created_at": now()})
        try:
            async with self._database.writer.begin() as connection:
                await connection.execute(insert(_CHECKPOINTS), row)
        except IntegrityError:  # another process was first
            return False
        _log.info("audit checkpoint: organization %s position %d hash %s", head.organization_id, head.position, head.hash)
        return True

    async def _seal_batch(self, organization_id: UUID) -> int:
        async with self._database.writer.begin() as connection:
            head = await self._lock_head(connection, organization_id)
            if head is None:  # another process seals it
                return 0
            rows = (await connection.execute(_UNSEALED, {"organization_id": organization_id})).all()
            if not rows:
                return 0
            key_id = await self._choose_key(connection, head)
            places = await self._place(rows, head.position, head.hash, key_id)
            await self._write_places(connection, places, key_id)
            _, position, hash_ = places[-1]
            moved = {"organization_id": organization_id, "position": position, "hash": hash_, "sealed_at": now()}
            statement = update(_HEADS).where(_HEADS.c.organization_id == organization_id)
            await connection.execute(statement.values(self._keys.sign(AuditChain, moved, key_id)))
        if not head.position:  # once in the life of an organization: a second line says that everything was removed
            _log.info("audit chain begins: organization %s", organization_id)
        return len(rows)

    async def _choose_key(self, connection: AsyncConnection, head: Row[Any]) -> str:
        """The current key, unless an older one has signed a gap whose event is still to be sealed: they go together.

        What the organization has chosen as its retention is signed anew with the first events of the current key: later an old one is
        not believed.
        """
        current = self._keys.current_id
        if head.key_id == current and head.position:
            return current
        of_it = (_EVENTS.c.organization_id == head.organization_id, _EVENTS.c.position.is_(None), _EVENTS.c.id == _GAPS.c.prune_event_id)
        begun = select(_GAPS.c.key_id).distinct().where(_GAPS.c.organization_id == head.organization_id, *of_it)
        oldest = self._keys.rank(head.key_id) if head.position else 0
        signed_with: Sequence[str] = (await connection.execute(begun)).scalars().all()
        older = [key_id for key_id in signed_with if oldest <= self._keys.rank(key_id) < self._keys.rank(current)]
        if older:
            return min(older, key=self._keys.rank)
        await self._renew_retention(connection, head, oldest)
        return current

    async def _renew_retention(self, connection: AsyncConnection, head: Row[Any], oldest: int) -> None:
        """Sign anew what the organization has chosen, unless a key has signed it that was older than the head's."""
        kept = select(_RETENTIONS).where(_RETENTIONS.c.organization_id == head.organization_id)
        retention = (await connection.execute(kept)).one_or_none()
        if retention is not None and retention.key_id != self._keys.current_id and self._keys.rank_of(AuditRetention, retention) >= oldest:
            values = {"organization_id": head.organization_id, "retention_days": retention.retention_days}
            statement = update(_RETENTIONS).where(_RETENTIONS.c.organization_id == head.organization_id, _RETENTIONS.c.mac == retention.mac)
            await connection.execute(statement.values(self._keys.sign(AuditRetention, values)))

    async def _write_places(self, connection: AsyncConnection, places: list[tuple[str, int, str]], key_id: str) -> None:
        try:
            written = await connection.execute(_seal_statement(), {"places": json.dumps(places), "signed_with": key_id})
        except IntegrityError:
            raise BrokenChainError("an event stands where none was sealed yet") from None
        if written.rowcount != len(places):
            raise _UnsealableError

    async def _lock_head(self, connection: AsyncConnection, organization_id: UUID) -> Row[Any] | None:
        of_it = select(_HEADS).where(_HEADS.c.organization_id == organization_id)
        head = (await connection.execute(of_it.with_for_update(skip_locked=True))).one_or_none()
        if head is None:
            if (await connection.execute(of_it)).one_or_none() is not None or not await self._begin_chain(connection, organization_id):
                return None
            head = (await connection.execute(of_it)).one()
        if not self._keys.have_signed(AuditChain, head):
            raise BrokenChainError(f"no key that is set has signed its head at position {head.position}")
        if head.key_id != self._keys.current_id:
            await self._require_no_newer_key(connection, head)
        return head

    async def _require_no_newer_key(self, connection: AsyncConnection, head: Row[Any]) -> None:
        """A head that was set back with an old key would hide what was cut off if it were signed anew."""
        before = select(_EVENTS.c.key_id).where(_EVENTS.c.organization_id == head.organization_id, _EVENTS.c.position <= head.position)
        last = (await connection.execute(before.order_by(_EVENTS.c.position.desc()).limit(1))).scalar_one_or_none()
        if self._keys.rank(last) > self._keys.rank(head.key_id):
            raise BrokenChainError(f"a key that was no longer in use has signed its head at position {head.position}")

    async def _begin_chain(self, connection: AsyncConnection, organization_id: UUID) -> bool:
        sealed = select(_EVENTS.c.id).where(_EVENTS.c.organization_id == organization_id, _EVENTS.c.position.is_not(None)).limit(1)
        if (await connection.execute(sealed)).one_or_none() is not None:
            begun = select(_HEADS.c.organization_id).where(_HEADS.c.organization_id == organization_id)
            if (await connection.execute(begun)).one_or_none() is not None:  # by another process, since it was looked for
                return False
            raise BrokenChainError("its head is gone")
        try:
            async with connection.begin_nested():
                await connection.execute(insert(_HEADS), self._keys.sign(AuditChain, first_head(organization_id, now())))
        except IntegrityError:  # another process was first
            return False
        return True

    async def _place(self, rows: Sequence[Row[Any]], position: int, before: str, key_id: str) -> list[tuple[str, int, str]]:
        """Id, position and hash of each event, after the one at ``position``."""
        key, places = self._keys[key_id], []
        for number, row in enumerate(rows, 1):
            before = link(key, before, dict(zip(HASHED, row, strict=True)) | {"position": position + number, "key_id": key_id})
            places.append((str(row.id), position + number, before))
            if not number % STRIDE:
                await asyncio.sleep(0)
        return places


def _oldest_unsealed() -> Select[Any]:
    """Goes from organization to organization in the index of what is not sealed: behind a broken chain very many events may wait.

    Everything is asked for in the order of that index, and as a range of it, or SQLite would take another one that holds what is sealed.
    """
    of_, at = _EVENTS.c.organization_id, _EVENTS.c.occurred_at
    first = select(of_).where(_EVENTS.c.position.is_(None)).order_by(of_, at).limit(1)
    waiting = select(first.scalar_subquery().label("organization_id")).cte("waiting", recursive=True)
    following = first.where(of_ > waiting.c.organization_id).correlate(waiting).scalar_subquery()
    waiting = waiting.union_all(select(following).where(waiting.c.organization_id.is_not(None)))
    oldest = first.with_only_columns(at).where(of_ >= waiting.c.organization_id).correlate(waiting).scalar_subquery()
    return select(func.min(oldest)).select_from(waiting)


def _seal_statement() -> Update:
    """All of a batch in one statement: the places come as one parameter, a JSON array of arrays."""
    place = each_array("places").c.value
    return (
        update(_EVENTS)
        .where(_EVENTS.c.id == cast_to(text_at(place, 0), Uuid()))
        .values(position=cast_to(text_at(place, 1), BigInteger), hash=text_at(place, 2), key_id=bindparam("signed_with"))
    )
