"""Where a call comes from: the peer's address, or what trusted proxies in front say of it.

Pure. Knows X-Forwarded-For as proxies write it (each appends the address that it was called from) and believes it only
as far as the chain of trusted proxies reaches: what stands left of that, the client itself may have made up.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]

_MAX_HOPS = 32
"""No chain of proxies is that long; a header may be, and must not cost more than a real one."""


def compile_networks(networks: Iterable[str]) -> Networks:
    """`networks` (`10.0.0.0/8`, `2001:db8::1`) in the form that `client_address` takes. Raises ValueError."""
    return tuple(_unmapped_network(ip_network(network)) for network in networks)


def client_address(peer: str | None, forwarded_for: Sequence[bytes], trusted: Networks) -> Address | None:
    """The client's address; None where the peer has none (a Unix socket).

    `forwarded_for` holds the values of all X-Forwarded-For headers, in their order. It is the peer, or, if that is in
    `trusted`, the right-most address that is not. What cannot be read ends the search: then it is the last address
    that could.
    """
    address = None if peer is None else _parse(peer)
    if address is None or not forwarded_for or not _is_in(address, trusted):
        return address
    entries = b",".join(forwarded_for).rsplit(b",", _MAX_HOPS)
    for entry in reversed(entries[-_MAX_HOPS:]):
        previous = _parse(entry.decode("latin-1").strip(" \t"))
        if previous is None:
            return address
        address = previous
        if not _is_in(address, trusted):
            return address
    return address


def address_of(scope: Mapping[str, Any], headers: Sequence[tuple[bytes, bytes]], trusted: Networks) -> str | None:
    """The client's address as text, for an ASGI scope's connection and a request's headers."""
    client = scope.get("client")
    forwarded_for = [value for name, value in headers if name == b"x-forwarded-for"] if trusted else ()
    address = client_address(None if client is None else client[0], forwarded_for, trusted)
    return None if address is None else str(address)


def _is_in(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Address | None:
    """The address in `192.0.2.7`, `2001:db8::1`, or either with a port (`192.0.2.7:80`, `[2001:db8::1]:80`)."""
    try:
        return _plain(ip_address(_without_port(text)))
    except ValueError:
        return None


def _without_port(text: str) -> str:
    # Some proxies, Azure's among them, append the port of the connection too.
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        well_formed = bool(bracket) and (not port or (port.startswith(":") and port[1:].isdecimal()))
        return host if well_formed else ""
    host, colon, port = text.partition(":")
    return host if colon and "." in host and port.isdecimal() else text


def _plain(address: Address) -> Address:
    """IPv4 where it is IPv4 in IPv6's clothes (RFC 4291, section 2.5.5.2), and without a zone (`%eth0`)."""
    if address.version == 4:
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def _unmapped_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if network.version == 6 and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network
