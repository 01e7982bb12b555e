"""The last admin key: a gateway that nobody can administer any more is out of reach.

Knows how long admin keys reach into the future. A change may shorten that of one only if another reaches as far.
"""

from sqlalchemy import BigInteger, ColumnElement, func, literal, select

from gateway.access.change import Change
from gateway.access.records import Key
from gateway.access.validity import LARGEST
from gateway.errors import Conflict
from gateway.store.tables import keys, teams

_NEVER = LARGEST
"""Later than any time."""


async def check_an_admin_key_remains(change: Change, before: Key, after: Key) -> None:
    """Whether `before` may become `after`. Raises `Conflict`."""
    had = _reach(before)
    if had > change.now and _reach(after) < had:
        team = await change.team(before.team_id)
        if team.state == "active" and await _furthest(change, keys.c.id != before.id) < had:
            raise _last()


async def check_an_admin_remains(change: Change, *, without_team: str) -> None:
    """Whether the keys of a team may stop to work. Raises `Conflict`."""
    had = await _furthest(change, keys.c.team_id == without_team)
    if had > change.now and await _furthest(change, keys.c.team_id != without_team) < had:
        raise _last()


def _reach(key: Key) -> int:
    if key.role != "admin" or key.state != "active":
        return 0
    return _NEVER if key.expires_at is None else key.expires_at


async def _furthest(change: Change, which: ColumnElement[bool]) -> int:
    """Until when the last of some admin keys works, Unix time; 0 if there is none."""
    reach = select(func.max(func.coalesce(keys.c.expires_at, literal(_NEVER, BigInteger)))).join(
        teams, teams.c.id == keys.c.team_id
    )
    working = (keys.c.role == "admin", keys.c.state == "active", teams.c.state == "active")
    return (await change.connection.execute(reach.where(which, *working))).scalar() or 0


def _last() -> Conflict:
    return Conflict(
        "No other admin key would work as long as this one does, and then nobody could administer the gateway. Make"
        " another key with the role admin first, or set GATEWAY_ADMIN_KEY."
    )
