"""Which network addresses anybody may be sent to: those that the whole world can reach, and no others.

`ipaddress` knows the registries; it does not know that an IPv6 address may only wrap an IPv4 one, by which a private
host is reached all the same. Addresses of that kind are refused as such, whatever they wrap.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_REFUSED_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_ALLOWED_6 = IPv6Network("2000::/3")
_REFUSED_6 = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"))
)


def is_reachable(address: str) -> bool:
    """Tell whether an address, in its plain form, is one that the whole world can reach."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return _is_reachable_4(found)
    return _is_reachable_6(found)


def _is_reachable_4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in net for net in _REFUSED_4)


def _is_reachable_6(address: IPv6Address) -> bool:
    if address.scope_id is not None or address not in _ALLOWED_6:
        return False
    return address.is_global and not address.is_multicast and not any(address in net for net in _REFUSED_6)
