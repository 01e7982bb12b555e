"""An end of waiting that counts what had come by then.

A process that stood still, or its host, finds its time over and what came meanwhile unread, and a loop runs its timers
before it reads. So whoever waits for upstream looks twice, and the loop reads in between.
"""

import asyncio
from types import TracebackType
from typing import Self

SECOND_LOOK_S = 0.01
"""How long after the first look that finds the time over."""


class Deadline:
    """As `asyncio.timeout_at`, whose TimeoutError comes only after a second look."""

    def __init__(self, at_s: float | None) -> None:
        self._at_s = at_s
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self.reschedule(self._at_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        await self._timeout.__aexit__(kind, error, traceback)

    def reschedule(self, at_s: float | None) -> None:
        """Let it end at another time of the loop; None for never. What is over stays so, and has its second look."""
        if self._is_over and at_s is not None and at_s <= self._loop.time():
            return
        self._is_over = False
        self._stop()
        self._timeout.reschedule(None)
        if at_s is not None:
            self._timer = self._loop.call_at(at_s, self._look)

    def expired(self) -> bool:
        """The time was over, and whoever waited was told."""
        return self._timeout.expired()

    def _look(self) -> None:
        self._is_over = True
        self._timer = self._loop.call_later(SECOND_LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._timeout.reschedule(self._loop.time())  # it ends behind those whom the last reading woke

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
