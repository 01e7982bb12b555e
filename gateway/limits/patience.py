"""How long somebody else may keep us waiting, on an event loop that may itself be late.

Knows no server. That a timer is due says nothing of an answer that lies in the socket, while the loop was busy with
other things: when the time is over the loop has another look before anybody is given up.
"""

import asyncio
from types import TracebackType

_LOOKS = 5
"""While it waits, the loop looks so often whether it is late."""
_ON_TIME_S = 0.005
_LAST_LOOKS = 2
"""When the time is over: one reads what came before, the other lets whoever waits for it go on."""
_LAST_LOOK_S = 0.003


class Patience:
    """Leaves the block with TimeoutError after `for_s` seconds, and two turns of the loop. Use it once.

    What came within `for_s` is read, however late the loop is.
    """

    __slots__ = ("_due_s", "_ends_s", "_for_s", "_last_looks", "_loop", "_timeout", "_timer", "kept_s")

    def __init__(self, for_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._for_s = for_s
        self._timeout = asyncio.timeout(None)
        self._last_looks = _LAST_LOOKS
        self.kept_s = 0.0
        """How long it has kept us waiting for certain, to a fifth of `for_s`: without times when the loop was late."""

    def __repr__(self) -> str:
        return f"Patience({self._for_s}, kept_s={self.kept_s})"

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._ends_s = self._loop.time() + self._for_s
        self._look_in(self._for_s / _LOOKS)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _look_in(self, seconds: float) -> None:
        self._due_s = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        now_s = self._loop.time()
        if now_s < self._ends_s:
            if now_s <= self._due_s + _ON_TIME_S:
                self.kept_s += self._for_s / _LOOKS
            self._look_in(min(self._for_s / _LOOKS, self._ends_s - now_s))
        elif self._last_looks:
            self._last_looks -= 1
            self._look_in(_LAST_LOOK_S)
        else:
            self.kept_s = self._for_s
            self._timeout.reschedule(now_s)
