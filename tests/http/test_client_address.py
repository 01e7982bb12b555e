"""Where a call comes from, and who is believed about it."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.client_address import client_address, compile_networks

TRUSTED = compile_networks(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.1"])
PROXY = "10.0.0.1"
CLIENT = "203.0.113.9"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        (CLIENT, [], CLIENT),
        (CLIENT, [b"198.51.100.1"], CLIENT),
        (PROXY, [], PROXY),
        (PROXY, [b"203.0.113.9"], CLIENT),
        ("192.0.2.1", [b"203.0.113.9"], CLIENT),
        ("192.0.2.2", [b"203.0.113.9"], "192.0.2.2"),
        ("2001:db8:1::5", [b"2001:db8:2::9"], "2001:db8:2::9"),
    ],
)
def test_the_header_counts_only_where_the_peer_is_trusted(peer: str, forwarded_for: list[bytes], expected: str) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == ip_address(expected)


@pytest.mark.parametrize(
    "forwarded_for",
    [
        [b"198.51.100.1, 203.0.113.9"],
        [b"10.9.9.9, 203.0.113.9, 10.0.0.2"],
        [b"198.51.100.1", b"203.0.113.9, 10.0.0.2", b"10.0.0.3"],
        [b"198.51.100.1,203.0.113.9 ,\t10.0.0.2"],
        [b"nonsense, 203.0.113.9, 10.0.0.2"],
    ],
)
def test_the_right_most_address_that_is_not_trusted_is_the_client(forwarded_for: list[bytes]) -> None:
    assert client_address(PROXY, forwarded_for, TRUSTED) == ip_address(CLIENT)


def test_where_all_are_trusted_it_is_the_left_most() -> None:
    assert client_address(PROXY, [b"10.0.0.4, 10.0.0.3", b"10.0.0.2"], TRUSTED) == ip_address("10.0.0.4")


@pytest.mark.parametrize(
    "junk",
    [b"unknown", b"", b"_hidden", b"203.0.113.999", b"203.0.113", b"010.0.0.1", b"for=203.0.113.9", b"\xff\xb2",
     b"[2001:db8::1", b"[2001:db8::1]x", b"[203.0.113.9]:", b"203.0.113.9:", b"203.0.113.9:80:1", b"203.0.113.9/32"],
)  # fmt: skip
def test_what_cannot_be_read_ends_the_search_at_the_last_address_that_could(junk: bytes) -> None:
    assert client_address(PROXY, [b"198.51.100.1, " + junk + b", 10.0.0.2"], TRUSTED) == ip_address("10.0.0.2")
    assert client_address(PROXY, [b"198.51.100.1, " + junk], TRUSTED) == ip_address(PROXY)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"203.0.113.9:51324", CLIENT),
        (b"::ffff:203.0.113.9", CLIENT),
        (b"[::ffff:203.0.113.9]:80", CLIENT),
        (b"2001:DB8:2:0::9", "2001:db8:2::9"),
        (b"[2001:db8:2::9]", "2001:db8:2::9"),
        (b"[2001:db8:2::9]:443", "2001:db8:2::9"),
        (b"fe80::1%eth0", "fe80::1"),
    ],
)
def test_addresses_are_read_with_ports_and_compared_in_one_form(written: bytes, expected: str) -> None:
    found = client_address(PROXY, [written], TRUSTED)
    assert found == ip_address(expected)
    assert str(found) == expected


@pytest.mark.parametrize("network", ["10.0.0.0/8", "::ffff:10.0.0.0/104", "0.0.0.0/0"])
def test_a_mapped_peer_and_a_mapped_network_are_ipv4(network: str) -> None:
    trusted = compile_networks([network])
    assert client_address("::ffff:10.0.0.1", [b"2001:db8::1"], trusted) == ip_address("2001:db8::1")


@pytest.mark.parametrize("peer", [None, "", "/run/gateway.sock"])
def test_a_peer_without_an_address_has_none_whatever_the_header_says(peer: str | None) -> None:
    assert client_address(peer, [b"10.0.0.2"], TRUSTED) is None


def test_a_header_of_thousands_of_trusted_addresses_is_read_only_so_far() -> None:
    header = b"203.0.113.9, " + b", ".join(b"10.0.%d.%d" % divmod(hop, 256) for hop in range(4000))
    assert client_address(PROXY, [header], TRUSTED) == ip_address("10.0.15.128")


@given(st.lists(st.binary()))
def test_no_header_makes_an_untrusted_peer_anything_else_or_fails(forwarded_for: list[bytes]) -> None:
    assert client_address(CLIENT, forwarded_for, TRUSTED) == ip_address(CLIENT)
    assert client_address(PROXY, forwarded_for, TRUSTED) is not None


@given(st.lists(st.ip_addresses().map(str), min_size=1))
def test_what_a_client_sends_itself_changes_nothing(claimed: list[str]) -> None:
    made_up = ", ".join(claimed).encode()
    assert client_address(PROXY, [made_up, CLIENT.encode()], TRUSTED) == ip_address(CLIENT)
