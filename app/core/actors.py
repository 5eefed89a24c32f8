"""Actors: who an operation is attributed to."""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

from app.core.permissions import Action
from app.core.text import InvalidTextError, clean_identifier

MAX_ACTOR_ID = 256
_KNOWN_SUBJECTS = 1024
_LONGEST_KNOWN = MAX_ACTOR_ID + 16


class ActorType(StrEnum):
    """The kinds of caller; each can hold grants."""

    USER = "USER"
    SERVICE = "SERVICE"
    AGENT = "AGENT"
    GROUP = "GROUP"
    API_KEY = "API_KEY"


class InvalidActorError(ValueError):
    """The text names no actor."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A type and an id, compared exactly."""

    type: ActorType
    id: str

    @property
    def subject(self) -> str:
        """The written form ``user:alice``: lower-case type, colon, id."""
        return f"{self.type.value.lower()}:{self.id}"

    @classmethod
    def from_subject(cls, text: str) -> "Actor":
        """Read ``<type>:<id>``; a text without a colon is a user's id.

        Raises:
            InvalidActorError: an unknown type, an empty or over-long id, or a control character.
        """
        return _actor_known_as(text) if len(text) <= _LONGEST_KNOWN else _read(text)


def _read(text: str) -> Actor:
    kind, colon, identifier = text.partition(":")
    if not colon:
        kind, identifier = "user", text
    try:
        actor_type = ActorType(kind.strip().upper())
    except ValueError:
        raise InvalidActorError("the actor's type is none of user, service, agent, group") from None
    try:
        return Actor(actor_type, clean_identifier(identifier, MAX_ACTOR_ID))
    except InvalidTextError as error:
        raise InvalidActorError(f"the actor's id {error}") from None


# Callers come again and again. They may write what they like: a longer text, which can be one too, is not kept.
_actor_known_as = lru_cache(_KNOWN_SUBJECTS)(_read)


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """Groups that a token says its bearer is in. They count in one organization: the one its issuer speaks for."""

    organization_id: UUID
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Asker:
    """An actor as the policy engine sees him: with the groups only his token tells of."""

    actor: Actor
    groups: TokenGroups | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """An actor together with how the service came to believe it.

    ``method`` is ``header``, ``api_key``, ``jwt``, ``anonymous``, ``system``, or what a custom resolver calls it; it stands in every
    audit event. ``only_actions`` narrows what the actor's roles carry, for credentials that were made for less. ``on_behalf_of`` is
    who the actor acts for: what both may do, and no more, may be done. ``may_act_for_others`` is the right to name such a principal.
    """

    actor: Actor
    method: str
    only_actions: frozenset[Action] | None = None
    groups: TokenGroups | None = None
    on_behalf_of: "Identity | None" = None
    may_act_for_others: bool = False

    @property
    def is_anonymous(self) -> bool:
        """Whether the caller showed nothing and acts as the configured fallback."""
        return self.method == "anonymous"

    @property
    def asker(self) -> Asker:
        """The actor as the policy engine sees him."""
        return Asker(self.actor, self.groups)

    @property
    def principal(self) -> Actor | None:
        """Who the actor acts for, if for another."""
        return self.on_behalf_of.actor if self.on_behalf_of is not None else None
