"""Drop from the store what no node needs any more: old numbers of changes, old Idempotency-Keys.

Knows how long each is needed. Every node does this, seldom, so that nobody has to be chosen for it: a second one finds
nothing left to do.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import delete

from gateway.access.idempotency import KEPT_S
from gateway.errors import StoreUnavailable
from gateway.store.changes import prune_changes
from gateway.store.engine import Store
from gateway.store.tables import idempotency

_log = logging.getLogger(__name__)

CHANGES_KEPT_S = 86_400
"""A node that was blind for longer forgets all keys, and looks them up again."""


class Pruning:
    """Prunes `first_after_s` seconds after `start`, then every `every_s`, until `close`. `now` is Unix time."""

    def __init__(
        self,
        store: Store,
        *,
        first_after_s: float = 60.0,
        every_s: float = 3600.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._first_after_s = first_after_s
        self._every_s = every_s
        self._now = now
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Prune in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop; what is under way is undone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def prune(self) -> None:
        """Once, now. Raises `StoreUnavailable`."""
        now_s = int(self._now())
        async with self._store.writing() as connection:
            await prune_changes(connection, now_s - CHANGES_KEPT_S)
            await connection.execute(delete(idempotency).where(idempotency.c.at <= now_s - KEPT_S))

    async def _run(self) -> None:
        wait_s = self._first_after_s
        while True:
            await asyncio.sleep(wait_s)
            wait_s = self._every_s
            try:
                await self.prune()
            except StoreUnavailable:
                pass  # next time will do, and others say that the database is away
            except Exception:  # nothing depends on it, so that a bug is only worth its line
                _log.exception("Old changes cannot be dropped from the database.")
