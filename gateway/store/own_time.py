"""Time that the database may take, of which what this process stood still does not count.

A process that stood still, or its host, finds the time over before it has heard what came meanwhile; and a database
beside it stood still as well. So whoever finds that this process is late gives all of the time again; not for ever,
since a process that has too much to do is always late.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

_LATE_S = 0.5
_MOST_GIVEN = 4


class Timer:
    """Calls `then` after `time_s`, once, or after four times that at most. Use it on the running event loop."""

    __slots__ = ("_due_s", "_given", "_handle", "_loop", "_then", "_time_s")

    def __init__(self, time_s: float, then: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._time_s = time_s
        self._then = then
        self._given = 0
        self._start()

    def cancel(self) -> None:
        self._handle.cancel()

    def _start(self) -> None:
        self._given += 1
        self._due_s = self._loop.time() + self._time_s
        self._handle = self._loop.call_at(self._due_s, self._look)

    def _look(self) -> None:
        if self._given < _MOST_GIVEN and self._loop.time() - self._due_s > _LATE_S:
            self._start()
        else:
            self._then()


@contextlib.asynccontextmanager
async def within(time_s: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timeout:
        timer = Timer(time_s, lambda: timeout.reschedule(loop.time()))
        try:
            yield
        finally:
            timer.cancel()
