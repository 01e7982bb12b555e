"""What an update asks for: an object with some members changed, as a JSON merge patch says (RFC 7396). Pure.

Members that nobody may write, and members that there are not, are refused by name: what is ignored today would be
obeyed tomorrow.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from gateway.access.drafts import KeyDraft, TeamDraft
from gateway.access.records import Key, Team
from gateway.errors import BadRequest
from gateway.terms import Budgets, Grants, Limits

_MERGED: dict[str, type[msgspec.Struct]] = {"grants": Grants, "limits": Limits, "budgets": Budgets}
_DICTS = ("tags", "model_limits")
_OF_TEAM = ("name", "grants", "limits", "model_limits", "budgets", "tags")
_OF_KEY = ("name", "owner", "role", "grants", "limits", "budgets", "tags", "expires_at")
_LONGEST_SHOWN = 100
_Drafted = TypeVar("_Drafted", TeamDraft, KeyDraft)


def team_draft(team: Team) -> TeamDraft:
    """What would make a team like this one."""
    return TeamDraft(**{member: getattr(team, member) for member in _OF_TEAM})


def key_draft(key: Key) -> KeyDraft:
    """What would make a key like this one."""
    return KeyDraft(team=key.team_id, **{member: getattr(key, member) for member in _OF_KEY})


def patched_team(team: Team, changes: Mapping[str, object]) -> TeamDraft:
    """`team` with `changes`. Raises `BadRequest` for what does not exist or is of a wrong type."""
    return _patched(team_draft(team), changes, _OF_TEAM)


def patched_key(key: Key, changes: Mapping[str, object]) -> KeyDraft:
    """`key` with `changes`. Raises `BadRequest` for what does not exist or is of a wrong type."""
    return _patched(key_draft(key), changes, _OF_KEY)


def check_members(given: Iterable[object], known: Iterable[str], where: str = "") -> None:
    """Raises `BadRequest` for a name among `given` that is not `known`; `where` is what they are members of."""
    allowed = tuple(known)
    for name in given:
        if name not in allowed:
            inside = f" of {where}" if where else ""
            raise BadRequest(f"{_shown(name)} is no member{inside} that can be set; these can: {', '.join(allowed)}.")


def converted(value: object, kind: Any, member: str) -> Any:
    """`value` as a `kind`. Raises `BadRequest` that names `member`."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadRequest(f"{member} is not of the right type: {_shown(error)}.", param=member) from None


def check_nested(member: str, value: object) -> None:
    """Raises `BadRequest` for an unknown name within the value of grants, limits, budgets or model_limits."""
    if member in _MERGED and isinstance(value, Mapping):
        check_members(value, _MERGED[member].__struct_fields__, member)
    if member == "model_limits" and isinstance(value, Mapping):
        for limits in value.values():
            check_nested("limits", limits)


def _patched(draft: _Drafted, changes: Mapping[str, object], members: tuple[str, ...]) -> _Drafted:
    check_members(changes, members)
    old = msgspec.to_builtins(draft)
    new = {name: _new_value(name, old.get(name), value) for name, value in changes.items()}
    kinds = {field.name: field.type for field in msgspec.structs.fields(draft)}
    values = {name: converted(value, kinds[name], name) for name, value in new.items()}
    return msgspec.structs.replace(draft, **values)


def _new_value(member: str, old: object, patch: object) -> object:
    check_nested(member, patch)
    if member not in _MERGED and member not in _DICTS:
        return patch
    return {} if patch is None else _merged(old, patch)


def _merged(old: object, patch: object) -> object:
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(old) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _shown(what: object) -> str:
    # A half of a surrogate pair in a name would break the reply that quotes it.
    return ascii(str(what))[1:-1][:_LONGEST_SHOWN]
