"""A clock for the event loops of tests that stands still while the machine does.

A busy host stops all that runs on it for seconds at times: clients, gateways and servers alike. The time that a test
allows others is meant as time in which they could run. Gateways under test go by the clock that all others go by.
"""

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

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


def running_s() -> float:
    """Running time now, for what may take so long and no longer."""
    return _running_time().now_s()


@dataclass(frozen=True, slots=True)
class Took:
    """What something took: by the clock that all others go by, and in running time."""

    passed_s: float
    running_s: float

    @property
    def stood_still_s(self) -> float:
        """For how long the machine did not run meanwhile."""
        return self.passed_s - self.running_s

    def is_between(self, least_s: float, most_s: float) -> bool:
        """Whether it took so long at least, and not longer for want of anything but a machine that runs."""
        return least_s <= self.passed_s and self.running_s <= most_s


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._began_s = time.monotonic(), running_s()

    def took(self) -> Took:
        """Until now."""
        return Took(time.monotonic() - self._began_s[0], running_s() - self._began_s[1])


def wait_for(condition: threading.Condition, holds: Callable[[], bool], within_s: float) -> bool:
    """As `condition.wait_for`, in running time."""
    end_s = running_s() + within_s
    while not holds() and running_s() < end_s:
        condition.wait(max(end_s - running_s(), 0))
    return holds()


@functools.cache
def _running_time() -> RunningTime:
    return RunningTime()
