"""The hash chain of the audit trail: what is hashed and how it is signed. Pure functions, so that the promise can be read on one page.

Every event of an organization gets a position, counted from 1, and ``hash = HMAC-SHA256(key, hash before it || columns as JSON)``.
The first is linked to the organization itself. Heads, gaps and checkpoints are signed with the same keys, each under the name of its table.
"""

import hmac
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Table, type_coerce
from sqlalchemy.types import String

from app.db.base import Base
from app.models import AuditEvent
from app.models.audit_event import MAX_KEY_ID

_EVENTS: Table = AuditEvent.__table__  # type: ignore[assignment] # it is one
# Events hashed at one go, about a millisecond: nothing else in the process waits longer.
STRIDE: Final = 100
_SIGNATURE: Final = frozenset({"key_id", "mac"})
# In the order of their names, so that the JSON has one form. Whatever column is added is hashed, too.
HASHED: Final = tuple(sorted(column.name for column in _EVENTS.columns if column.name != "hash"))


def raw_columns() -> tuple[ColumnElement[Any], ...]:
    """The hashed columns exactly as they are stored, for no difference to get lost in a conversion."""
    return tuple(type_coerce(_EVENTS.c[name], String).label(name) for name in HASHED)


def first_hash(organization_id: UUID) -> str:
    """What the first event is linked to: a chain cannot be moved to another organization."""
    return sha256(f"saasbase audit chain of {organization_id}".encode()).hexdigest()


def first_head(organization_id: UUID, at: datetime) -> dict[str, Any]:
    """The head of a chain that has no event yet."""
    return {"organization_id": organization_id, "position": 0, "hash": first_hash(organization_id), "sealed_at": at}


def link(key: bytes, before: str, columns: Mapping[str, Any]) -> str:
    """The hash of an event whose columns come in the order of their names, after the event with the hash ``before``."""
    stored = {name: value for name, value in columns.items() if value is not None}
    return hmac.digest(key, f"{before}{json.dumps(stored, default=str, separators=(',', ':'))}".encode(), "sha256").hex()


class ChainKeys:
    """The key that signs, and those that have signed before, the oldest first; each is known by the beginning of its SHA-256.

    A key signs until the next one does. So what is signed with one says nothing of what came later: else who has learned a key that is
    no longer in use could undo what is sealed since.
    """

    def __init__(self, current: str, previous: Iterable[str] = ()) -> None:
        in_order = [*(key for key in previous if key != current), current]
        self._keys = {_id_of(key.encode()): key.encode() for key in in_order}
        self._ranks = {key_id: rank for rank, key_id in enumerate(self._keys)}
        self.current_id = _id_of(current.encode())

    def __getitem__(self, key_id: str) -> bytes:
        """The key with that id, which is one of them."""
        return self._keys[key_id]

    @property
    def current(self) -> bytes:
        """The key that signs."""
        return self._keys[self.current_id]

    def find(self, key_id: str | None) -> bytes | None:
        """The key with that id."""
        return self._keys.get(key_id) if key_id is not None else None

    def rank(self, key_id: str | None) -> int:
        """Which in the order of time the key with that id is; -1 when there is none."""
        return self._ranks.get(key_id, -1) if key_id is not None else -1

    def sign(self, model: type[Base], values: Mapping[str, Any], key_id: str | None = None) -> dict[str, Any]:
        """The values of a row that says something about a chain, with those that sign it, by the current key or the one with that id."""
        key_id = key_id or self.current_id
        return {**values, "key_id": key_id, "mac": _mac(self._keys[key_id], model, values)}

    def rank_of(self, model: type[Base], row: Any) -> int:
        """The rank of the key that has signed a row; -1 when none has, or it was changed since."""
        key = self.find(row.key_id)
        is_signed = key is not None and hmac.compare_digest(_mac(key, model, row._mapping).encode(), str(row.mac).encode())  # noqa: SLF001 - its public name
        return self.rank(row.key_id) if is_signed else -1

    def have_signed(self, model: type[Base], row: Any) -> bool:
        """Whether one of the keys has signed a row, and nothing of it was changed since."""
        return self.rank_of(model, row) >= 0


def _id_of(key: bytes) -> str:
    return sha256(key).hexdigest()[:MAX_KEY_ID]


def _mac(key: bytes, model: type[Base], values: Mapping[str, Any]) -> str:
    said = [str(values[name]) for name in sorted(model.__table__.columns.keys()) if name not in _SIGNATURE]
    return hmac.digest(key, json.dumps([model.__tablename__, *said]).encode(), "sha256").hex()
