"""Which transport peers may speak for others. Only the socket's address counts: a forwarded address can be made up."""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from app.core.addresses import plain_address
from app.db.wanted import Wanted

PROXY_SECRET_HEADER: Final = "X-SaaSBase-Proxy-Secret"  # noqa: S105 - a header's name
Networks = Sequence[IPv4Network | IPv6Network]
RawHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows: its raw headers and the address of the transport peer (None on a Unix socket); and what it wants.

    Who looks into the database for a proof may look there for what is wanted too. Nobody has to.
    """

    headers: RawHeaders
    peer: str | None
    wanted: Wanted | None = None

    def values_of(self, header: str) -> list[bytes]:
        """Every value of a header, as it came."""
        name = header.lower().encode()
        return [value for key, value in self.headers if key == name]


class ProxyTrust:
    """The networks of proxies that are believed, and the secret they share, if any."""

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
        shown = credentials.values_of(PROXY_SECRET_HEADER)
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._secret)

    def client_of(self, peer: str | None, forwarded_for: str) -> str | None:
        """The caller's address: the right-most one in X-Forwarded-For that no trusted proxy has, if a trusted proxy sent it."""
        client = peer
        for hop in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
            if not self.covers(client):
                break
            try:
                client = plain_address(str(ip_address(hop.partition("%")[0])))  # a zone means nothing beyond its own host
            except ValueError:
                break
        return client
