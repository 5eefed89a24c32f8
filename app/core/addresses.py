"""Network addresses as what they say of a caller."""

from ipaddress import IPv6Address, ip_network


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
