"""Refused attempts: collected in memory, written in batches, at most one row for each caller, resource, action and minute.

They are written off the request's way on purpose: a refusal that waits for a write would take longer than the 404 of something
that does not exist, and so tell the caller what it must not know.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.core.actors import Actor, Identity
from app.core.clock import now
from app.core.identifiers import new_id

WINDOW = timedelta(minutes=1)
MAX_KEYS = 10_000

Key = tuple[Actor, Actor | None, UUID, str]


@dataclass(slots=True)
class _Tally:
    event: dict[str, Any]
    written_at: datetime | None = None
    unwritten: int = 1


@dataclass(slots=True)
class DeniedAttempts:
    """The refusals of this process that wait to be written. Bounded: past 10,000 different ones in a minute, new ones are only counted."""

    overflow: int = 0
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)  # held from ``due`` to ``mark_written``, or a batch would be written twice
    _tallies: dict[Key, _Tally] = field(default_factory=dict)

    def add(self, identity: Identity, event: dict[str, Any], asked: str) -> None:
        """Count one refusal; the latest event of a key stands for all of them."""
        key = (identity.actor, identity.principal, event["resource_id"], asked)
        tally = self._tallies.get(key)
        if tally is not None:
            tally.event = event
            tally.unwritten += 1
        elif len(self._tallies) < MAX_KEYS:
            self._tallies[key] = _Tally(event)
        else:
            self.overflow += 1

    def due(self, *, all_of_them: bool = False) -> dict[Key, dict[str, Any]]:
        """The events to write now: the first of each key at once, later ones when their minute is over (or ``all_of_them``)."""
        moment = now()
        found = {}
        for key, tally in list(self._tallies.items()):
            is_over = tally.written_at is None or moment - tally.written_at >= WINDOW
            if tally.unwritten and (is_over or all_of_them):
                # A new id each time: a write whose outcome was unknown must not stand in the way of the next.
                found[key] = tally.event | {"id": new_id(), "details": tally.event["details"] | {"attempts": tally.unwritten}}
            elif is_over and not tally.unwritten:
                del self._tallies[key]
        return found

    def mark_written(self, written: Mapping[Key, dict[str, Any]]) -> None:
        """Say that events of ``due`` are durable; those that came meanwhile stay unwritten."""
        moment = now()
        for key, event in written.items():
            tally = self._tallies[key]
            tally.written_at, tally.unwritten = moment, tally.unwritten - event["details"]["attempts"]
