"""Whose address counts: the peer's, or what proxies that we trust say of it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import network_of
from service.http.address import UNKNOWN, Proxies

TRUSTED = tuple(ipaddress.ip_network(network) for network in ("10.0.0.0/8", "2001:db8:ffff::/48"))
proxies = Proxies(TRUSTED)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Without a trusted peer the header is noise.
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("192.0.2.1", ["10.0.0.1, 10.0.0.2"], "192.0.2.1"),
        # Each trusted proxy vouches for the one before it, from the right.
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7, 10.0.0.2, 10.0.0.3"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        # Nobody but us: the leftmost of ours.
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        # Several headers are one list (RFC 9110, section 5.3).
        ("10.0.0.1", ["203.0.113.9", "198.51.100.7", "10.0.0.2"], "198.51.100.7"),
        # Rubbish is where trust ends.
        ("10.0.0.1", ["203.0.113.9, rubbish, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["rubbish"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [",,, ,"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["_hidden"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7" * 100], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.07"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.256"], "10.0.0.1"),
        ("10.0.0.1", ["\uff11.2.3.4"], "10.0.0.1"),
        # With ports, in brackets, with white space.
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        ("10.0.0.1", ["  198.51.100.7\t,  10.0.0.2 "], "198.51.100.7"),
        # One spelling for each address.
        ("10.0.0.1", ["2001:DB8:0:0::7"], "2001:db8::7"),
        ("10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["[::ffff:198.51.100.7]:80"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("fe80::1%eth0", [], "fe80::1"),
        ("2001:db8:ffff::1", ["198.51.100.7"], "198.51.100.7"),
        # A unix socket has no address.
        (None, [], UNKNOWN),
        ("", [], UNKNOWN),
        (None, ["198.51.100.7"], UNKNOWN),
    ],
)
def test_the_address_of_a_client(peer, forwarded, client):
    assert proxies.address(peer, forwarded) == client


def test_no_proxy_is_trusted_by_default():
    assert Proxies(()).address("127.0.0.1", ["198.51.100.7"]) == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        (UNKNOWN, UNKNOWN),
    ],
)
def test_a_limit_counts_an_ipv6_subscriber_as_one(address, network):
    assert network_of(address) == network


claims = st.one_of(
    st.text(max_size=80),
    st.ip_addresses().map(str),
    st.ip_addresses(v=4).map(lambda address: f"{address}:80"),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]:80"),
    st.ip_addresses(v=6).map(lambda address: f"{address}%zone"),
    st.ip_addresses(v=4, network="10.0.0.0/8").map(str),
)


@given(st.none() | claims, st.lists(st.lists(claims, max_size=5).map(", ".join), max_size=4))
def test_whatever_is_sent_there_is_one_canonical_address_or_none(peer, forwarded):
    address = proxies.address(peer, forwarded)

    assert address == UNKNOWN or str(ipaddress.ip_address(address)) == address
    assert "%" not in address
    assert network_of(network_of(address).partition("/")[0]) == network_of(address)


@given(st.ip_addresses(v=4), st.lists(claims, max_size=5))
def test_nobody_whom_we_do_not_trust_chooses_their_own_address(peer, said):
    if any(peer in network for network in TRUSTED if network.version == 4):
        return

    assert proxies.address(str(peer), [", ".join(said)]) == str(peer)
    assert proxies.address("10.0.0.1", [", ".join([*said, str(peer)])]) == str(peer)
