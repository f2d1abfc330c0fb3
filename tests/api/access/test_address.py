"""A client's address is its peer's, and a header's only where a trusted proxy says so."""

import pytest

from src.api.access.address import Proxies, is_loopback, network_of

TRUSTED = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.9", "203.0.113.1", "192.0.2.9"),  # a stranger's word
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("127.0.0.1", "1.1.1.1, 203.0.113.1", "203.0.113.1"),  # what came before may be made up
        ("127.0.0.1", "1.1.1.1, 203.0.113.1, 10.1.2.3", "203.0.113.1"),
        ("127.0.0.1", "10.1.2.3, 10.9.9.9", "10.1.2.3"),
        ("127.0.0.1", "203.0.113.1, nonsense", "127.0.0.1"),
        ("127.0.0.1", "nonsense\r\nX: y", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.1:5678", "203.0.113.1"),
        ("127.0.0.1", "[2001:db8::1]:5678", "2001:db8::1"),
        ("fd00::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:127.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("", "203.0.113.1", "unix"),
    ],
)
def test_whose_address_counts(peer, forwarded, client):
    assert Proxies(TRUSTED).client(peer, forwarded) == client


def test_nobody_is_believed_by_default():
    assert Proxies([]).client("127.0.0.1", "203.0.113.1") == "127.0.0.1"


def test_the_peer_of_a_socket_is_believed_where_it_is_named():
    assert Proxies(["unix"]).client("", "203.0.113.1") == "203.0.113.1"
    assert Proxies(["unix"]).client("127.0.0.1", "203.0.113.1") == "127.0.0.1"


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "[::1]:80", "127.0.0.1:80", "::ffff:127.0.0.1"])
def test_what_is_loopback(text):
    assert is_loopback(text)


@pytest.mark.parametrize("text", ["", "localhost", "127.0.0.1.example.com", "0.0.0.0", "10.0.0.1", "::", "1", "127.1"])
def test_what_is_not_loopback(text):
    assert not is_loopback(text)


def test_limits_take_a_subscribers_network_of_ipv6_for_one_address():
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert network_of("203.0.113.1") == "203.0.113.1"
