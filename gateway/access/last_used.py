"""Note when keys were last used, without a call ever waiting for it.

Knows the newest time of each key until the next batch. A killed process loses the seconds since the last one.
"""

import asyncio
import logging
from itertools import islice

from sqlalchemy import bindparam, or_, update

from gateway.errors import StoreUnavailable
from gateway.store.engine import Store
from gateway.store.tables import keys

_log = logging.getLogger(__name__)

_MAX_KEYS = 100_000
_BATCH = 1_000
"""Rows of one transaction: a few milliseconds, for which SQLite lets nobody else write."""

_TOUCH = (
    update(keys)
    .where(
        keys.c.id == bindparam("key_id"),
        or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < bindparam("used_at")),
    )
    .values(last_used_at=bindparam("used_at"))
)
"""Another node may have written a later time."""


class LastUsed:
    """Writes `last_used_at` every `every_s` seconds, from `start` to `close`; holds at most `max_keys` keys."""

    def __init__(self, store: Store, *, every_s: float = 10.0, max_keys: int = _MAX_KEYS) -> None:
        self._store = store
        self._every_s = every_s
        self._max_keys = max_keys
        self._noted: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, key_id: str, now_s: int) -> None:
        """The key was used, at this Unix time. Runs in every call."""
        self._noted[key_id] = now_s

    def start(self) -> None:
        """Write in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Write what is noted, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()

    async def flush(self) -> None:
        """Write what is noted. Never raises: what cannot be written is kept for the next time."""
        if not self._noted:
            return
        # In one order on all nodes, so that no two transactions wait for each other.
        rows = sorted(self._noted.items())
        self._noted = {}
        try:
            while rows:
                await self._write(rows[:_BATCH])
                del rows[:_BATCH]
            self._set_failing(False)
        except StoreUnavailable as error:
            self._set_failing(True, error.detail)
        except Exception:  # nothing depends on it, so a bug is only worth its line, once
            if not self._is_failing:
                _log.exception("Last uses of keys cannot be written, and are kept until they can.")
            self._is_failing = True
        finally:
            self._keep(rows)

    async def _write(self, rows: list[tuple[str, int]]) -> None:
        async with self._store.writing() as connection:
            await connection.execute(_TOUCH, [{"key_id": key_id, "used_at": used_at} for key_id, used_at in rows])

    def _keep(self, rows: list[tuple[str, int]]) -> None:
        """What was noted meanwhile is newer; past the bound, those noted last stay."""
        kept = dict(rows) | self._noted
        self._noted = dict(islice(kept.items(), max(0, len(kept) - self._max_keys), None))

    def _set_failing(self, is_failing: bool, reason: str = "") -> None:
        if is_failing == self._is_failing:
            return
        self._is_failing = is_failing
        if is_failing:
            _log.warning("Last uses of keys cannot be written, and are kept until they can: %s", reason)
        else:
            _log.info("Last uses of keys are written again.")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.flush()
