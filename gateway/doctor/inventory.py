"""What a store holds that whoever starts or checks a gateway should know of: who may administer, and budgets.

Asks and changes nothing. How it is said, others know.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.engine import Store
from gateway.store.tables import keys, teams
from gateway.terms import Budgets


@dataclass(frozen=True)
class Inventory:
    """What was found."""

    admin: str | None
    """`team/name` of an admin key that works and can be given another secret; None: there is none."""
    has_declared_admin: bool
    """Whether an admin key of the settings works."""
    has_budgets: bool
    """Whether a team, or a key that is not revoked, has a budget."""


async def take_inventory(store: Store, now_s: int) -> Inventory:
    """What `store` holds at `now_s`, Unix time. Raises `StoreUnavailable`."""
    async with store.reading() as connection:
        admins = await _admins(connection, now_s)
        made = [name for name, source in admins if source != "settings"]
        return Inventory(made[0] if made else None, len(made) < len(admins), await has_budgets(connection))


async def has_budgets(connection: AsyncConnection) -> bool:
    """Whether a team, or a key that is not revoked, has a budget."""
    of_keys = exists().where(keys.c.state != "revoked", _has_budget(keys))
    return bool((await connection.execute(select(or_(of_keys, exists().where(_has_budget(teams)))))).scalar_one())


async def _admins(connection: AsyncConnection, now_s: int) -> list[tuple[str, str]]:
    """`team/name` and source of the admin keys that work, the oldest first."""
    lives = (keys.c.state == "active") & or_(keys.c.expires_at.is_(None), keys.c.expires_at > now_s)
    query = (
        select(teams.c.name, keys.c.name, keys.c.source)
        .join(teams, teams.c.id == keys.c.team_id)
        .where(keys.c.role == "admin", lives, teams.c.state == "active")
        .order_by(keys.c.created_at, keys.c.id)
    )
    return [(f"{team}/{name}", source) for team, name, source in await connection.execute(query)]


def _has_budget(of: Table) -> ColumnElement[bool]:
    return or_(*(of.c.budgets[period].as_string().is_not(None) for period in Budgets.__struct_fields__))
