"""Follow what changes in the store, so that what is remembered of keys is never older than a second.

Knows the revision that was seen last. The database's counter is the truth, polled twice a second; Redis, where there is
one, only says that polling is worth while now. What a change means to a key is the directory's business.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from gateway.access.announcements import Announcements
from gateway.access.directory import KeyDirectory
from gateway.errors import StoreUnavailable
from gateway.store.changes import Change, changes_since, current_revision
from gateway.store.engine import Store

_log = logging.getLogger(__name__)

_APPLY_TIMEOUT_S = 1.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.05, 0.5


class ChangeWatcher:
    """Keeps `directory` true to `store` from `start` to `close`."""

    def __init__(
        self, store: Store, directory: KeyDirectory, *, redis_url: str | None = None, poll_s: float = 0.5
    ) -> None:
        self._store = store
        self._directory = directory
        self._poll_s = poll_s
        self._announcements = Announcements(redis_url, self._hear) if redis_url else None
        self._seen: int | None = None
        self._wake = asyncio.Event()
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._is_away = False

    def __repr__(self) -> str:
        return f"ChangeWatcher(seen={self._seen}, is_away={self._is_away}, announcements={self._announcements})"

    @property
    def is_away(self) -> bool:
        """Whether changes cannot be read at present, so that what is remembered may be older than a second."""
        return self._is_away

    @property
    def is_announced(self) -> bool:
        """Whether changes on other nodes are heard of at once, over Redis."""
        return self._announcements is not None and self._announcements.is_heard

    async def start(self) -> None:
        """Take note of where the store stands. A database that is away is waited for in the background."""
        await self._poll()
        self._task = asyncio.get_running_loop().create_task(self._follow())
        if self._announcements is not None:
            self._announcements.start()

    async def close(self) -> None:
        """Stop following."""
        if self._announcements is not None:
            await self._announcements.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def notify(self, revision: int) -> None:
        """A change was committed in this process: apply it now, and tell the other nodes."""
        self._hear(revision)
        if self._announcements is not None:
            self._announcements.announce(revision)

    async def publish(self, revision: int) -> None:
        """As `notify`, and return when it is in force in this process, or could not be read for a second."""
        self.notify(revision)
        await self.applied(revision)

    async def applied(self, revision: int) -> None:
        """Return when the change is in force in this process, or could not be read for a second."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_APPLY_TIMEOUT_S), self._moved:
                await self._moved.wait_for(lambda: self._seen is not None and self._seen >= revision)

    def _hear(self, revision: int) -> None:
        if self._seen is None or revision > self._seen:
            self._wake.set()

    async def _follow(self) -> None:
        """What could not be read is tried again sooner than the next poll: one failure must not cost the second."""
        retry_s = _FIRST_RETRY_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(retry_s, self._poll_s) if self._is_away else self._poll_s):
                    await self._wake.wait()
            self._wake.clear()
            await self._poll()
            retry_s = min(retry_s * 2, _LONGEST_RETRY_S) if self._is_away else _FIRST_RETRY_S

    async def _poll(self) -> None:
        try:
            await self._catch_up()
            if self._is_away:
                await self._directory.preload()
        except StoreUnavailable as error:
            self._set_away(True, error.detail)
        except Exception:  # a bug here must not leave revoked keys alive: it is shown, and polling goes on
            if not self._is_away:
                _log.exception("Changes of keys cannot be read.")
            self._set_away(True, "see the line before this one")
        else:
            self._set_away(False)
        async with self._moved:
            self._moved.notify_all()

    async def _catch_up(self) -> None:
        async with self._store.reading() as connection:
            current = await current_revision(connection)
            if current == self._seen:
                return
            known = self._seen is not None and self._seen < current
            changes = await changes_since(connection, self._seen or 0) if known else []
        await self._apply(current, changes)

    async def _apply(self, current: int, changes: Sequence[Change]) -> None:
        """What was seen is noted first: forgetting happens in any case, and need not be done again."""
        is_whole = bool(changes) and self._seen is not None and changes[0].revision == self._seen + 1
        self._seen = changes[-1].revision if is_whole else current
        if is_whole:
            await self._directory.apply(changes)
        else:
            await self._directory.apply_unknown()

    def _set_away(self, is_away: bool, reason: str = "") -> None:
        if is_away == self._is_away:
            return
        self._is_away = is_away
        if is_away:
            _log.warning("The database is away; known keys go on working, others get 503 until it is back: %s", reason)
        else:
            _log.info("The database is back.")
