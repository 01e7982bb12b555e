"""What is to be done in the background now and then, and is not missed when it is not.

Knows when; what is done is its maker's business. Every node does its chores, so that nobody has to be chosen for them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.errors import StoreUnavailable

_log = logging.getLogger("gateway")


class Chore:
    """Does `work` `first_after_s` seconds after `start`, then every `every_s`, until `close`.

    A store that is away is no matter: others say so, and next time will do. `failed` is the line that a bug is worth.
    """

    def __init__(
        self, work: Callable[[], Awaitable[object]], *, failed: str, first_after_s: float, every_s: float
    ) -> None:
        self._work = work
        self._failed = failed
        self._first_after_s = first_after_s
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop; what is under way is undone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        wait_s = self._first_after_s
        while True:
            await asyncio.sleep(wait_s)
            wait_s = self._every_s
            try:
                await self._work()
            except StoreUnavailable:
                pass
            except Exception:
                _log.exception("%s", self._failed)
