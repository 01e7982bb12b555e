"""Names of teams and keys by their ids, for what is kept by id alone.

Knows nothing of who may see them: whoever asks has the ids, of rows that were theirs to see.
"""

from collections.abc import Iterable

import msgspec
from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.engine import Store
from gateway.store.tables import keys, teams


class Names(msgspec.Struct, frozen=True):
    """By id; what is not in the store has none."""

    teams: dict[str, str]
    keys: dict[str, str]


async def names_of(store: Store, team_ids: Iterable[str], key_ids: Iterable[str]) -> Names:
    """The names of some thousand teams and keys at most. Raises `StoreUnavailable`."""
    of_teams, of_keys = set(team_ids), set(key_ids)
    if not of_teams and not of_keys:
        return Names({}, {})
    async with store.reading() as connection:
        return Names(await _named(connection, teams, of_teams), await _named(connection, keys, of_keys))


async def _named(connection: AsyncConnection, table: Table, ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    rows = await connection.execute(select(table.c.id, table.c.name).where(table.c.id.in_(sorted(ids))))
    return {row.id: row.name for row in rows}
