"""Delete from the ledger what is older than it is to be kept, a little at a time.

Every node does this, so that nobody has to be chosen for it: a second one finds nothing left to do. Each step is short,
because SQLite lets nobody else write meanwhile.

A clock that is far ahead would make everything old: where nearly nothing is left that is not, nothing is deleted.

What says that the usage of a response in the background was counted stays longer: whoever asks for the response again
would have it counted again.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import BigInteger, delete, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.metering.late import PREFIX
from gateway.metering.rollups import Days
from gateway.store.chores import Chore
from gateway.store.engine import Store
from gateway.store.tables import call_tags, calls, due_responses, usage_days

_STEP = 500
"""Calls that one transaction deletes: some milliseconds."""
_LATE_DAYS = 400
"""OpenAI keeps a response for thirty days, other servers as long as they like."""
_PAUSE_S = 0.05
_DAY_US = 86_400_000_000

_log = logging.getLogger("gateway")


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
        self._is_doubted = False

    async def prune(self) -> int:
        """All of it, now; how many calls were deleted. Raises `StoreUnavailable`."""
        now_us = int(self._now() * 1e6)
        deleted = 0
        if not await self._is_credible(now_us):
            return deleted
        if self._calls_days:
            late_days = max(self._calls_days, _LATE_DAYS)
            deleted = await self._prune_calls(now_us - self._calls_days * _DAY_US, now_us - late_days * _DAY_US)
        async with self._store.writing() as connection:
            forgotten = due_responses.c.started_at < now_us - _LATE_DAYS * _DAY_US
            await connection.execute(delete(due_responses).where(forgotten))
        if self._sums_days:
            async with self._store.writing() as connection:
                first = self._days.of(now_us) - self._sums_days
                await connection.execute(delete(usage_days).where(usage_days.c.day < first))
        return deleted

    async def _is_credible(self, now_us: int) -> bool:
        """Whether there are calls of the time that is kept, but for the last day, which a wrong clock has its calls in.

        Where there are none the clock may be far ahead, or nobody has called for as long: that is said once.
        """
        kept_us = (self._calls_days or self._sums_days) * _DAY_US
        newest = select(func.max(calls.c.started_at)).where(calls.c.started_at < now_us - min(_DAY_US, kept_us // 2))
        async with self._store.reading() as connection:
            newest_us = (await connection.execute(newest)).scalar()
        is_doubted = bool(kept_us) and newest_us is not None and newest_us < now_us - kept_us
        if is_doubted and not self._is_doubted:
            _log.error(
                "The ledger deletes nothing for its age: there is no call of the last %d days but today's. Is the clock"
                " of this machine right? If it is, this goes on by itself a day after the next call.",
                kept_us // _DAY_US,
            )
        self._is_doubted = is_doubted
        return not is_doubted

    async def _prune_calls(self, before_us: int, late_before_us: int) -> int:
        deleted, last = 0, (-1, "")
        while step := await self._oldest(before_us, last):
            last = step[-1]
            ids = [each for at_us, each in step if at_us < late_before_us or not each.startswith(PREFIX)]
            if ids:
                async with self._store.writing() as connection:
                    await _delete(connection, ids)
            deleted += len(ids)
            await asyncio.sleep(_PAUSE_S)
        return deleted

    async def _oldest(self, before_us: int, last: tuple[int, str]) -> list[tuple[int, str]]:
        """Some calls from before a time, and after the `last` that was looked at: when each began, and its id."""
        place = tuple_(literal(last[0], BigInteger), literal(last[1]))
        wanted = (
            select(calls.c.started_at, calls.c.id)
            .where(calls.c.started_at < before_us, calls.c.started_at >= last[0])
            .where(tuple_(calls.c.started_at, calls.c.id) > place)
            .order_by(calls.c.started_at, calls.c.id)
            .limit(_STEP)
        )
        async with self._store.reading() as connection:
            return [(at_us, each) for at_us, each in await connection.execute(wanted)]


async def _delete(connection: AsyncConnection, ids: list[str]) -> None:
    await connection.execute(delete(call_tags).where(call_tags.c.call_id.in_(ids)))
    await connection.execute(delete(calls).where(calls.c.id.in_(ids)))
