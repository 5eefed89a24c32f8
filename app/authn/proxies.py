"""Which transport peers may speak for others. Only the socket's address counts: a forwarded address can be made up."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from app.core.addresses import plain_address
from app.core.head import Head
from app.db.wanted import Wanted

PROXY_SECRET_HEADER: Final = "X-SaaSBase-Proxy-Secret"  # noqa: S105 - a header's name
KNOWN_ADDRESSES: Final = 1024
Networks = Sequence[IPv4Network | IPv6Network]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows: its headers and the address of the transport peer (None on a Unix socket); and what it wants.

    Who looks into the database for a proof may look there for what is wanted too. Nobody has to.
    """

    head: Head
    peer: str | None
    wanted: Wanted | None = None

    def values_of(self, header: str) -> list[bytes]:
        """Every value of a header, as it came."""
        return self.head.all(header.lower().encode())


class ProxyTrust:
    """The networks of proxies that are believed, and the secret they share, if any."""

    def __init__(self, networks: Networks, secret: str | None) -> None:
        self._networks = networks
        self._covers = lru_cache(KNOWN_ADDRESSES)(self._lies_in_a_network)  # parsing one costs more than all else here
        self._secret = secret.encode() if secret else None

    def covers(self, address: str | None) -> bool:
        """Whether the address lies in a trusted network."""
        return address is not None and bool(self._networks) and self._covers(address)

    def believes(self, credentials: Credentials) -> bool:
        """Whether this request may name its actor: trusted peer and, when one is configured, the shared secret."""
        if not self.covers(credentials.peer):
            return False
        if self._secret is None:
            return True
        shown = credentials.values_of(PROXY_SECRET_HEADER)
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._secret)

    def _lies_in_a_network(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

    def client_of(self, peer: str | None, forwarded_for: str) -> str | None:
        """The caller's address: the right-most one in X-Forwarded-For that no trusted proxy has, if a trusted proxy sent it."""
        client = peer
        if not forwarded_for:
            return client
        for hop in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
            if not self.covers(client):
                break
            try:
                client = plain_address(str(ip_address(hop.partition("%")[0])))  # a zone means nothing beyond its own host
            except ValueError:
                break
        return client
