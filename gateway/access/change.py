"""One transaction that changes teams and keys: what it reads, the rows it writes, the trail it leaves.

Knows that each row comes with an audit entry and a number, that changes come one after the other, and who acts as the
store has it now. Which changes are legal is decided before: see `rules` and `validity`.
"""

import secrets as randomness
import string
from collections.abc import Mapping
from typing import Any, Self

import msgspec
from sqlalchemy import Column, Select, Table, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access import rules
from gateway.access.grants import check_address
from gateway.access.records import Actor, Key, Team
from gateway.access.rows import key_of, key_values, select_keys, select_teams, team_of, team_values
from gateway.access.rules import Authority
from gateway.access.validity import is_plain
from gateway.errors import Forbidden, InvalidKey, PreconditionFailed
from gateway.store.changes import bump
from gateway.store.tables import audit, keys, revision, secrets, teams
from gateway.terms import NO_LIMITS, Limits

_BASE62 = string.digits + string.ascii_letters
_NOT_AUDITED = ("last_used_at", "team_state")
_ALL = "all"
"""What an entry of the audit log names in place of an id."""
_NOTHING: Mapping[str, object] = {}


def new_id(kind: str) -> str:
    """`team_` or `key_` and 20 random base62 characters (119 bits)."""
    return f"{kind}_" + "".join(randomness.choice(_BASE62) for _ in range(20))


class View:
    """What an actor sees through one connection at `now`, Unix time."""

    def __init__(self, connection: AsyncConnection, authority: Authority, now: int) -> None:
        self.connection = connection
        self.authority = authority
        self.now = now

    @classmethod
    async def open(cls, connection: AsyncConnection, actor: Actor, now: int, defaults: Limits = NO_LIMITS) -> Self:
        """`defaults` are those of keys that say nothing.

        Raises `InvalidKey` if the actor's key or secret has died, `Forbidden` in its grace or from elsewhere.
        """
        return cls(connection, await _authority(connection, actor, now, defaults), now)

    async def team(self, id_or_name: str) -> Team:
        """A team that the actor sees. Raises `NotFound`."""
        team = await self.find_team(id_or_name)
        if team is None:
            raise rules.no_such("team")
        rules.check_sees_team(self.authority, team.id)
        return team

    async def find_team(self, id_or_name: str) -> Team | None:
        """Any team, by its id or else by its name."""
        return await self._team_where(teams.c.id, id_or_name) or await self._team_where(teams.c.name, id_or_name)

    async def team_named(self, name: str) -> Team | None:
        """Any team, by its name."""
        return await self._team_where(teams.c.name, name)

    async def key(self, key_id: str) -> Key:
        """A key that the actor sees. Raises `NotFound`."""
        row = await self._first(select_keys(self.now).where(keys.c.id == key_id)) if is_plain(key_id) else None
        if row is None:
            raise rules.no_such("key")
        key = key_of(row)
        rules.check_sees_key(self.authority, key)
        return key

    async def find_key(self, team_id: str, name: str) -> Key | None:
        """The key of that name in the team that is not revoked, of which there is one at most."""
        named = (keys.c.team_id == team_id, keys.c.name == name, keys.c.state != "revoked")
        row = await self._first(select_keys(self.now).where(*named)) if is_plain(name) else None
        return None if row is None else key_of(row)

    async def admin_keys(self) -> list[Key]:
        """Active keys with the role admin, of all teams."""
        active = (keys.c.role == "admin", keys.c.state == "active")
        return [key_of(row) for row in await self.connection.execute(select_keys(self.now).where(*active))]

    async def disabled_teams(self) -> set[str]:
        """The ids of teams whose keys do not work."""
        return {row.id for row in await self.connection.execute(select(teams.c.id).where(teams.c.state == "disabled"))}

    async def _team_where(self, column: Column[Any], value: str) -> Team | None:
        row = await self._first(select_teams().where(column == value)) if is_plain(value) else None
        return None if row is None else team_of(row)

    async def _first(self, query: Select[Any]) -> Any:
        return (await self.connection.execute(query)).first()


