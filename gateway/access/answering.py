"""Who answers the calls that a store counts: the models, by a GMI key, or the simulator.

Knows the turns from one to the other, which the audit log keeps, and that the simulator never takes over from the
models by itself: whoever forgot the key would get answers that are made up.
"""

from collections.abc import Callable
from typing import Literal

from sqlalchemy import exists, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access.change import Change
from gateway.access.clock import unix_time
from gateway.access.reconcile import SETTINGS
from gateway.store.engine import Store
from gateway.store.tables import audit, usage_days

AnsweredBy = Literal["models", "simulator"]
_UPSTREAM = "upstream"
"""What an entry of the audit log names in place of an id."""


class KeyMissing(Exception):
    """The models answered here before, and nobody said that the simulator is to."""


async def turn_to(store: Store, by: AnsweredBy, *, is_asked: bool, now: Callable[[], int] = unix_time) -> bool:
    """Note that `by` answers from now on; whether sums hold what the simulator answered, and the models come now.

    `is_asked`: somebody said that it is to be the simulator. Raises `KeyMissing`, `StoreUnavailable`.
    """
    async with store.writing() as connection:
        change = await Change.begin(connection, SETTINGS, now())
        before = await _last(connection)
        if by == "simulator" and not is_asked and await was_by_models(connection):
            raise KeyMissing
        if before == by:
            return False
        await connection.execute(insert(audit).values(_entry(before, by, change.now)))
        has_calls = (await connection.execute(select(exists().select_from(usage_days)))).scalar_one()
        return before == "simulator" and bool(has_calls)


async def was_by_models(connection: AsyncConnection) -> bool:
    """Whether the models have ever answered here."""
    found = exists().where(audit.c.object_id == _UPSTREAM, audit.c.action == _action("models"))
    return bool((await connection.execute(select(found))).scalar_one())


async def _last(connection: AsyncConnection) -> AnsweredBy | None:
    query = select(audit.c.action).where(audit.c.object_id == _UPSTREAM).order_by(audit.c.id.desc()).limit(1)
    action = (await connection.execute(query)).scalar_one_or_none()
    turns: dict[str, AnsweredBy] = {_action("models"): "models", _action("simulator"): "simulator"}
    return None if action is None else turns[action]


def _entry(before: AnsweredBy | None, by: AnsweredBy, at: int) -> dict[str, object]:
    return {
        "at": at,
        "actor": SETTINGS.name,
        "action": _action(by),
        "object_id": _UPSTREAM,
        "team_id": None,
        "before": None if before is None else {"answered_by": before},
        "after": {"answered_by": by},
        "address": None,
    }


def _action(by: AnsweredBy) -> str:
    return f"upstream.{by}"
