"""A timer that rings on time to some ten microseconds, inside an event loop.

The loop's own timers count whole milliseconds, so calls at a rate of
thousands a second would leave in bursts, and what is measured would be the
queue that the bursts make. Linux's timerfd counts nanoseconds; Python offers
it from 3.13 on, so it is called through ctypes.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE = 1


def now_ns() -> int:
    return time.monotonic_ns()


class _TimerSpec(ctypes.Structure):
    """struct itimerspec: an interval that is not used, and the moment."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "at_s", "at_ns"))


class Alarm:
    """Calls `ring` once for each `set`, at a moment of `now_ns`."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._rang)

    def set(self, at_ns: int) -> None:
        seconds, nanoseconds = divmod(at_ns, 1_000_000_000)
        spec = _TimerSpec(0, 0, seconds, nanoseconds)
        if self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _rang(self) -> None:
        os.read(self._fd, 8)
        self._ring()
