"""What the claims of a token mean (RFC 7519, RFC 8693): whether it is for us and for now, who its bearer is, and what it is made for."""

import math
from collections.abc import Mapping
from typing import Any, Final

from app.core.actors import MAX_ACTOR_ID, Actor, ActorType, Identity, TokenGroups
from app.core.issuers import SUBJECT_TYPES, Issuer
from app.core.permissions import Action
from app.core.text import InvalidTextError, clean_identifier

METHOD: Final = "jwt"
_TYPES: Final = {kind.value.lower(): kind for kind in SUBJECT_TYPES}

Claims = Mapping[str, Any]


class RefusedTokenError(Exception):
    """A token proves nothing. The reason is for our log; the caller does not learn it."""


class ClaimsReader:
    """Reads the claims of one issuer's tokens. ``id_prefix`` stands before the ids of its subjects."""

    def __init__(self, issuer: Issuer, id_prefix: str, leeway_seconds: float) -> None:
        self._issuer = issuer
        self._id_prefix = id_prefix
        self._leeway = leeway_seconds
        self._audience = frozenset(issuer.audience)
        self._may_act_for_others = frozenset(map(Actor.from_subject, issuer.may_act_for_others))

    def require_valid(self, claims: Claims, at: float) -> None:
        """Make sure that a token of this issuer is meant for us, and valid at this moment (seconds since 1970).

        Raises:
            RefusedTokenError: it is not.
        """
        if claims.get("iss") != self._issuer.issuer:
            raise RefusedTokenError("another issuer")
        meant_for = claims.get("aud")
        named = [meant_for] if isinstance(meant_for, str) else _texts(meant_for, "aud")
        if self._audience.isdisjoint(named):
            raise RefusedTokenError("meant for others")
        if at >= _moment(claims, "exp") + self._leeway:
            raise RefusedTokenError("expired")
        for claim in ("nbf", "iat"):
            if claim in claims and at < _moment(claims, claim) - self._leeway:
                raise RefusedTokenError(f"not valid yet ({claim})")

    def identity(self, claims: Claims) -> Identity:
        """Who shows the token: its subject, or with an ``act`` claim the actor who acts for its subject.

        Raises:
            RefusedTokenError: a claim cannot be read.
        """
        subject = self._actor(claims, self._issuer.actor_type)
        only_actions = self._only_actions(claims)
        if "act" not in claims:
            may_act_for_others = subject in self._may_act_for_others
            return Identity(self._known_as(subject), METHOD, only_actions, self._groups(claims), may_act_for_others=may_act_for_others)
        acting = claims["act"]  # an "act" within it is history and decides nothing (RFC 8693, 4.1)
        if not isinstance(acting, dict) or acting.get("iss", self._issuer.issuer) != self._issuer.issuer:
            raise RefusedTokenError("the actor is not of this issuer")
        actor = self._actor(acting, ActorType.AGENT)
        principal = Identity(self._known_as(subject), METHOD, groups=self._groups(claims))
        return Identity(self._known_as(actor), METHOD, only_actions, on_behalf_of=principal)

    def _actor(self, claims: Claims, kind: ActorType) -> Actor:
        name = claims.get("sub")
        if not isinstance(name, str) or not _is_identifier(name, MAX_ACTOR_ID - len(self._id_prefix)):
            raise RefusedTokenError("sub is no actor's id")
        claim = self._issuer.actor_type_claim
        if claim is not None and claim in claims:
            named = claims[claim]
            if not isinstance(named, str) or named.lower() not in _TYPES:
                raise RefusedTokenError("the claim of the actor's type names none")
            kind = _TYPES[named.lower()]
        return Actor(kind, name)

    def _known_as(self, actor: Actor) -> Actor:
        return Actor(actor.type, self._id_prefix + actor.id)

    def _groups(self, claims: Claims) -> TokenGroups | None:
        """Its groups, where they count. A name no group can have is left out: it could give nothing."""
        if self._issuer.organization_id is None or self._issuer.groups_claim not in claims:
            return None
        names = _texts(claims[self._issuer.groups_claim], "groups")
        return TokenGroups(self._issuer.organization_id, frozenset(name for name in names if _is_identifier(name, MAX_ACTOR_ID)))

    def _only_actions(self, claims: Claims) -> frozenset[Action] | None:
        prefix = self._issuer.scope_prefix
        if prefix is None:
            return None
        named = {scope.removeprefix(prefix) for scope in _scopes(claims) if scope.startswith(prefix)}
        wanted = {name.upper().replace(":", "_") for name in named}
        return frozenset(action for action in Action if action.value in wanted)


def _scopes(claims: Claims) -> list[str]:
    """``scope`` is words in one text (RFC 8693); ``scp`` is that or a list, as issuers please."""
    found: list[str] = []
    for claim in ("scope", "scp"):
        value = claims.get(claim, [])
        found += value.split(" ") if isinstance(value, str) else _texts(value, claim)
    return found


def _texts(value: Any, claim: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RefusedTokenError(f"{claim} is no list of texts")
    return value


def _moment(claims: Claims, claim: str) -> float:
    value = claims.get(claim)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise RefusedTokenError(f"{claim} is no moment")
    return value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _is_identifier(text: str, longest: int) -> bool:
    """Whether the text is an id as it stands; one that would be trimmed could be taken for another."""
    try:
        return clean_identifier(text, longest) == text
    except InvalidTextError:
        return False
