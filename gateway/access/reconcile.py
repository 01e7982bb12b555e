"""Brings the keys that the settings declare into the store, and marks them as theirs.

Knows what of a settings key goes where. Running it again changes nothing, and several nodes may run it at once. What
the settings no longer declare is disabled, not deleted, so that it is itself again when it comes back.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
from pydantic import SecretStr
from sqlalchemy import select

from gateway.access.change import Change, new_id
from gateway.access.clock import unix_time
from gateway.access.keys import digest, is_well_formed
from gateway.access.records import Actor, Key, Source, Team
from gateway.access.rows import key_of, select_keys, select_teams, team_of
from gateway.access.virtual_keys import hint
from gateway.settings import Key as DeclaredKey
from gateway.store.engine import Store
from gateway.store.tables import keys, secrets, teams
from gateway.terms import EVERYTHING, Grants, Role

SETTINGS = Actor("settings", "admin")
ADMINS, ADMIN = "admins", "admin"
"""Team and name of an admin key that is made or declared without one."""
_ADMIN_TOO = "admin (settings)"
"""The same where someone has a key of that name already."""
_SHORTEST_HINTED = 32
"""Four characters of a shorter secret, which a person may have made up, would tell too much of it."""


class SettingsConflict(Exception):
    """The settings declare what someone else's key is in the way of; the message says what to do."""


class _Declared(NamedTuple):
    team: str
    name: str
    role: Role
    grants: Grants
    expires_at: int | None
    digest: bytes
    hint: str


async def reconcile(
    store: Store,
    declared: Iterable[DeclaredKey],
    admin_key: SecretStr | None = None,
    *,
    route_groups: frozenset[str],
    now: Callable[[], int] = unix_time,
) -> frozenset[bytes]:
    """Make the store hold what the settings declare; returns the SHA-256 of every secret they declare.

    Raises `SettingsConflict`, `StoreUnavailable`.
    """
    wanted = [_of_settings(key, route_groups) for key in declared]
    async with store.writing() as connection:
        change = await Change.begin(connection, SETTINGS, now())
        run = _Run(change, await _held(change))
        if admin_key is not None and not await _is_admin_here(change, admin_key):
            wanted.append(await _admin(change, admin_key, wanted))
        await run.bring(wanted)
    return frozenset(each.digest for each in wanted)


def declared_digests(declared: Iterable[DeclaredKey], admin_key: SecretStr | None = None) -> frozenset[bytes]:
    """The SHA-256 of every secret that the settings declare."""
    admins = () if admin_key is None else (digest(admin_key.get_secret_value().encode()),)
    return frozenset((*map(_digest_of, declared), *admins))


class _Run:
    """One comparison of what is wanted with what the store holds."""

    def __init__(self, change: Change, held: dict[tuple[str, str], Key]) -> None:
        self._change = change
        self._held = held

    async def bring(self, wanted: list[_Declared]) -> None:
        # All that ends comes first: a secret may go from one key to another.
        by_place = {(each.team, each.name): each for each in wanted}
        for place, key in self._held.items():
            await self._end(key, by_place.get(place))
        await self._release_teams({each.team for each in wanted})
        for each in wanted:
            await self._put(each)

    async def _end(self, key: Key, wanted: _Declared | None) -> None:
        if wanted is None and key.state == "active":
            await self._change.replace_key(key, msgspec.structs.replace(key, state="disabled"), "key.disable")
        if wanted is None or wanted.digest != await self._digest(key):
            await self._change.end_secrets(key.id)

    async def _release_teams(self, named: set[str]) -> None:
        """A team that the settings made and name no more is left to whoever administers."""
        for row in (await self._change.connection.execute(select_teams().where(teams.c.source == "settings"))).all():
            team = team_of(row)
            if team.name not in named:
                await self._change.replace_team(team, msgspec.structs.replace(team, source="api"), "team.release")

    async def _put(self, wanted: _Declared) -> None:
        await self._check_secret(wanted)
        team = await team_for(self._change, wanted.team, "settings")
        key = self._held.get((wanted.team, wanted.name))
        if key is None:
            await self._add(team, wanted)
        else:
            await self._update(await self._change.key(key.id), wanted)

    async def _add(self, team: Team, wanted: _Declared) -> None:
        if await self._change.find_key(team.id, wanted.name) is not None:
            raise SettingsConflict(
                f"The settings declare the key {wanted.name!r} of the team {wanted.team!r}, and a key of that name was"
                f" made by hand. Revoke it (gmi-gateway keys revoke), or give the settings' key another name."
            )
        key = Key(
            id=new_id("key"),
            name=wanted.name,
            team_id=team.id,
            team=team.name,
            team_state=team.state,
            owner=None,
            role=wanted.role,
            state="active",
            source="settings",
            hint=wanted.hint,
            version=1,
            created_at=self._change.now,
            updated_at=self._change.now,
            expires_at=wanted.expires_at,
            grants=wanted.grants,
        )
        await self._change.add_key(key, wanted.digest)

    async def _update(self, key: Key, wanted: _Declared) -> None:
        is_new_secret = await self._digest(key) is None
        after = msgspec.structs.replace(
            key,
            role=wanted.role,
            state="active",
            hint=wanted.hint,
            expires_at=wanted.expires_at,
            grants=wanted.grants,
            rotated_at=self._change.now if is_new_secret and key.state == "active" else key.rotated_at,
        )
        if is_new_secret:
            await self._change.add_secret(key.id, wanted.digest)
        if is_new_secret or after != key:
            await self._change.replace_key(key, after, _action(key, is_new_secret=is_new_secret))

    async def _digest(self, key: Key) -> bytes | None:
        query = select(secrets.c.digest).where(secrets.c.key_id == key.id)
        found: bytes | None = (await self._change.connection.execute(query)).scalar_one_or_none()
        return found

    async def _check_secret(self, wanted: _Declared) -> None:
        query = select(teams.c.name, keys.c.name, keys.c.source).join(keys, keys.c.team_id == teams.c.id)
        query = query.join(secrets, secrets.c.key_id == keys.c.id).where(secrets.c.digest == wanted.digest)
        found = (await self._change.connection.execute(query)).first()
        if found is None or (found[0], found[1], found[2]) == (wanted.team, wanted.name, "settings"):
            return
        raise SettingsConflict(
            f"The settings give the key {wanted.name!r} of the team {wanted.team!r} the secret of the key"
            f" {found[1]!r} of the team {found[0]!r}. Make a new one with: openssl rand -hex 24"
        )


