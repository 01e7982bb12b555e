"""The last admin key: a gateway that nobody can administer any more is out of reach.

Knows how long admin keys reach into the future. A change may shorten that of one only if another reaches as far. Of
many changes at once their outcome counts, in whatever order they come.
"""

from collections.abc import Iterable

from gateway.access.change import Change, View
from gateway.access.records import Key
from gateway.access.validity import LARGEST
from gateway.errors import Conflict

_NEVER = LARGEST
"""Later than any time."""


async def check_an_admin_key_remains(change: Change, before: Key, after: Key) -> None:
    """Whether `before` may become `after`. Raises `Conflict`."""
    if change.is_judged_whole:
        return
    had = _reach(before)
    if had > change.now and _reach(after) < had:
        team = await change.team(before.team_id)
        others = [key for key in await _working(change) if key.id != before.id]
        if team.state == "active" and _furthest(others) < had:
            raise _last()


async def check_an_admin_remains(change: Change, *, without_team: str) -> None:
    """Whether the keys of a team may stop to work. Raises `Conflict`."""
    if change.is_judged_whole:
        return
    working = await _working(change)
    had = _furthest([key for key in working if key.team_id == without_team])
    if had > change.now and _furthest([key for key in working if key.team_id != without_team]) < had:
        raise _last()


async def check_admins_remain(before: View, after: View) -> None:
    """Whether all that a change does may lead from one to the other. Raises `Conflict`."""
    working = await _working(before)
    had = _furthest(working)
    if had > before.now and _furthest(await _working(after)) < had:
        raise _last(next(f"{key.team}/{key.name}" for key in working if _reach(key) == had))


def _reach(key: Key) -> int:
    if key.role != "admin" or key.state != "active":
        return 0
    return _NEVER if key.expires_at is None else key.expires_at


def _furthest(keys: Iterable[Key]) -> int:
    """Until when the last of some admin keys works, Unix time; 0 if there is none."""
    return max(map(_reach, keys), default=0)


async def _working(view: View) -> list[Key]:
    """Admin keys of teams that are not disabled."""
    disabled = await view.disabled_teams()
    return [key for key in await view.admin_keys() if key.team_id not in disabled]


def _last(name: str = "this one") -> Conflict:
    return Conflict(
        f"No other admin key would work as long as {name} does, and then nobody could administer the gateway. Make"
        " another key with the role admin first, or start the gateway with GATEWAY_ADMIN_KEY."
    )
