"""What a team and a key may hold, whoever makes them: pure.

Knows lengths, ranges and spellings; gives back what was asked for in the spelling that is stored, or raises
`BadRequest` that names the member. The same holds for every way in: a create, an update, an import.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from gateway.access.drafts import KeyDraft, TeamDraft
from gateway.errors import BadRequest
from gateway.terms import MOST_WAIT_S, Budgets, Grants, Limits

LARGEST = 2**53 - 1
"""The largest integer that every JSON reader reads exactly (RFC 8259, section 6)."""
_LATEST = 253_402_300_799
"""The end of the year 9999, the last that calendars print."""
_MOST_TAGS, _MOST_ENTRIES, _MOST_MODELS = 32, 200, 100
_MOST_STARS = 8
"""Of one pattern: with more it takes long to say of a name that it does not fit, and nobody means that."""
_LONGEST_NAME, _LONGEST_OWNER, _LONGEST_MODEL, _LONGEST_TAG, _LONGEST_VALUE = 100, 200, 256, 64, 256
_ID = re.compile(r"(team|key)_[0-9A-Za-z]{20}")
_Drafted = TypeVar("_Drafted", TeamDraft, KeyDraft)
_Amounts = TypeVar("_Amounts", Limits, Budgets)


def is_plain(text: str) -> bool:
    """Whether databases and terminals take `text`: no control character, no half of a surrogate pair."""
    return text.isprintable()


def legal_team(draft: TeamDraft, route_groups: frozenset[str]) -> TeamDraft:
    """`draft` as it is stored. Raises `BadRequest`."""
    if len(draft.model_limits) > _MOST_MODELS:
        raise BadRequest(f"model_limits must name {_MOST_MODELS} models at most.", param="model_limits")
    model_limits = {
        _model(model, "model_limits"): _of_model(limits, f"model_limits.{model}")
        for model, limits in draft.model_limits.items()
    }
    return msgspec.structs.replace(_legal_terms(draft, route_groups), model_limits=model_limits)


def legal_key(draft: KeyDraft, route_groups: frozenset[str]) -> KeyDraft:
    """`draft` as it is stored. Raises `BadRequest`. Whether it ends in the future is `check_ends_later`."""
    owner = draft.owner.strip() if draft.owner is not None else None
    if owner is not None:
        _check_text(owner, "owner", _LONGEST_OWNER)
    if draft.expires_at is not None and not 0 <= draft.expires_at <= _LATEST:
        raise BadRequest("expires_at must be Unix time in seconds, before the year 10000.", param="expires_at")
    return msgspec.structs.replace(_legal_terms(draft, route_groups), owner=owner)


def check_key_name(name: str) -> None:
    """Raises `BadRequest` for a name that no key is given any more."""
    if "/" in name:
        raise BadRequest("name must hold no slash: commands write a key as team/name.", param="name")


def check_ends_later(expires_at: int | None, now: int) -> None:
    """Raises `BadRequest` for a time that has passed."""
    if expires_at is not None and expires_at <= now:
        raise BadRequest("expires_at must be in the future. To end a key now, revoke it.", param="expires_at")


def legal_grants(grants: Grants, route_groups: frozenset[str]) -> Grants:
    """`grants` without repeats, networks in their usual spelling. Raises `BadRequest`."""
    return Grants(
        models=_each(grants.models, "grants.models", lambda model: _model(model, "grants.models")),
        routes=_each(grants.routes, "grants.routes", lambda group: _route(group, route_groups)),
        networks=_each(grants.networks, "grants.networks", _network),
    )


def _legal_terms(draft: _Drafted, route_groups: frozenset[str]) -> _Drafted:
    return msgspec.structs.replace(
        draft,
        name=_name(draft.name),
        grants=legal_grants(draft.grants, route_groups),
        limits=_limits(draft.limits, "limits"),
        budgets=_positive(draft.budgets, "budgets"),
        tags=_tags(draft.tags),
    )


def _name(text: str) -> str:
    name = text.strip()
    _check_text(name, "name", _LONGEST_NAME)
    if _ID.fullmatch(name) is not None:
        # Objects are looked up by id or by name: a name must not pass for another object's id.
        raise BadRequest("name must not look like an id.", param="name")
    return name


def _check_text(text: str, member: str, longest: int) -> None:
    if not 1 <= len(text) <= longest or not is_plain(text):
        raise BadRequest(f"{member} must be 1 to {longest} printable characters.", param=member)


def _each(entries: tuple[str, ...] | None, member: str, legal: Callable[[str], str]) -> tuple[str, ...] | None:
    if entries is None:
        return None
    if len(entries) > _MOST_ENTRIES:
        raise BadRequest(f"{member} must have {_MOST_ENTRIES} entries at most.", param=member)
    return tuple(dict.fromkeys(map(legal, entries)))


def _model(text: str, member: str) -> str:
    model = text.strip()
    _check_text(model, member, _LONGEST_MODEL)
    if any(character in "?[]{}" for character in model):
        raise BadRequest(f"{member}: the one wildcard is *, for any run of characters.", param=member)
    if model.count("*") > _MOST_STARS:
        raise BadRequest(f"{member}: a name has {_MOST_STARS} wildcards at most.", param=member)
    return model


def _route(group: str, route_groups: frozenset[str]) -> str:
    if group not in route_groups:
        raise BadRequest(f"grants.routes: each must be one of {_listed(route_groups)}.", param="grants.routes")
    return group


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError:
        raise BadRequest(
            "grants.networks: each must be a network or an address, such as 10.0.0.0/8 or 192.0.2.7, with no bit set"
            " beyond the prefix.",
            param="grants.networks",
        ) from None


def _of_model(limits: Limits, member: str) -> Limits:
    if limits.max_wait_s is not None:
        raise BadRequest(
            f"{member}.max_wait_s: calls wait as their key or team may, whatever the model. Set it there.",
            param=f"{member}.max_wait_s",
        )
    return _positive(limits, member)


def _limits(limits: Limits, member: str) -> Limits:
    wait_s = limits.max_wait_s
    if wait_s is not None and (type(wait_s) is not int or not 0 <= wait_s <= MOST_WAIT_S):
        raise BadRequest(
            f"{member}.max_wait_s must be an integer from 0 to {MOST_WAIT_S} seconds.", param=f"{member}.max_wait_s"
        )
    return _positive(limits, member)


def _positive(amounts: _Amounts, member: str) -> _Amounts:
    for field in amounts.__struct_fields__:
        if field == "max_wait_s":
            continue
        amount = getattr(amounts, field)
        if amount is not None and (type(amount) is not int or not 0 < amount <= LARGEST):
            raise BadRequest(f"{member}.{field} must be an integer from 1 to 2^53 - 1.", param=f"{member}.{field}")
    return amounts


def _tags(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > _MOST_TAGS:
        raise BadRequest(f"tags must be {_MOST_TAGS} at most.", param="tags")
    for name, value in tags.items():
        _check_text(name, "the name of a tag", _LONGEST_TAG)
        if any(character in '"\\=' for character in name):
            raise BadRequest("The name of a tag must hold no double quote, backslash or equals sign.", param="tags")
        if len(value) > _LONGEST_VALUE or not is_plain(value):
            raise BadRequest(f"The value of a tag must be {_LONGEST_VALUE} printable characters at most.", param="tags")
    return tags


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
