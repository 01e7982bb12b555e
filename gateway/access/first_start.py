"""The first keys of a gateway that has none, so that someone can begin.

Knows when a store is new. Each secret is given out once, to one of all the nodes that start at that time.
"""

from collections.abc import Callable

from sqlalchemy import func, select

from gateway.access.change import Change
from gateway.access.clock import unix_time
from gateway.access.drafts import KeyDraft
from gateway.access.keys import digest, new_secret
from gateway.access.reconcile import ADMIN, ADMINS, team_for
from gateway.access.records import Actor
from gateway.access.virtual_keys import new_key
from gateway.store.engine import Store
from gateway.store.tables import keys
from gateway.terms import Role

FIRST_START = Actor("first_start", "admin")
STARTER = "starter"
"""Team and name of the key that calls a simulated upstream."""


async def first_start(store: Store, *, now: Callable[[], int] = unix_time) -> str | None:
    """Make an admin key if there has never been one; returns its secret, None if there is one or was.

    Comes after `reconcile`, which may bring one. Raises `StoreUnavailable`.
    """
    return await _make_first(store, ADMINS, ADMIN, "admin", now)


async def starter_key(store: Store, *, now: Callable[[], int] = unix_time) -> str | None:
    """Make a key to call with if there has never been one but admins'; returns its secret."""
    return await _make_first(store, STARTER, STARTER, "member", now)


async def _make_first(store: Store, team_name: str, name: str, role: Role, now: Callable[[], int]) -> str | None:
    async with store.writing() as connection:
        change = await Change.begin(connection, FIRST_START, now())
        is_kind = keys.c.role == "admin" if role == "admin" else keys.c.role != "admin"
        count = (await connection.execute(select(func.count()).select_from(keys).where(is_kind))).scalar_one()
        if count:
            return None
        team = await team_for(change, team_name, "api")
        secret = new_secret()
        draft = KeyDraft(team=team.id, name=await _free_name(change, team.id, name), role=role)
        await change.add_key(new_key(team, draft, secret, change.now), digest(secret.encode()))
    return secret


async def _free_name(change: Change, team_id: str, name: str) -> str:
    """`name`, or with a number if the settings have given a key of another role that name."""
    free, number = name, 1
    while await change.find_key(team_id, free) is not None:
        number += 1
        free = f"{name} {number}"
    return free
