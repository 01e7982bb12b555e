"""The five limits of a call, kept by one timer.

httpx2's own timeouts are limits of single reads and writes; these are limits
of phases. Knows which limit bites next. Knows nothing of sockets or HTTP.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gateway.upstream.deadline import SECOND_LOOK_S, Deadline
from gateway.upstream.transport import Phase, Timeouts, TransportTimeout


class Clock:
    """The limits of one call; at any moment one phase runs, and the total."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._now = asyncio.get_running_loop().time
        self._began_at = self._sent_at = self._now()
        self._over_at: float | None = None
        """When the total was first found to be over; what had come by then may still be read."""
        self._timer: Deadline | None = None
        self._next: tuple[float | None, Phase, float] = (None, "total", timeouts.total_s)

    def enter(self, phase: Phase) -> None:
        """A phase begins now; `total` stands for those without a limit of their own."""
        if phase == "headers":
            self._sent_at = self._now()
        self._next = min(self._limit(phase), self._limit("total"), key=lambda limit: limit[0] or float("inf"))
        if self._timer is not None:
            self._timer.reschedule(self._next[0])

    def _limit(self, phase: Phase) -> tuple[float | None, Phase, float]:
        limits, now = self._timeouts, self._now()
        at: dict[Phase, tuple[float, float]] = {
            "connect": (now, limits.connect_s),
            "headers": (self._sent_at, limits.first_byte_s),
            "first_byte": (self._sent_at, limits.first_byte_s),
            "stream": (now, limits.idle_s),
            "total": (self._began_at, limits.total_s),
        }
        since, limit_s = at[phase]
        return (since + limit_s if limit_s else None), phase, limit_s

    def _is_over(self) -> bool:
        (total_at, *_), now = self._limit("total"), self._now()
        if total_at is None or now < total_at:
            return False
        if self._over_at is None:
            self._over_at = now
        return now >= self._over_at + SECOND_LOOK_S

    @contextlib.asynccontextmanager
    async def running(self, phase: Phase) -> AsyncIterator[None]:
        """Time what is awaited inside; `enter` moves on. Raises TransportTimeout."""
        self.enter(phase)
        if self._is_over():
            raise TransportTimeout("total", self._timeouts.total_s)
        timer = self._timer = Deadline(self._next[0])
        try:
            async with timer:
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            raise TransportTimeout(*self._next[1:]) from None
        finally:
            self._timer = None
