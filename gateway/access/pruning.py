"""Drop from the store what no node needs any more: old numbers of changes, old Idempotency-Keys.

Knows how long each is needed. Every node does this, seldom; a second one finds nothing left to do.
"""

import time
from collections.abc import Callable

from sqlalchemy import delete

from gateway.access.idempotency import KEPT_S
from gateway.store.changes import prune_changes
from gateway.store.chores import Chore
from gateway.store.engine import Store
from gateway.store.tables import idempotency

CHANGES_KEPT_S = 86_400
"""A node that was blind for longer forgets all keys, and looks them up again."""


class Pruning(Chore):
    """Prunes `first_after_s` seconds after `start`, then every `every_s`, until `close`. `now` is Unix time."""

    def __init__(
        self,
        store: Store,
        *,
        first_after_s: float = 60.0,
        every_s: float = 3600.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            self.prune,
            failed="Old changes cannot be dropped from the database.",
            first_after_s=first_after_s,
            every_s=every_s,
        )
        self._store = store
        self._now = now

    async def prune(self) -> None:
        """Once, now. Raises `StoreUnavailable`."""
        now_s = int(self._now())
        async with self._store.writing() as connection:
            await prune_changes(connection, now_s - CHANGES_KEPT_S)
            await connection.execute(delete(idempotency).where(idempotency.c.at <= now_s - KEPT_S))
