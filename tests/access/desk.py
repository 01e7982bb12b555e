"""A gateway's administration for tests: on a real store, with a clock that stands, and its changes written down."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import URL, Table, func, select

from gateway.access.administration import Administration
from gateway.access.drafts import KeyDraft, TeamDraft
from gateway.access.keys import digest
from gateway.access.records import Actor, Issued, Team
from gateway.store.engine import Store
from gateway.store.tables import audit, changes, keys, metadata, revision, secrets, teams

ROOT = Actor("cli", "admin")
GROUPS = frozenset({"chat", "responses", "files"})
NOW = 1_800_000_000


class Desk:
    """`do` is the administration, `revisions` are those that it announced, `now` its clock."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = NOW
        self.revisions: list[int] = []
        self.do = Administration(store, on_change=self._announced, route_groups=GROUPS, now=lambda: self.now)

    async def _announced(self, revision: int) -> None:
        self.revisions.append(revision)

    async def team(self, name: str = "research", **members: Any) -> Team:
        """Made by whoever holds the machine."""
        return (await self.do.create_team(ROOT, TeamDraft(name, **members))).team

    async def key(self, name: str = "alice", team: str = "research", **members: Any) -> Issued:
        """Made by whoever holds the machine."""
        return await self.do.create_key(ROOT, KeyDraft(team, name, **members))

    async def as_key(self, name: str = "alice", team: str = "research", **members: Any) -> Actor:
        """Whoever has a new key."""
        return actor_of(await self.key(name, team, **members))

    async def trace(self) -> tuple[Any, ...]:
        """All that a change would leave; equal before and after a refused one."""
        async with self.store.reading() as connection:
            number = (await connection.execute(select(revision.c.value))).scalar_one()
            counted = [
                (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in (teams, keys, secrets, audit, changes)
            ]
            versions = (await connection.execute(select(keys.c.id, keys.c.version).order_by(keys.c.id))).all()
        return number, counted, [tuple(row) for row in versions], list(self.revisions)

    async def rows(self, table: Table) -> list[dict[str, Any]]:
        async with self.store.reading() as connection:
            return [dict(row._mapping) for row in await connection.execute(select(table))]

    async def everything(self) -> str:
        """All that is stored, as text."""
        return "\n".join([str(await self.rows(table)) for table in metadata.sorted_tables])

    async def works(self, secret: str) -> bool:
        """Whether the store would let a call with this secret in, now."""
        async with self.store.reading() as connection:
            found = (
                await connection.execute(
                    select(secrets.c.valid_until, keys.c.state, teams.c.state.label("team_state"))
                    .join(keys, keys.c.id == secrets.c.key_id)
                    .join(teams, teams.c.id == keys.c.team_id)
                    .where(secrets.c.digest == digest(secret.encode()))
                )
            ).first()
        if found is None or (found.state, found.team_state) != ("active", "active"):
            return False
        return found.valid_until is None or bool(found.valid_until > self.now)


def actor_of(issued: Issued, address: str | None = None) -> Actor:
    """Whoever has this key, and came with this secret."""
    return Actor(issued.key.id, issued.key.role, issued.key.id, digest(secret_of(issued).encode()), address)


def secret_of(issued: Issued) -> str:
    """The secret, which must be there."""
    assert issued.secret is not None
    return issued.secret


@contextlib.asynccontextmanager
async def opened(url: URL) -> AsyncIterator[Desk]:
    """A desk on the database at `url`."""
    store = Store(url)
    try:
        yield Desk(store)
    finally:
        await store.close()
