"""Teams and keys put straight into the tables, and changed there, as another node's administration would."""

import time
from typing import Any

import msgspec
from sqlalchemy import Table, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.keys import digest, new_secret
from gateway.store.changes import bump
from gateway.store.engine import Store
from gateway.store.tables import keys, secrets, teams
from gateway.terms import EVERYTHING, Grants


def bearer(secret: str) -> bytes:
    """The header's value."""
    return b"Bearer " + secret.encode()


def _terms(grants: Grants, state: str) -> dict[str, Any]:
    return {
        "state": state,
        "source": "api",
        "version": 1,
        "created_at": 1,
        "updated_at": 1,
        "grants": msgspec.to_builtins(grants),
        "limits": {},
        "budgets": {},
        "tags": {},
    }


async def add_team(store: Store, team_id: str = "team_1", grants: Grants = EVERYTHING, state: str = "active") -> str:
    """A team whose name is its id in capitals."""
    async with store.writing() as connection:
        row = {"id": team_id, "name": team_id.upper(), "model_limits": {}, **_terms(grants, state)}
        await connection.execute(insert(teams).values(row))
    return team_id


async def add_key(
    store: Store,
    key_id: str = "key_1",
    *,
    team_id: str = "team_1",
    secret: str | None = None,
    grants: Grants = EVERYTHING,
    **columns: Any,
) -> str:
    """A key whose name is its id in capitals; returns its secret."""
    secret = secret or new_secret()
    row = {"id": key_id, "team_id": team_id, "name": key_id.upper(), "role": "member", "hint": secret[-4:]}
    row |= _terms(grants, "active") | columns
    async with store.writing() as connection:
        await connection.execute(insert(keys).values(row))
        await connection.execute(_secret(key_id, secret))
        await bump(connection, team_id=team_id, key_id=key_id, at=_now())
    return secret


async def change_key(store: Store, key_id: str = "key_1", **columns: Any) -> int:
    """Set columns of a key and note the change; returns its revision."""
    return await _change(store, keys, key_id, columns)


async def change_team(store: Store, team_id: str = "team_1", **columns: Any) -> int:
    """Set columns of a team and note the change; returns its revision."""
    return await _change(store, teams, team_id, columns)


async def rotate(store: Store, key_id: str = "key_1", *, valid_until: int) -> str:
    """A new secret; those before it are good until `valid_until`."""
    secret = new_secret()
    async with store.writing() as connection:
        await connection.execute(
            update(secrets)
            .where(secrets.c.key_id == key_id, secrets.c.valid_until.is_(None))
            .values(valid_until=valid_until)
        )
        await connection.execute(_secret(key_id, secret))
        await _note(connection, keys, key_id)
    return secret


def _secret(key_id: str, secret: str) -> Any:
    return insert(secrets).values(digest=digest(secret.encode()), key_id=key_id, created_at=_now(), valid_until=None)


async def _change(store: Store, table: Table, object_id: str, columns: dict[str, Any]) -> int:
    async with store.writing() as connection:
        await connection.execute(update(table).where(table.c.id == object_id).values(columns))
        return await _note(connection, table, object_id)


async def _note(connection: AsyncConnection, table: Table, object_id: str) -> int:
    if table is keys:
        return await bump(connection, team_id=None, key_id=object_id, at=_now())
    return await bump(connection, team_id=object_id, key_id=None, at=_now())


def _now() -> int:
    return int(time.time())
