"""Issuers of tokens, as they are configured: whose tokens are believed, and what their claims mean here."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit
from uuid import UUID

from app.core.actors import Actor, ActorType, InvalidActorError

_ALIAS: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_URL: Final = re.compile(r"[\x21-\x7e]+")
SUBJECT_TYPES: Final = frozenset({ActorType.USER, ActorType.SERVICE, ActorType.AGENT})


class SigningAlgorithm(StrEnum):
    """How a token may be signed (RFC 7518, RFC 8037): with key pairs only, so neither a shared secret nor ``none`` can be configured."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    EDDSA = "EdDSA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Somebody whose tokens are believed.

    ``issuer`` and ``audience`` are compared exactly. ``jwks_url`` is the only place its keys come from. ``alias`` tells its subjects
    from those of other issuers. ``organization_id`` is where its ``groups_claim`` counts; without one, nowhere. A subject is of
    ``actor_type`` unless ``actor_type_claim`` says otherwise. With ``scope_prefix`` a token may do no more than its scopes name.
    ``may_act_for_others`` lists subjects of this issuer, as ``type:sub``, that may name a principal in a header.

    Raises:
        ValueError: a value cannot be used; the message says which.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # a misspelled field stops the start

    issuer: str
    audience: tuple[str, ...]
    jwks_url: str
    alias: str | None = None
    organization_id: UUID | None = None
    groups_claim: str = "groups"
    actor_type: ActorType = ActorType.USER
    actor_type_claim: str | None = None
    scope_prefix: str | None = None
    may_act_for_others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.audience or "" in self.audience:
            raise ValueError("audience must name who the tokens are meant for")
        if "" in {self.issuer, self.groups_claim, self.actor_type_claim, self.scope_prefix}:
            raise ValueError("issuer, groups_claim, actor_type_claim and scope_prefix must not be empty")
        if not _is_safe(self.jwks_url):
            raise ValueError("jwks_url must be an https address, or an http address of this machine")
        if self.alias is not None and not _ALIAS.fullmatch(self.alias):
            raise ValueError("alias must be 1 to 64 letters, digits and . _ -")
        if self.actor_type not in SUBJECT_TYPES:
            raise ValueError("actor_type must be USER, SERVICE or AGENT")
        if not all(map(_is_subject, self.may_act_for_others)):
            raise ValueError("may_act_for_others must name users, services and agents, such as service:gateway")


def require_distinct(issuers: Iterable[Issuer]) -> None:
    """Make sure that no two issuers, and no two of their subjects, can be taken for one another.

    Raises:
        ValueError: an issuer is named twice, or there is more than one and an alias is missing or used twice.
    """
    issuers = list(issuers)
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise ValueError("an issuer is named twice")
    if len(issuers) > 1 and (None in (aliases := {issuer.alias for issuer in issuers}) or len(aliases) < len(issuers)):
        raise ValueError("each of several issuers needs an alias of its own: it stands before the ids of its subjects")


def _is_subject(text: str) -> bool:
    try:
        return Actor.from_subject(text).type in SUBJECT_TYPES
    except InvalidActorError:
        return False


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not _URL.fullmatch(url) or not host or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
