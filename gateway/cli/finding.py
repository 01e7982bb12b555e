"""Which team or key is meant: ids as they are, names looked up.

An id is one by its shape, so what is found can stand in a path as it is.
"""

import re
from typing import Any

from gateway.cli.api import Api, Refused
from gateway.cli.printing import program

_FORBIDDEN = 403


async def team_named(api: Api, text: str) -> str:
    """The id of the team with this id or name. Raises `Refused`."""
    if _is_id("team", text):
        return text
    found = [team for team in await api.listed("/teams", name=text) if team["name"] == text]
    if not found:
        raise Refused(f"There is no team {text} {api.place}. See {program()} teams list.")
    return str(found[0]["id"])


async def team_filter(api: Api, text: str | None) -> str | None:
    """The same of a team that a list may be held to. Raises `Refused`."""
    return None if text is None else await team_named(api, text)


async def key_named(api: Api, text: str, *, ended: bool = False) -> str:
    """The id of the key with this id, name or `team/name`. Raises `Refused`.

    Of revoked ones only where `ended` ones will do too and none that lives is called so: the team's that was revoked
    last.
    """
    if _is_id("key", text):
        return text
    named = await _keys_named(api, text)
    if not named:
        raise Refused(f"There is no key {text} {api.place}. See {program()} keys list.")
    found = [key for key in named if key["state"] != "revoked"]
    if len(found) == 1:
        return str(found[0]["id"])
    choices = ", ".join(sorted({f"{key['team']}/{key['name']}" for key in found or named}))
    if found or (ended and len({key["team_id"] for key in named}) > 1):
        raise Refused(f"Several keys are called {text}: {choices}. Say which, with its team or by its id.")
    last = await _ended_last(api, named)
    if ended:
        return last
    raise Refused(f"The key {text} was revoked, for good. See {program()} keys show {last}.")


async def _ended_last(api: Api, keys: list[dict[str, Any]]) -> str:
    """The id of the one of these revoked keys that was revoked last."""
    last_at = max(key["updated_at"] for key in keys)
    last = [str(key["id"]) for key in keys if key["updated_at"] == last_at]
    if len(last) == 1:
        return last[0]
    # Of one second, the log knows the order.
    entries = [entry for each in last for entry in await api.listed("/audit", 1, object_id=each)]
    return str(max(entries, key=lambda entry: int(entry["id"]))["object_id"]) if entries else last[0]


def _is_id(kind: str, text: str) -> bool:
    # A name may begin as an id does.
    return re.fullmatch(rf"{kind}_[0-9A-Za-z]{{20}}", text) is not None


async def _keys_named(api: Api, text: str) -> list[dict[str, Any]]:
    """Revoked ones too. A member's key is asked for itself: it may not list any."""
    try:
        return await _keys_like(api, text)
    except Refused as refusal:
        own = None if refusal.status != _FORBIDDEN else (await api.get("/me"))["key"]
        if own is None or text not in (own["name"], f"{own['team']}/{own['name']}"):
            raise
        return [own]


async def _keys_like(api: Api, text: str) -> list[dict[str, Any]]:
    # Names of teams may hold slashes, and those of old keys. Nobody who names their key like another team's gets what
    # is meant for that one: with a slash, a team is named.
    cuts = [index for index, character in enumerate(text) if character == "/"]
    parts: list[tuple[str | None, str]] = [(text[:cut], text[cut + 1 :]) for cut in cuts]
    found = []
    for team, name in parts or [(None, text)]:
        keys = await api.listed("/keys", name=name) if name else []
        found += [key for key in keys if key["name"] == name and team in (None, key["team"])]
    return found
