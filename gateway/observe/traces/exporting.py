"""Records of traced calls on their way to the collector: a bounded queue, and one thread that empties it.

Knows when to send and what to say of failures, which is one line when they begin and one when they end. Nothing waits
for it: what does not fit is lost, and counted.
"""

import logging
from collections import deque
from threading import Event, Thread
from typing import Literal, Protocol, get_args

from gateway.call import CallRecord

MAX_WAITING = 4096
BATCH = 256
_INTERVAL_S = 2.0
_AFTER_ABORT_S = 1.0
_LAST_TRY_S = 0.2

_log = logging.getLogger("gateway")

Loss = Literal["queue_full", "not_taken"]
"""Why a trace is lost: too many waited, or the collector was away or refused it."""


class Collector(Protocol):
    """Where spans go."""

    @property
    def where(self) -> str:
        """Its address, for the log."""

    def send(self, records: list[CallRecord]) -> str | None:
        """Send their spans; why they are lost, or None if they are not. May take its time; never raises."""

    def abort(self) -> None:
        """Let `send` come to its end, now and from now on."""

    def close(self) -> None:
        """Nothing is sent any more."""


class Exporting:
    """Sends what is `put`, every two seconds or as soon as there is much of it."""

    def __init__(self, collector: Collector) -> None:
        self.lost: dict[Loss, int] = dict.fromkeys(get_args(Loss), 0)
        """Calls whose traces the collector never got. Each count is one thread's alone, so that none is missed."""
        self._collector = collector
        self._waiting: deque[CallRecord] = deque()
        self._wake = Event()
        self._is_closing = False
        self._is_failing = False
        self._told = 0
        """Of the lost ones, those of which the log has told how many they are."""
        self._thread = Thread(target=self._run, name="traces", daemon=True)

    def __repr__(self) -> str:
        state = "failing" if self._is_failing else "well"
        return f"Exporting({self._collector.where}, {len(self._waiting)} waiting, {self._untold()} lost, {state})"

    def start(self) -> None:
        """From now on things are sent."""
        self._thread.start()

    def put(self, record: CallRecord) -> None:
        """Have its spans sent. Never waits."""
        waiting = len(self._waiting)
        if waiting >= MAX_WAITING:
            self.lost["queue_full"] += 1
            return
        self._waiting.append(record)
        if waiting + 1 == BATCH:
            self._wake.set()

    def close(self, within_s: float) -> None:
        """Send what waits, and no more. Blocks for as long at most, and a second for what is under way then.

        A collector that is away already is given up sooner.
        """
        self._is_closing = True
        self._wake.set()
        self._thread.join(min(within_s, _LAST_TRY_S) if self._is_failing else within_s)
        self._collector.abort()
        self._thread.join(_AFTER_ABORT_S)
        self._collector.close()

    def _run(self) -> None:
        while True:
            self._wake.wait(_INTERVAL_S)
            self._wake.clear()
            is_last = self._is_closing
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))])
            if is_last:
                return

    def _send(self, batch: list[CallRecord]) -> None:
        reason = self._collector.send(batch)
        where = self._collector.where
        if reason is not None:
            self.lost["not_taken"] += len(batch)
            if not self._is_failing:
                _log.warning("Traces cannot be sent to %s and are lost meanwhile: %s", where, reason)
        elif self._is_failing:
            lost = self._untold()
            _log.info("Traces are sent to %s again; those of %d calls were lost.", where, lost)
            self._told += lost
        self._is_failing = reason is not None

    def _untold(self) -> int:
        return sum(self.lost.values()) - self._told
