"""What a request wants: the row its path names, known before anybody has proven who he is, so that one statement can find both."""

from dataclasses import dataclass
from time import monotonic
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Select
from sqlalchemy.orm import InstrumentedAttribute

from app.core.actors import Asker
from app.db.lookups import Lookup

MAX_AGE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """What came of looking for a row on behalf of an asker: the row with what he holds on it, or None when there is no such row."""

    row: Any | None


@dataclass(slots=True)
class Wanted:
    """The row that a request names by a unique column. What proves an identity may find it by the way, for that identity alone."""

    key: InstrumentedAttribute[Any]
    value: UUID
    _kept: tuple[Asker, Found, float] | None = None

    def keep(self, asker: Asker, found: Found) -> None:
        """Let the request have what was found for an asker who has proven who he is."""
        self._kept = asker, found, monotonic()

    def take(self, asker: Asker, key: InstrumentedAttribute[Any], value: Any) -> Found | None:
        """What was found for exactly this question, once: whoever asks again asks the database.

        None also when it was found more than a second ago: a body may take its time, and a grant that ended meanwhile counts no more.
        """
        if self._kept is None or key is not self.key or (asker, value) != (self._kept[0], self.value):
            return None
        (_, found, found_at), self._kept = self._kept, None
        return found if monotonic() - found_at < MAX_AGE_SECONDS else None


@dataclass(frozen=True, eq=False, slots=True)
class Proof:
    """How a credential is proven, as SQL: the one row behind it, whether what was shown agrees with that row, and whom it proves then."""

    rows: CTE
    holds: ColumnElement[bool]
    actor_type: ColumnElement[str]
    actor_id: ColumnElement[str]


class ProofLookup(Lookup):
    """Finds the row behind a credential, with the columns of another row beside it: all of them NULL when that one is not found."""

    def __init__(self, statement: Select[Any], key: str, names: tuple[str, ...]) -> None:
        super().__init__(statement, is_short=True)
        self._key = key
        self._names = names

    def beside(self, row: Any) -> Found:
        """The other row, without what belongs to the credential."""
        if getattr(row, self._key) is None:
            return Found(None)
        return Found(SimpleNamespace(**{name: getattr(row, name) for name in self._names}))
