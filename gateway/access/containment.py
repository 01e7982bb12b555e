"""Whether one grant lies within another: pure.

Whoever hands out grants chooses how many there are on both sides, so what a comparison costs is bounded here: patterns
are taken apart once for all that is compared with them, networks are looked up by halving, and what was asked before
of the few grants that were compared with last is not worked out again.
"""

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache

from gateway.terms import Grants, fits

_REMEMBERED = 8
"""Grants to compare with: those of whoever acts and of their team, for all keys of an import."""
_MOST_ANSWERS = 10_000

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_within(inner: Grants, outer: Grants) -> bool:
    """Whether everything that `inner` allows is allowed by `outer` too.

    Exact for models and networks, several narrow ones that make up a wide one included. Raises ValueError for a
    network that is none.
    """
    return (
        _models_within(inner.models, outer.models)
        and _routes_within(inner.routes, outer.routes)
        and _networks_within(inner.networks, outer.networks)
    )


class _Patterns:
    """Which patterns lie within some patterns."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._plain = frozenset(patterns)
        self._pieces = [pattern.split("*") for pattern in patterns if "*" in pattern]
        self._answers: dict[str, bool] = {}

    def hold(self, narrow: str) -> bool:
        """A star in a name is only fit by a star, so to match a pattern as if it were a name asks for all its names."""
        if narrow in self._plain:
            return True
        known = self._answers.get(narrow)
        if known is None:
            known = any(fits(pieces, narrow) for pieces in self._pieces)
            if len(self._answers) < _MOST_ANSWERS:
                self._answers[narrow] = known
        return known


class _Ranges:
    """Which networks lie within some networks of one family."""

    def __init__(self, networks: Iterable[_Network]) -> None:
        # Neighbours are made one, so that what lies within several lies within one.
        merged = [*ipaddress.collapse_addresses(networks)]  # type: ignore[type-var]  # all are of one family
        self._first = [int(network.network_address) for network in merged]
        self._last = [int(network.broadcast_address) for network in merged]

    def hold(self, network: _Network) -> bool:
        at = bisect_right(self._first, int(network.network_address)) - 1
        return at >= 0 and int(network.broadcast_address) <= self._last[at]


_patterns = lru_cache(_REMEMBERED)(_Patterns)


@lru_cache(_REMEMBERED)
def _ranges(texts: tuple[str, ...]) -> dict[int, _Ranges]:
    networks = [ipaddress.ip_network(text) for text in texts]
    return {family: _Ranges(each for each in networks if each.version == family) for family in (4, 6)}


def _models_within(inner: tuple[str, ...] | None, outer: tuple[str, ...] | None) -> bool:
    if outer is None:
        return True
    patterns = _patterns(outer)
    return all(map(patterns.hold, ("*",) if inner is None else inner))


def _routes_within(inner: tuple[str, ...] | None, outer: tuple[str, ...] | None) -> bool:
    return outer is None or (inner is not None and set(inner) <= set(outer))


def _networks_within(inner: tuple[str, ...] | None, outer: tuple[str, ...] | None) -> bool:
    if outer is None or inner is None:
        return outer is None
    ranges = _ranges(outer)
    return all(ranges[network.version].hold(network) for network in map(ipaddress.ip_network, inner))
