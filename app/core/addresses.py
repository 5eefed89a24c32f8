"""Network addresses as what they say of a caller."""

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def plain_address(address: str) -> str:
    """The IPv4 address that a socket for both kinds shows as an IPv6 one (``::ffff:192.0.2.1``); every other text as it came."""
    if ":" not in address:
        return address
    try:
        mapped = IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return str(mapped) if mapped is not None else address


def plain_network(text: str) -> IPv4Network | IPv6Network:
    """A network as addresses are compared with it: of IPv4 where it holds nothing but IPv4 addresses written as IPv6 ones.

    Raises:
        ValueError: it is neither an address nor a network in CIDR notation.
    """
    network = ip_network(text, strict=False)
    if isinstance(network, IPv4Network) or not network.subnet_of(_MAPPED):
        return network
    return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - _MAPPED.prefixlen))


def origin_of(address: str | None) -> str:
    """What is counted as one caller: an IPv4 address, or the /64 an IPv6 address lies in, which is what one host is given."""
    if address is None:
        return "no address"  # a Unix socket: whoever is behind it shares one bucket
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped or ip_network((found, 64), strict=False))