class Change(View):
    """A view in a transaction of `Store.writing`, through which things change. `actor` is named in the audit log."""

    actor: Actor
    revision: int | None = None
    """The newest number given out, None while nothing has changed."""
    is_judged_whole = False
    """Whether it is looked at once, when all of it is made, if an admin key remains."""

    @classmethod
    async def open(cls, connection: AsyncConnection, actor: Actor, now: int, defaults: Limits = NO_LIMITS) -> Self:
        """As of a view; others may change what is read here at any time."""
        change = await super().open(connection, actor, now, defaults)
        change.actor = actor
        return change

    @classmethod
    async def begin(cls, connection: AsyncConnection, actor: Actor, now: int, defaults: Limits = NO_LIMITS) -> Self:
        """Wait for all other changes to end: what is read from now on is true until this one ends."""
        await connection.execute(select(revision.c.value).with_for_update())
        return await cls.open(connection, actor, now, defaults)

    async def add_team(self, team: Team) -> Team:
        """Store a new team."""
        await self._insert(teams, team_values(team))
        await self._trail("team.create", None, team)
        return team

    async def replace_team(self, before: Team, after: Team, action: str = "team.update") -> Team:
        """Store `after` in place of `before`, as its next version. Raises `PreconditionFailed`."""
        after = msgspec.structs.replace(after, version=before.version + 1, updated_at=self.now)
        await self._swap(teams, before, team_values(after))
        await self._trail(action, before, after)
        return after

    async def add_key(self, key: Key, digest: bytes, *, is_imported: bool = False) -> Key:
        """Store a new key and the SHA-256 of its secret, which has any form if it was imported."""
        await self._insert(keys, key_values(key))
        await self.add_secret(key.id, digest, is_imported=is_imported)
        await self._trail("key.create", None, key, {"imported": True} if is_imported else {})
        return key

    async def replace_key(self, before: Key, after: Key, action: str = "key.update") -> Key:
        """Store `after` in place of `before`, as its next version. Raises `PreconditionFailed`."""
        after = msgspec.structs.replace(after, version=before.version + 1, updated_at=self.now)
        await self._swap(keys, before, key_values(after))
        await self._trail(action, before, after)
        return after

    async def add_secret(self, key_id: str, digest: bytes, *, is_imported: bool = False) -> None:
        """Let a secret work for a key from now on."""
        row = {"digest": digest, "key_id": key_id, "created_at": self.now, "valid_until": None}
        row["is_imported"] = is_imported
        await self._insert(secrets, row)

    async def end_secrets(self, key_id: str, *, grace_s: int = 0) -> None:
        """End a key's secrets: the newest after `grace_s`, all others now."""
        of_key = secrets.c.key_id == key_id
        if grace_s == 0:
            await self.connection.execute(delete(secrets).where(of_key))
            return
        await self.connection.execute(delete(secrets).where(of_key, secrets.c.valid_until.is_not(None)))
        await self.connection.execute(update(secrets).where(of_key).values(valid_until=self.now + grace_s))

    async def _insert(self, table: Table, values: dict[str, Any]) -> None:
        await self.connection.execute(insert(table).values(values))

    async def _swap(self, table: Table, before: Team | Key, values: dict[str, Any]) -> None:
        is_same = (table.c.id == before.id, table.c.version == before.version)
        done = await self.connection.execute(update(table).where(*is_same).values(values))
        if done.rowcount != 1:
            raise PreconditionFailed("Someone else changed it at the same time. Read it again, then change it.")

    async def note_reset(self, subject: Team | Key, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """Leave a trail of limits that are reset: no row changes, so there is no number to give out."""
        was, will_be = ({"name": subject.name, "remaining": dict(left)} for left in (before, after))
        await self._note("limits.reset", subject, was, will_be)

    async def note_reset_failed(self, subject: Team | Key) -> None:
        """The same of a reset that failed: nothing, or not all, of what its own entry tells was done."""
        await self._note("limits.reset_failed", subject, None, {"name": subject.name})

    async def note_export(self, team: Team | None) -> None:
        """Leave a trail of digests that go out, of one team or of all."""
        name = {} if team is None else {"name": team.name}
        await self._note("key.export", team, None, {**name, "with_digests": True})

    async def _trail(
        self, action: str, before: Team | Key | None, after: Team | Key, more: Mapping[str, object] = _NOTHING
    ) -> None:
        await self._note(action, after, None if before is None else _audited(before), {**_audited(after), **more})
        await self._number(after)

    async def _number(self, after: Team | Key) -> None:
        team_id, key_id = ids_of(after)
        self.revision = await bump(self.connection, team_id=team_id, key_id=key_id, at=self.now)

    async def _note(
        self, action: str, subject: Team | Key | None, before: dict[str, Any] | None, after: dict[str, Any]
    ) -> None:
        entry = {
            "at": self.now,
            "actor": self.actor.name,
            "action": action,
            "object_id": _ALL if subject is None else subject.id,
            "team_id": None if subject is None else ids_of(subject)[0],
            "before": before,
            "after": after,
            "address": self.actor.address,
        }
        await self._insert(audit, entry)


def ids_of(subject: Team | Key) -> tuple[str, str | None]:
    """Of the team, and of the key if it is one."""
    return (subject.team_id, subject.id) if isinstance(subject, Key) else (subject.id, None)


def _audited(record: Team | Key) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(record)
    return {name: value for name, value in members.items() if name not in _NOT_AUDITED}


async def _authority(connection: AsyncConnection, actor: Actor, now: int, defaults: Limits) -> Authority:
    """What the actor may do now: what the caller knows of their key is as old as their request's head, or older."""
    if actor.key_id is None:
        return Authority(actor.role)
    row = (await connection.execute(_with_secret(actor, now))).first()
    key = None if row is None else key_of(row)
    if row is None or key is None or key.state != "active" or _is_over(key.expires_at, now) or _is_over(row.ends, now):
        raise _dead()
    team = team_of((await connection.execute(select_teams().where(teams.c.id == key.team_id))).one())
    if team.state != "active":
        raise _dead()
    check_address((key.grants, team.grants), actor.address)
    if row.ends is not None:
        raise _in_grace()
    return Authority(key.role, team.id, key, team, defaults)


def _with_secret(actor: Actor, now: int) -> Select[Any]:
    """The actor's key, if the secret that they sent is one of its own, and when that ends."""
    sent = secrets.alias("sent")
    is_sent = (sent.c.key_id == keys.c.id) & (sent.c.digest == actor.digest)
    query = select_keys(now).add_columns(sent.c.valid_until.label("ends"))
    return query.join(sent, is_sent).where(keys.c.id == actor.key_id)


def _is_over(until: int | None, now: int) -> bool:
    return until is not None and until <= now


def _in_grace() -> Forbidden:
    """Or whoever still has an old secret could rotate the key, and so take it from whoever has the new one."""
    return Forbidden(
        "This secret was replaced, and works for calls alone until it ends. Send the newest secret of this key."
    )


def _dead() -> InvalidKey:
    """Word for word what the directory says of every bad key."""
    return InvalidKey(
        "This API key is not valid here. Send it as 'Authorization: Bearer YOUR_KEY', or as api_key of your OpenAI"
        " client, or ask whoever runs this gateway for one."
    )
