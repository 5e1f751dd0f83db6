"""Which addresses may be asked: every range that is refused, at its ends and inside, and its neighbours."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from random import Random

import pytest

from llm_gate.transport.addresses import is_reachable

REFUSED_4 = (
    *(
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
    ),
    *(
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
    ),
    *(
        "224.0.0.0/4",
        "240.0.0.0/4",
        "255.255.255.255/32",
        "169.254.169.254/32",
        "192.31.196.0/24",
        "192.52.193.0/24",
    ),
    *("192.175.48.0/24",),
)
REFUSED_6 = (
    *(
        "::/128",
        "::1/128",
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
    ),
    *(
        "100:0:0:1::/64",
        "2001::/32",
        "2001:2::/48",
        "2001:10::/28",
        "2001:20::/28",
        "2001:30::/28",
        "2001:db8::/32",
    ),
    *(
        "2001:1::/32",
        "2001:3::/32",
        "2001:4:112::/48",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
        "5f00::/16",
    ),
    *(
        "fc00::/7",
        "fd00::/8",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "::/8",
        "200::/7",
        "4000::/3",
        "8000::/1",
    ),
)
WIDE_4 = ("127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16", "172.16.0.0/12", "100.64.0.0/10")
WRAPPERS = ("::ffff:{}", "::{}", "::ffff:0:{}", "64:ff9b::{}", "64:ff9b:1::{}", "64:ff9b:1:ffff::{}")
CHANCES = 12


def spread(network):
    """Return both ends of a network, and addresses within it that chance picks, alike in every run."""
    found = ip_network(network)
    first, last = int(found[0]), int(found[-1])
    chance = Random(network)  # noqa: S311 - no secret
    numbers = {first, last, *(chance.randint(first, last) for _ in range(CHANCES))}
    return tuple(str(type(found[0])(number)) for number in sorted(numbers))


def hidden(address):
    """Return the IPv6 addresses that carry an IPv4 one."""
    number = int(ip_address(address))
    high, low = number >> 16, number & 0xFFFF
    plain = tuple(wrapper.format(address) for wrapper in WRAPPERS)
    other = number ^ 0xFFFFFFFF
    return (*plain, f"2002:{high:x}:{low:x}::1", f"2001:0:808:808:0:0:{other >> 16:x}:{other & 0xFFFF:x}")


REFUSED = tuple(dict.fromkeys(one for network in (*REFUSED_4, *REFUSED_6) for one in spread(network)))
HIDDEN = tuple(
    dict.fromkeys(
        one
        for address in (*(one for net in WIDE_4 for one in spread(net)[:4]), "8.8.8.8")
        for one in hidden(address)
    )
)
NO_ADDRESSES = (
    *(
        "",
        " ",
        ".",
        "localhost",
        "example.com",
        "1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
    ),
    *(
        "0177.0.0.1",
        "127.0.0.1.",
        ".127.0.0.1",
        "127.0.0.1 ",
        " 8.8.8.8",
        "8.8.8.8\n",
        "8.8.8.8/32",
        "8.8.8.8:80",
    ),
    *(
        "08.8.8.8",
        "8.8.8.08",
        "8.8.8",
        "8.8.8.8.8",
        "8.8.8.256",
        "-8.8.8.8",
        "8.8.8.8\0",
        "[2606:4700::1]",
        "2606:4700",
    ),
    *(
        "2606:4700::1%eth0",
        "2606:4700::1%",
        "2606:4700::1%25lo",
        "2606:4700:::1",
        "2606:4700::12345",
        "::ffff:1.2.3",
    ),
    *("\uff18.8.8.8", "8。8。8。8", "8.8.8.8%lo", "1e1.1.1.1", "0x8.8.8.8", "+8.8.8.8", "8_0.8.8.8"),
)
OPEN = (
    *(
        "1.0.0.0",
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "93.184.216.34",
        "100.63.255.255",
        "100.128.0.0",
    ),
    *("126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"),
    *(
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
    ),
    *("198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0"),
    *("223.255.255.255", "2001:200::1", "2001:4860:4860::8888", "2001:db7::1", "2001:db9::1", "2003::1"),
    *(
        "2606:4700:4700::1111",
        "2620:4f:8001::1",
        "2a00:1450:4001::1",
        "3ffe::1",
        "2600::",
        "2001:4860::7f00:1",
    ),
)


def test_there_are_enough_vectors():
    """The vectors are as many as were meant, and none is in two lists."""
    everything = {*REFUSED, *HIDDEN, *NO_ADDRESSES}
    assert len(everything) >= 800
    assert not everything & set(OPEN)


@pytest.mark.parametrize("network", [*REFUSED_4, *REFUSED_6])
def test_a_range_is_refused(network):
    """No address of a range that is kept for something else may be asked."""
    kind = IPv4Network if network in REFUSED_4 else IPv6Network
    assert [one for one in spread(network) if is_reachable(one) or ip_address(one) not in kind(network)] == []


@pytest.mark.parametrize("address", HIDDEN)
def test_what_carries_another_address_is_refused(address):
    """An IPv6 address that stands for an IPv4 one may not be asked, whichever that is."""
    assert not is_reachable(address)


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_plain_address_is_refused(text):
    """Names, numbers in disguise, zones and torn addresses may not be asked."""
    assert not is_reachable(text)


@pytest.mark.parametrize("address", OPEN)
def test_the_rest_of_the_world_is_open(address):
    """The neighbours of what is refused, and well known addresses, may be asked."""
    assert is_reachable(address)
