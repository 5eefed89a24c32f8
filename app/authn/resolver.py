"""Who is calling: bearer credentials first, then the actor header of a trusted proxy, then the anonymous actor."""

import hmac
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

from app.authn.api_keys import KeyVerifier
from app.core.actors import Actor, ActorType, Identity, InvalidActorError
from app.core.errors import BadRequestError, UnauthenticatedError

_log = logging.getLogger(__name__)

PROXY_SECRET_HEADER = "X-SaaSBase-Proxy-Secret"  # noqa: S105 - a header's name
Networks = Sequence[IPv4Network | IPv6Network]
RawHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows: its raw headers and the address of the transport peer (None on a Unix socket)."""

    headers: RawHeaders
    peer: str | None


class ActorResolver(Protocol):
    """Finds the identity of a caller."""

    async def resolve(self, credentials: Credentials) -> Identity:
        """The identity.

        Raises:
            UnauthenticatedError: a credential was shown and is not valid, or none was shown and there is no anonymous actor.
            BadRequestError: the actor header cannot be read.
        """


class ProxyTrust:
    """Which transport peers may speak for others. Looks at the socket's address only: a forwarded address can be made up."""

    def __init__(self, networks: Networks, secret: str | None) -> None:
        self._networks = networks
        self._secret = secret.encode() if secret else None

    def covers(self, address: str | None) -> bool:
        """Whether the address lies in a trusted network."""
        if address is None or not self._networks:
            return False
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def believes(self, credentials: Credentials) -> bool:
        """Whether this request may name its actor: trusted peer and, when one is configured, the shared secret."""
        if not self.covers(credentials.peer):
            return False
        if self._secret is None:
            return True
        shown = _values(credentials.headers, PROXY_SECRET_HEADER.lower().encode())
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._secret)

    def client_of(self, peer: str | None, forwarded_for: str) -> str | None:
        """The caller's address: the right-most one in X-Forwarded-For that no trusted proxy has, if a trusted proxy sent it."""
        client = peer
        for hop in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
            if not self.covers(client):
                break
            try:
                client = str(ip_address(hop.partition("%")[0]))  # a zone means nothing beyond its own host
            except ValueError:
                break
        return client


class ChainedActorResolver:
    """A bearer credential, else the actor header, else the anonymous actor."""

    def __init__(self, header: str, trust: ProxyTrust, anonymous: Actor | None, keys: KeyVerifier) -> None:
        self._keys = keys
        self._name = header
        self._header = header.lower().encode()
        self._trust = trust
        self._anonymous = Identity(anonymous, "anonymous") if anonymous else None
        self._has_warned = False

    async def resolve(self, credentials: Credentials) -> Identity:
        """See ``ActorResolver.resolve``."""
        shown = _values(credentials.headers, b"authorization")
        if shown:  # a credential that is not valid never falls through to a weaker proof
            return await self._keys.verify(_bearer_of(shown), self._trust.client_of(credentials.peer, _forwarded(credentials.headers)))
        named = _values(credentials.headers, self._header)
        if any(value.strip() for value in named) and self._is_believed(credentials):
            return Identity(self._read(named), "header")
        if self._anonymous is None:
            raise UnauthenticatedError("This service needs to know who is calling.")
        return self._anonymous

    def _is_believed(self, credentials: Credentials) -> bool:
        if self._trust.believes(credentials):
            return True
        if not self._has_warned:
            self._has_warned = True
            _log.warning("%s from %s ignored: not a trusted proxy (SAASBASE_ACTOR__TRUSTED_PROXIES)", self._name, credentials.peer)
        return False

    def _read(self, values: list[bytes]) -> Actor:
        if len(values) > 1:
            raise BadRequestError(f"{self._name} is given more than once.", code="ambiguous_actor")
        try:
            actor = Actor.from_subject(values[0].decode("utf-8"))
        except UnicodeDecodeError:
            raise BadRequestError(f"{self._name} is not UTF-8.", code="invalid_actor") from None
        except InvalidActorError as error:
            raise BadRequestError(f"{self._name}: {error}.", code="invalid_actor") from None
        if actor.type is ActorType.API_KEY:
            raise UnauthenticatedError("An API key proves itself with its secret, as a Bearer token.")
        return actor


def _bearer_of(values: list[bytes]) -> str:
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise UnauthenticatedError("The Authorization header holds no valid credential.")
    return token.strip()


def _forwarded(headers: RawHeaders) -> str:
    return ",".join(value.decode("latin-1") for value in _values(headers, b"x-forwarded-for"))


def _values(headers: RawHeaders, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]