async def team_for(change: Change, name: str, source: Source) -> Team:
    """The team of that name, made if there is none."""
    team = await change.team_named(name)
    if team is not None:
        return team
    made = Team(new_id("team"), name, "active", source, version=1, created_at=change.now, updated_at=change.now)
    return await change.add_team(made)


async def _held(change: Change) -> dict[tuple[str, str], Key]:
    rows = await change.connection.execute(select_keys(change.now).where(keys.c.source == "settings"))
    return {(key.team, key.name): key for key in map(key_of, rows)}


async def _is_admin_here(change: Change, secret: SecretStr) -> bool:
    """Whether it is the key of an admin that was made by hand, and need not be declared.

    Commands read the same variable, with whatever key they are to use: what a gateway made, and is no admin's here,
    must not become one. Raises `SettingsConflict`.
    """
    text = secret.get_secret_value()
    made_here = select(keys.c.role, keys.c.state, keys.c.source).join(secrets, secrets.c.key_id == keys.c.id)
    found = (await change.connection.execute(made_here.where(secrets.c.digest == digest(text.encode())))).first()
    if found is not None and found.source == "settings":
        return False
    if found is not None and (found.role, found.state) == ("admin", "active"):
        return True
    has_keys = (await change.connection.execute(select(keys.c.id).limit(1))).first() is not None
    if found is None and not (is_well_formed(text) and has_keys):
        return False
    raise SettingsConflict(
        "admin.key (GATEWAY_ADMIN_KEY) is a key that a gateway made, and no admin's here. Commands read that variable"
        " too: unset it where the gateway is started, or choose an admin key with: openssl rand -hex 24"
    )


async def _admin(change: Change, secret: SecretStr, wanted: list[_Declared]) -> _Declared:
    """The admin key of the settings, under a name that is theirs already, or else is free."""
    team = await change.team_named(ADMINS)
    taken = {each.name for each in wanted if each.team == ADMINS}
    there = {name: await change.find_key(team.id, name) if team else None for name in (ADMIN, _ADMIN_TOO)}
    mine = [name for name, key in there.items() if key is not None and key.source == "settings"]
    free = [name for name, key in there.items() if key is None]
    name = next((name for name in (*mine, *free) if name not in taken), ADMIN)
    text = secret.get_secret_value()
    return _Declared(ADMINS, name, "admin", EVERYTHING, None, digest(text.encode()), _hint(text))


def _of_settings(key: DeclaredKey, route_groups: frozenset[str]) -> _Declared:
    unknown = sorted(set(key.routes or ()) - route_groups)
    if unknown:
        raise SettingsConflict(
            f"The settings let the key {key.name!r} of the team {key.team!r} use routes {unknown[0]!r}, which there are"
            f" not. There are: {', '.join(sorted(route_groups))}."
        )
    text = key.secret.get_secret_value() if key.secret is not None else ""
    return _Declared(
        team=key.team,
        name=key.name,
        role=key.role,
        grants=Grants(key.models, key.routes, key.networks),
        expires_at=None if key.expires_at is None else int(key.expires_at.timestamp()),
        digest=_digest_of(key),
        hint=_hint(text),
    )


def _digest_of(key: DeclaredKey) -> bytes:
    if key.secret_sha256 is not None:
        return bytes.fromhex(key.secret_sha256)
    return digest(key.secret.get_secret_value().encode() if key.secret is not None else b"")


def _hint(secret: str) -> str:
    return hint(secret) if len(secret) >= _SHORTEST_HINTED else ""


def _action(before: Key, *, is_new_secret: bool) -> str:
    if before.state != "active":
        return "key.enable"
    return "key.rotate" if is_new_secret else "key.update"
