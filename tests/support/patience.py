"""A clock for the event loops of tests that stands still while the machine does.

A busy host stops all that runs on it for seconds at times: clients, gateways and servers alike. The time that a test
allows others is meant as time in which they could run. Gateways under test go by the clock that all others go by.
"""

import asyncio
import functools
import threading
import time

_BEAT_S, _MOST_S = 0.02, 0.1


class RunningTime:
    """Seconds of the monotonic clock, of which no gap between two beats of a thread counts for more than 0.1."""

    def __init__(self) -> None:
        now_s = time.monotonic()
        self._last = now_s, now_s
        threading.Thread(target=self._beat, name="running-time", daemon=True).start()

    def now_s(self) -> float:
        counted_s, at_s = self._last
        return counted_s + min(time.monotonic() - at_s, _MOST_S)

    def _beat(self) -> None:
        rest = threading.Event()
        while not rest.wait(_BEAT_S):
            self._last = self.now_s(), time.monotonic()


class PatientLoop(asyncio.SelectorEventLoop):
    """asyncio's own, by running time."""

    def time(self) -> float:
        return _running_time().now_s()


@functools.cache
def _running_time() -> RunningTime:
    return RunningTime()
