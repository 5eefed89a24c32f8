"""What verifying a chain can find."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.core.errors import ConflictError


class BreakKind(StrEnum):
    """What is wrong at a position."""

    MISSING = "missing"
    """There is no event, and nothing says that it was pruned."""
    ALTERED = "altered"
    """The event is not the one that was sealed."""
    KEY = "key"
    """The event was sealed with a key that is not set, or with an older one than an event before it; or says so."""
    GAP = "gap"
    """What says that events were pruned here is not signed, or with a key that was too old; no event tells of it; or they are there."""
    HEAD = "head"
    """The head of the chain is not signed, signed with an older key than its events, or not the end of the chain."""
    CHECKPOINT = "checkpoint"
    """A checkpoint is not signed, signed with an older key than events before it, or the chain is not the one it was made of."""
    KNOWN = "known"
    """The chain is not the one whose hash the caller knows."""


class BrokenChainError(ConflictError):
    """A chain that nothing may be added to and nothing taken from: a signature would hide what was done to it."""

    code = "chain_broken"


@dataclass(frozen=True, slots=True)
class Break:
    """The first place where a chain is broken."""

    position: int
    kind: BreakKind
    event_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A position of a chain and its hash."""

    position: int
    hash: str


@dataclass(frozen=True, slots=True)
class SealedThrough(Place):
    """The end of a chain: whoever keeps it elsewhere can show later that nothing before it was changed."""

    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. ``next_position`` is where to go on; None at the end of the chain, or where it is broken."""

    checked: int
    first_break: Break | None
    sealed_through: SealedThrough | None
    unsealed: int
    next_position: int | None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with what was checked."""
        return self.first_break is None

    @property
    def is_complete(self) -> bool:
        """Whether the chain was checked to its end."""
        return self.ok and self.next_position is None
