"""What a grant allows: pure.

Knows how groups and addresses are matched; names are by `gateway.terms`. Which grants a key holds, and which model a
request names, is for others to find out. Every question here takes time in proportion to its input, whatever patterns
someone has written.
"""

import ipaddress
from functools import lru_cache

from gateway.errors import ModelNotAllowed, NetworkNotAllowed, RouteNotAllowed
from gateway.terms import Grants, matches

_REMEMBERED = 4096
_LONGEST_REMEMBERED = 256
"""Answers about longer names are not kept: whoever calls chooses the names, and would choose how much is kept."""
_LONGEST_SHOWN = 100
_MOST_SHOWN = 10

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def allows_model(grants: tuple[Grants, ...], names: tuple[str, ...]) -> bool:
    """Whether each of `grants` allows the model that goes by `names`: its alias and upstream's name.

    One allowed name is enough for a grant. A model without a name is allowed only where every model is.
    """
    if not grants:
        return True
    if all(len(name) <= _LONGEST_REMEMBERED for name in names):
        return _recall_model(grants, names)
    return _allows_model(grants, names)


def allows_route(grants: tuple[Grants, ...], group: str) -> bool:
    """Whether each of `grants` allows the routes of `group`."""
    return all(grant.routes is None or group in grant.routes for grant in grants)


def allows_address(grants: tuple[Grants, ...], address: str | None) -> bool:
    """Whether each of `grants` allows calls from `address`; one that is not known is in no network."""
    if not grants:
        return True
    if address is not None and len(address) > _LONGEST_REMEMBERED:
        address = None
    return _allows_address(grants, address)


def check_model(grants: tuple[Grants, ...], names: tuple[str, ...]) -> None:
    """As `allows_model`; raises `ModelNotAllowed`, whose message holds the first of `names` and what is allowed.

    The route that lists models may be refused to the same key, so that the message is all that it has.
    """
    if allows_model(grants, names):
        return
    allowed = _allowed_models(grants)
    if names:
        message = (
            f"This API key may not use the model {names[0][:_LONGEST_SHOWN]!r}. It may use {allowed}; ask whoever runs "
            "this gateway for others."
        )
    else:
        message = (
            f"This API key may use {allowed}, and this request names no model that the gateway can read. Name one in "
            "`model`; in a form an alias does not count. What may use any model, such as a batch, takes a key that "
            "may: ask whoever runs this gateway."
        )
    raise ModelNotAllowed(message, param="model")


def check_route(grants: tuple[Grants, ...], group: str) -> None:
    """As `allows_route`; raises `RouteNotAllowed`."""
    if not allows_route(grants, group):
        raise RouteNotAllowed(
            f"This API key may not use routes of the group {group!r}. Ask whoever runs this gateway for it."
        )


def check_address(grants: tuple[Grants, ...], address: str | None) -> None:
    """As `allows_address`; raises `NetworkNotAllowed`, whose message holds the address that was seen."""
    if not allows_address(grants, address):
        seen = "an address that is not known" if address is None else address[:_LONGEST_SHOWN]
        raise NetworkNotAllowed(
            f"This API key may not be used from {seen}. Call from a network that it is for, or ask whoever runs this "
            "gateway to add yours."
        )


def _allowed_models(grants: tuple[Grants, ...]) -> str:
    """`openai/*, fast`; of two grants that differ, `openai/*, and of these only *-mini`."""
    lists = dict.fromkeys(grant.models for grant in grants if grant.models is not None)
    return ", and of these only ".join(map(_first_of, lists)) if all(lists) else "no model"


def _first_of(patterns: tuple[str, ...]) -> str:
    more = len(patterns) - _MOST_SHOWN
    return ", ".join(patterns[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _allows_model(grants: tuple[Grants, ...], names: tuple[str, ...]) -> bool:
    named = names or ("",)
    return all(
        grant.models is None or any(matches(pattern, name) for pattern in grant.models for name in named)
        for grant in grants
    )


_recall_model = lru_cache(_REMEMBERED)(_allows_model)


@lru_cache(_REMEMBERED)
def _allows_address(grants: tuple[Grants, ...], address: str | None) -> bool:
    place = _parse_address(address)
    return all(
        grant.networks is None or (place is not None and any(place in network for network in _networks(grant.networks)))
        for grant in grants
    )


def _parse_address(text: str | None) -> _Address | None:
    """The address, an IPv4 one that is written as IPv6 (RFC 4291, section 2.5.5.2) as what it is."""
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(_REMEMBERED)
def _networks(texts: tuple[str, ...]) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)
