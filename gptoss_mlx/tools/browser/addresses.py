"""Which addresses a web page may be fetched from: public ones, and nothing behind the router.

Tables of our own, because what `ipaddress.is_global` says differs between Python versions, and it
lets through site-local, 6to4 and translated addresses. It does not know names.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["is_public"]

_NOT_PUBLIC_4 = (
    IPv4Network("0.0.0.0/8"),  # this host
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),  # carrier-grade NAT
    IPv4Network("127.0.0.0/8"),
    IPv4Network("168.63.129.16/32"),  # Azure's metadata: a public address, a private service
    IPv4Network("169.254.0.0/16"),  # link-local, and the metadata of most clouds
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.0.2.0/24"),  # documentation, like 198.51.100 and 203.0.113
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("192.168.0.0/16"),
    IPv4Network("198.18.0.0/15"),  # benchmarks
    IPv4Network("198.51.100.0/24"),
    IPv4Network("203.0.113.0/24"),
    IPv4Network("224.0.0.0/3"),  # multicast, reserved, broadcast
)
_GLOBAL_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = (  # within 2000::/3
    IPv6Network("2001::/23"),  # Teredo, ORCHID, benchmarks
    IPv6Network("2001:db8::/32"),  # documentation, like 3fff
    IPv6Network("2002::/16"),  # 6to4
    IPv6Network("3fff::/20"),
)
# IPv4 in other clothes: mapped, and translated by NAT64 (what IPv6-only networks make of all names)
_EMBEDDING = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))


def is_public(address: str) -> bool:
    """Whether an address, as text, is one of the public internet."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_4)
    if any(ip in network for network in _EMBEDDING):
        return is_public(str(IPv4Address(int(ip) & 0xFFFFFFFF)))
    return _is_public_6(ip)


def _is_public_6(ip: IPv6Address) -> bool:
    return ip in _GLOBAL_6 and not any(ip in network for network in _NOT_PUBLIC_6)
