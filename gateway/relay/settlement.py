"""Settles calls that have ended, each once: what it used, its limits made true, and all who watch told.

Under load calls that end in one turn of the event loop are settled together in its next, one step for all before the
next step: each step then finds its code and data in the processor's caches for all calls but the first, and the ledger
writes once. Only then do their clients get the last of their replies: whoever saw a call end finds it in the ledger.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from gateway.call import CallRecord, Recorded, Route
from gateway.metering.meter import UNKNOWN
from gateway.relay.allowance import Allowance
from gateway.relay.late_record import late_record
from gateway.relay.live import LiveCall

Observer = Callable[[Sequence[Recorded]], None]
"""Is told of every call once, of those together that are settled together."""

FEW_CALLS = 4
"""With fewer under way than that, a call is settled at once: hardly another one ends in the same turn."""

_log = logging.getLogger("gateway")


def each(observe: Callable[[CallRecord, str], None]) -> Observer:
    """`observe`, told of one call after the other."""

    def observe_all(recorded: Sequence[Recorded]) -> None:
        for record, detail in recorded:
            try:
                observe(record, detail)
            except Exception:
                _log.exception("call %s could not be told of on a bug", record.id)

    return observe_all


class Settlement:
    """Takes calls in `end`; `is_behind` while some of them are not settled. Use it on one event loop.

    `open_calls` are those under way. What is told late, of a response in the background, is a call by the route
    `makes_responses`.
    """

    def __init__(self, allowance: Allowance, makes_responses: Route, open_calls: Collection[LiveCall]) -> None:
        self._allowance = allowance
        self._open_calls = open_calls
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
        """Settle `call`, in the loop's next turn at the latest, and let go of the end of its reply. Never raises."""
        call.on_end = None
        self._ended.append(call)
        if len(self._ended) > 1:
            return
        if len(self._open_calls) < FEW_CALLS:
            self._settle()
        else:
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        # A bug with one call is no business of those that ended with it.
        calls, self._ended = self._ended, []
        settled = {call: recorded for call in calls if (recorded := self._measured(call)) is not None}
        settle = self._allowance.settle
        for call, recorded in settled.items():
            if call.asked is not None:
                try:
                    settle(call, recorded[0])
                except Exception:
                    _log.exception("the limits of call %s could not be settled on a bug", recorded[0].id)
        told = list(settled.values())
        for observe in self._observers:
            self._tell(observe, told)
        for call, recorded in settled.items():
            if call.late is not None:
                self._tell_late(call, recorded[0])
        for call in calls:
            try:
                call.wire.let_go()
            except Exception:
                _log.exception("the end of the reply to call %s could not be sent on a bug", call.id.decode())

    def _measured(self, call: LiveCall) -> Recorded | None:
        try:
            return call.record(self._allowance.meter.measure(call)), call.detail
        except Exception:
            _log.exception("call %s could not be measured on a bug", call.id.decode())
        try:
            return call.record(UNKNOWN), call.detail
        except Exception:
            _log.exception("call %s could not be recorded on a bug", call.id.decode())
            return None

    def _tell(self, observe: Observer, recorded: Sequence[Recorded]) -> None:
        try:
            observe(recorded)
        except Exception:
            _log.exception("%d calls could not be told of on a bug", len(recorded))

    def _tell_late(self, call: LiveCall, record: CallRecord) -> None:
        if call.late is None or self.note_late is None:
            return
        try:
            late = late_record(record, call.late, call.owner, self._makes_responses, self._allowance.meter)
            if late is not None:
                self.note_late(late)
        except Exception:
            _log.exception("what call %s has heard of another one could not be told on a bug", record.id)
