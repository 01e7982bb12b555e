"""Settles calls that have ended, each once: what it used, its limits made true, and all who watch told.

Calls that end in one turn of the event loop are settled together in its next, one step for all before the next step:
each step then finds its code and data in the processor's caches for all calls but the first, and the ledger writes
once. Only then do their clients get the last of their replies: whoever saw a call end finds it in the ledger.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from gateway.call import CallRecord, Recorded, Route
from gateway.metering.meter import UNKNOWN
from gateway.relay.allowance import Allowance
from gateway.relay.late_record import late_record
from gateway.relay.live import LiveCall

Observer = Callable[[Sequence[Recorded]], None]
"""Is told of every call once, of those together that are settled together."""

_log = logging.getLogger("gateway")


def each(observe: Callable[[CallRecord, str], None]) -> Observer:
    """`observe`, told of one call after the other."""

    def observe_all(ended: Sequence[Recorded]) -> None:
        for record, detail in ended:
            observe(record, detail)

    return observe_all


class Settlement:
    """Takes calls in `end`; `is_behind` while some of them are not settled. Use it on one event loop.

    What is told late, of a response in the background, is a call by the route `makes_responses`.
    """

    def __init__(self, allowance: Allowance, makes_responses: Route) -> None:
        self._allowance = allowance
        self._makes_responses = makes_responses
        self._observers: tuple[Observer, ...] = ()
        self._ended: list[LiveCall] = []
        self.note_late: Callable[[CallRecord], None] | None = None
        """Is told whenever a reply says what a response in the background has used; it may say so often."""

    @property
    def is_behind(self) -> bool:
        return bool(self._ended)

    def add_observer(self, observer: Observer) -> None:
        """Tell `observer` too, from the next call on."""
        self._observers += (observer,)

    def end(self, call: LiveCall) -> None:
        """Settle `call` in the loop's next turn, and let go of the end of its reply. Never raises."""
        call.on_end = None
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._settle)
        self._ended.append(call)

    def _settle(self) -> None:
        calls, self._ended = self._ended, []
        try:
            recorded = [self._measured(call) for call in calls]
            for call, (record, _) in zip(calls, recorded, strict=True):
                if call.asked is not None:
                    self._make_true(call, record)
            for observe in self._observers:
                self._tell(observe, recorded)
            for call, (record, _) in zip(calls, recorded, strict=True):
                if call.late is not None:
                    self._tell_late(call, record)
        finally:
            for call in calls:
                call.wire.let_go()

    def _measured(self, call: LiveCall) -> Recorded:
        try:
            return call.record(self._allowance.meter.measure(call)), call.detail
        except Exception:
            _log.exception("what call %s used could not be measured on a bug", call.id.decode())
            return call.record(UNKNOWN), call.detail

    def _make_true(self, call: LiveCall, record: CallRecord) -> None:
        try:
            self._allowance.settle(call, record)
        except Exception:
            _log.exception("the limits of call %s could not be settled on a bug", record.id)

    def _tell(self, observe: Observer, recorded: Sequence[Recorded]) -> None:
        try:
            observe(recorded)
        except Exception:
            _log.exception("%d calls could not be told of on a bug", len(recorded))

    def _tell_late(self, call: LiveCall, record: CallRecord) -> None:
        if call.late is None or self.note_late is None:
            return
        late = late_record(record, call.late, call.owner, self._makes_responses, self._allowance.meter)
        if late is not None:
            self.note_late(late)
