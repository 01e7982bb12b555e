"""Many changes in one transaction, read in a few queries and written in a few statements.

Knows that each change sees those before it, though nothing is written until all of them are made. So they can be tried
on a mere view, too. Which changes are legal is decided elsewhere, as for a single one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Table, bindparam, insert, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.change import Change, View, ids_of
from gateway.access.records import Key, Team
from gateway.access.rows import key_of, select_keys, select_teams, team_of
from gateway.access.rules import Authority
from gateway.access.validity import is_plain
from gateway.store.changes import bump_each
from gateway.store.tables import audit, keys, secrets, teams

_ROWS = 100
"""Of one statement, so that calls go on between two of them."""


class Batch(Change):
    """A change of which nothing is in the database before `write`. Finds teams and keys by name, and teams by id."""

    is_judged_whole = True

    def __init__(self, connection: AsyncConnection, authority: Authority, now: int) -> None:
        super().__init__(connection, authority, now)
        self._teams: dict[str, dict[str, Team | None]] = {"id": {}, "name": {}}
        self._keys: dict[tuple[str, str], Key | None] = {}
        self._admins: dict[str, Key] | None = None
        self._disabled: set[str] | None = None
        self._new: dict[str, dict[str, Any]] = {}
        """Rows to be inserted, by id."""
        self._inserts: dict[Table, list[dict[str, Any]]] = {table: [] for table in (teams, keys, secrets, audit)}
        self._updates: dict[Table, dict[str, dict[str, Any]]] = {teams: {}, keys: {}}
        self._touched: dict[tuple[str, str | None], None] = {}
        self._marked: list[bytes] = []

    async def load(self, names: Mapping[str, Iterable[str]]) -> None:
        """Read these teams and, of each that the actor sees, the keys of these names. What is not there is noted."""
        plain = [name for name in names if is_plain(name)]
        self._teams["name"].update(dict.fromkeys(plain))
        for row in await self.connection.execute(select_teams().where(teams.c.name.in_(plain))):
            self._keep_team(team_of(row))
        seen = [team for team in self._teams["name"].values() if team is not None and self._sees(team)]
        pairs = [(team.id, name) for team in seen for name in names[team.name] if is_plain(name)]
        self._keys.update(dict.fromkeys(pairs))
        named = (tuple_(keys.c.team_id, keys.c.name).in_(pairs), keys.c.state != "revoked")
        for row in await self.connection.execute(select_keys(self.now).where(*named)):
            self._keep_key(key_of(row))

    @property
    def replaces(self) -> bool:
        """Whether it changes teams or keys that were there before."""
        return any(self._updates.values())

    def stored(self) -> View:
        """What is in the database: before `write`, all as it was."""
        return View(self.connection, self.authority, self.now)

    async def write(self) -> None:
        """Put all of it into the database, and give out numbers."""
        for table, rows in self._inserts.items():
            await self._execute(insert(table), rows)
        for table, changed in self._updates.items():
            # In one order, the same that last uses are written in, so that no two transactions wait for each other.
            rows = [{"of_id": it, **changed[it]} for it in sorted(changed)]
            await self._execute(update(table).where(table.c.id == bindparam("of_id")), rows)
        is_marked = update(secrets).where(secrets.c.digest == bindparam("of_digest")).values(is_imported=True)
        await self._execute(is_marked, [{"of_digest": digest} for digest in self._marked])
        if self._touched:
            self.revision = await bump_each(self.connection, list(self._touched), at=self.now)

    async def find_key(self, team_id: str, name: str) -> Key | None:
        """As ever, changes of this batch included."""
        if (team_id, name) not in self._keys:
            self._keys[team_id, name] = None if team_id in self._new else await super().find_key(team_id, name)
        return self._keys[team_id, name]

    async def admin_keys(self) -> list[Key]:
        """As ever, changes of this batch included."""
        if self._admins is None:
            self._admins = {key.id: key for key in await super().admin_keys()}
        mine = {key.id: key for key in self._keys.values() if key is not None}
        return [key for key in (self._admins | mine).values() if (key.role, key.state) == ("admin", "active")]

    async def disabled_teams(self) -> set[str]:
        """As ever, changes of this batch included."""
        if self._disabled is None:
            self._disabled = await super().disabled_teams()
        mine = [team for team in self._teams["id"].values() if team is not None]
        others = self._disabled - {team.id for team in mine}
        return others | {team.id for team in mine if team.state == "disabled"}

    async def add_team(self, team: Team) -> Team:
        """To be stored by `write`."""
        return self._keep_team(await super().add_team(team))

    async def replace_team(self, before: Team, after: Team, action: str = "team.update") -> Team:
        """To be stored by `write`."""
        after = await super().replace_team(before, after, action)
        self._teams["name"][before.name] = None
        return self._keep_team(after)

    async def add_key(self, key: Key, digest: bytes, *, is_imported: bool = False) -> Key:
        """To be stored by `write`."""
        return self._keep_key(await super().add_key(key, digest, is_imported=is_imported))

    def mark_imported(self, key: Key, digest: bytes) -> None:
        """Let this secret of a key that is there have any form, from `write` on; the key stays what it was."""
        self._marked.append(digest)
        self._touched[ids_of(key)] = None

    async def replace_key(self, before: Key, after: Key, action: str = "key.update") -> Key:
        """To be stored by `write`."""
        after = await super().replace_key(before, after, action)
        self._keys[before.team_id, before.name] = None
        return self._keep_key(after)

    async def _team_where(self, column: Column[Any], value: str) -> Team | None:
        known = self._teams[column.name]
        if value not in known:
            known[value] = await super()._team_where(column, value)
        return known[value]

    def _keep_team(self, team: Team) -> Team:
        self._teams["id"][team.id] = self._teams["name"][team.name] = team
        return team

    def _keep_key(self, key: Key) -> Key:
        self._keys[key.team_id, key.name] = key
        return key

    def _sees(self, team: Team) -> bool:
        return self.authority.role == "admin" or self.authority.team_id == team.id

    async def _insert(self, table: Table, values: dict[str, Any]) -> None:
        self._inserts[table].append(values)
        if table in self._updates:
            self._new[values["id"]] = values

    async def _swap(self, table: Table, before: Team | Key, values: dict[str, Any]) -> None:
        if before.id in self._new:
            self._new[before.id].update(values)
        else:
            self._updates[table][before.id] = values

    async def _number(self, after: Team | Key) -> None:
        self._touched[ids_of(after)] = None

    async def _execute(self, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
        for start in range(0, len(rows), _ROWS):
            await self.connection.execute(statement, list(rows[start : start + _ROWS]))
