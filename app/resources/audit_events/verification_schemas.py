"""Wire shapes of verifying the audit trail."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from app.audit.findings import BreakKind, Place
from app.http.described import Described
from app.http.schemas import Schema

MAX_POSITION = 2**63 - 1


class VerifyQuery(Described):
    """Which chain to verify, and what the caller knows of it."""

    model_config = ConfigDict(extra="forbid")

    organization_id: UUID
    from_position: Annotated[int, Field(ge=1, le=MAX_POSITION)] = 1
    """Where to begin: `next_position` of the answer before."""
    known_position: Annotated[int, Field(ge=1, le=MAX_POSITION)] | None = None
    """Together with `known_hash`: the `sealed_through` of an earlier answer, which the chain must still contain."""
    known_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Together with `known_position`."""

    @model_validator(mode="after")
    def _known_is_whole(self) -> Self:
        if (self.known_position is None) != (self.known_hash is None):
            raise ValueError("known_position and known_hash are given together or not at all")
        return self

    @property
    def known(self) -> Place | None:
        """What the caller knows."""
        return Place(self.known_position, self.known_hash) if self.known_position is not None and self.known_hash is not None else None


class ChainBreakRead(Schema):
    """The first place where a chain is broken."""

    position: int
    kind: BreakKind
    """What is wrong: an event is `missing` or `altered` or was sealed with a `key` that is not set; the `gap` of a prune, the `head` of the
    chain or a `checkpoint` is not genuine or does not fit; the chain is not the `known` one."""
    event_id: UUID | None


class SealedThroughRead(Schema):
    """The end of a chain. Keep it outside, and pass it as `known_position` and `known_hash` later."""

    position: int
    hash: str
    sealed_at: datetime


class VerificationRead(Schema):
    """What verifying a chain has found."""

    ok: bool
    """Whether nothing is wrong with what was checked."""
    checked: int
    """How many events were checked."""
    first_break: ChainBreakRead | None
    sealed_through: SealedThroughRead | None
    """The end of the chain; null before anything was sealed."""
    unsealed: int
    """Events that are not in the chain yet: a second's worth, when all is well."""
    is_complete: bool
    """Whether the chain was checked to its end."""
    next_position: int | None
    """Where to go on: one answer covers at most 100,000 events."""
