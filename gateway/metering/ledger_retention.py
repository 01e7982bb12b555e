"""Delete from the ledger what is older than it is to be kept, a little at a time.

Every node does this, so that nobody has to be chosen for it: a second one finds nothing left to do. Each step is short,
because SQLite lets nobody else write meanwhile.
"""

import asyncio
import time
from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.metering.rollups import Days
from gateway.store.chores import Chore
from gateway.store.engine import Store
from gateway.store.tables import call_tags, calls, usage_days

_STEP = 500
"""Calls that one transaction deletes: some milliseconds."""
_PAUSE_S = 0.05
_DAY_US = 86_400_000_000


class Retention(Chore):
    """Prunes `first_after_s` seconds after `start`, then every `every_s`, until `close`.

    Single calls are kept for `calls_days`, their sums by day for `sums_days`; 0: for ever. `now` is Unix time.
    """

    def __init__(  # noqa: PLR0913 - what is kept for how long, and when that is looked at
        self,
        store: Store,
        days: Days,
        *,
        calls_days: int,
        sums_days: int,
        first_after_s: float = 60.0,
        every_s: float = 3600.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            self.prune,
            failed="Old calls cannot be deleted from the ledger.",
            first_after_s=first_after_s,
            every_s=every_s,
        )
        self._store = store
        self._days = days
        self._calls_days = calls_days
        self._sums_days = sums_days
        self._now = now

    async def prune(self) -> int:
        """All of it, now; how many calls were deleted. Raises `StoreUnavailable`."""
        now_us = int(self._now() * 1e6)
        deleted = 0
        if self._calls_days:
            while step := await self._prune_calls(now_us - self._calls_days * _DAY_US):
                deleted += step
                await asyncio.sleep(_PAUSE_S)
        if self._sums_days:
            async with self._store.writing() as connection:
                first = self._days.of(now_us) - self._sums_days
                await connection.execute(delete(usage_days).where(usage_days.c.day < first))
        return deleted

    async def _prune_calls(self, before_us: int) -> int:
        async with self._store.writing() as connection:
            oldest = select(calls.c.id).where(calls.c.started_at < before_us)
            ids = (await connection.execute(oldest.order_by(calls.c.started_at).limit(_STEP))).scalars().all()
            if ids:
                await _delete(connection, list(ids))
        return len(ids)


async def _delete(connection: AsyncConnection, ids: list[str]) -> None:
    await connection.execute(delete(call_tags).where(call_tags.c.call_id.in_(ids)))
    await connection.execute(delete(calls).where(calls.c.id.in_(ids)))
