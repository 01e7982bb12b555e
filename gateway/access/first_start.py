"""The first key of a gateway that has none, so that someone can begin.

Knows when a store is new. The secret is given out once, to one of all the nodes that start at that time.
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

FIRST_START = Actor("first_start", "admin")


async def first_start(store: Store, *, now: Callable[[], int] = unix_time) -> str | None:
    """Make an admin key if there has never been one; returns its secret, None if there is one or was.

    Comes after `reconcile`, which may bring one. Raises `StoreUnavailable`.
    """
    async with store.writing() as connection:
        change = await Change.begin(connection, FIRST_START, now())
        admins = select(func.count()).select_from(keys).where(keys.c.role == "admin")
        if (await connection.execute(admins)).scalar_one():
            return None
        team = await team_for(change, ADMINS, "api")
        secret = new_secret()
        draft = KeyDraft(team=team.id, name=await _free_name(change, team.id, ADMIN), role="admin")
        await change.add_key(new_key(team, draft, secret, change.now), digest(secret.encode()))
    return secret


async def _free_name(change: Change, team_id: str, name: str) -> str:
    """`name`, or with a number if the settings have given a key of another role that name."""
    free, number = name, 1
    while await change.find_key(team_id, free) is not None:
        number += 1
        free = f"{name} {number}"
    return free
