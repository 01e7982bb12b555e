"""Teams and keys as rows, and back.

Knows which member lies in which column. Decides nothing.
"""

from typing import Any

import msgspec
from sqlalchemy import Row, Select, func, select

from gateway.access.records import Key, Team
from gateway.store.tables import keys, secrets, teams
from gateway.terms import Budgets, Grants, Limits

_GRACE = "grace_until"


def select_teams() -> Select[Any]:
    """Rows for `team_of`."""
    return select(teams)


def select_keys(now: int) -> Select[Any]:
    """Rows for `key_of`. A grace that ended by `now`, Unix time, is none."""
    grace = (
        select(func.max(secrets.c.valid_until))
        .where(secrets.c.key_id == keys.c.id, secrets.c.valid_until > now)
        .scalar_subquery()
    )
    of_team = teams.c.name.label("team"), teams.c.state.label("team_state")
    return select(keys, *of_team, grace.label(_GRACE)).join(teams, teams.c.id == keys.c.team_id)


def team_of(row: Row[Any]) -> Team:
    """The team that a row of `select_teams` holds."""
    return msgspec.convert(mapping_of(row), Team)


def key_of(row: Row[Any]) -> Key:
    """The key that a row of `select_keys` holds."""
    return msgspec.convert(mapping_of(row), Key)


def mapping_of(row: Row[Any]) -> dict[str, Any]:
    """A row's columns by name; some of SQLAlchemy's names are of a subclass of str, which msgspec does not take."""
    return {str(name): value for name, value in row._mapping.items()}  # noqa: SLF001 - public in spite of its name


def team_values(team: Team) -> dict[str, Any]:
    """The columns of a team's row."""
    return {column.name: _stored(getattr(team, column.name)) for column in teams.columns}


def key_values(key: Key) -> dict[str, Any]:
    """The columns of a key's row, but when it was last used: that is written by others, at any time."""
    return {column.name: _stored(getattr(key, column.name)) for column in keys.columns if column.name != "last_used_at"}


def _stored(value: object) -> object:
    if isinstance(value, (Grants, Limits, Budgets, dict)):
        return msgspec.to_builtins(value)
    return value
