"""The last admin key: a gateway that nobody can administer any more is out of reach.

Knows how long admin keys reach into the future. A change may shorten that of one only if another reaches as far.
"""

from collections.abc import Callable

from gateway.access.change import Change
from gateway.access.records import Key
from gateway.access.validity import LARGEST
from gateway.errors import Conflict

_NEVER = LARGEST
"""Later than any time."""


async def check_an_admin_key_remains(change: Change, before: Key, after: Key) -> None:
    """Whether `before` may become `after`. Raises `Conflict`."""
    had = _reach(before)
    if had > change.now and _reach(after) < had:
        team = await change.team(before.team_id)
        if team.state == "active" and await _furthest(change, lambda key: key.id != before.id) < had:
            raise _last()


async def check_an_admin_remains(change: Change, *, without_team: str) -> None:
    """Whether the keys of a team may stop to work. Raises `Conflict`."""
    had = await _furthest(change, lambda key: key.team_id == without_team)
    if had > change.now and await _furthest(change, lambda key: key.team_id != without_team) < had:
        raise _last()


def _reach(key: Key) -> int:
    if key.role != "admin" or key.state != "active":
        return 0
    return _NEVER if key.expires_at is None else key.expires_at


async def _furthest(change: Change, is_meant: Callable[[Key], bool]) -> int:
    """Until when the last of some admin keys works, Unix time; 0 if there is none."""
    disabled = await change.disabled_teams()
    working = (key for key in await change.admin_keys() if key.team_id not in disabled)
    return max((_reach(key) for key in working if is_meant(key)), default=0)


def _last() -> Conflict:
    return Conflict(
        "No other admin key would work as long as this one does, and then nobody could administer the gateway. Make"
        " another key with the role admin first, or start the gateway with GATEWAY_ADMIN_KEY."
    )
