"""Usage that is known only after the call that caused it: of responses that are made in the background.

Whoever asks for such a response when it is finished, by itself or by its stream, is told what it used, and so is
everyone who asks again, on any node. So there is one record of it, whose id follows from the response's: the ledger
keeps that once, and says when it is new; only then it counts for metrics and budgets too.

Knows what of a response object says so (OpenAI API reference), and nothing of calls.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec
from msgspec import structs

from gateway.call import CallRecord, Due, Recorded, Usage
from gateway.metering.ledger_line import Line, usage_of
from gateway.metering.usage import data_of_events, usage_of_reply

PREFIX = "late_"
LONGEST_ID = 90
_FINISHED = ("completed", "incomplete", "failed", "cancelled")
MOST_WAITING = 20_000
"""Some 20 MB. They wait while the database is away: one that makes room is in the ledger later, but never charged.
Records that the ledger has known for long wait in vain to be new."""


class Late(NamedTuple):
    """What a response that was made in the background has used."""

    response_id: str
    model: str | None
    usage: Usage | None
    """None: it has ended, and nobody knows."""


class _Response(msgspec.Struct):
    id: str
    status: str
    background: bool | None = None
    model: str | None = None


class _Event(msgspec.Struct):
    response: msgspec.Raw


_NOTHING: Mapping[str, Mapping[str, int]] = {}
_RESPONSE = msgspec.json.Decoder(_Response)
_EVENT = msgspec.json.Decoder(_Event)


def late_usage(body: bytes) -> Late | None:
    """What the response object `body` says; None if it is not finished, or was not made in the background."""
    try:
        response = _RESPONSE.decode(body)
    except (ValueError, RecursionError):
        return None
    if not response.background or response.status not in _FINISHED or not 0 < len(response.id) <= LONGEST_ID:
        return None
    usage = usage_of_reply(body)
    return None if usage is None else Late(response.id, response.model, usage)


def ended(body: bytes, response_id: str) -> Late | None:
    """What the response object `body` says of one that was made in the background; None if it is not finished.

    Raises ValueError or RecursionError where it is no such object.
    """
    response = _RESPONSE.decode(body)
    return Late(response_id, response.model, usage_of_reply(body)) if response.status in _FINISHED else None


class LateScanner:
    """Feed blocks of whole events; `found` is what the last of them says."""

    def __init__(self) -> None:
        self.found: Late | None = None

    def feed(self, block: bytes) -> None:
        """Look at `block`. Never raises."""
        if block.find(b'"background"') < 0 or block.find(b'"usage"') < 0:
            return
        for data in data_of_events(block):
            try:
                event = _EVENT.decode(data)
            except (ValueError, RecursionError):
                continue
            self.found = late_usage(bytes(event.response)) or self.found


def late_usage_of_stream(body: bytes) -> Late | None:
    """What a whole event stream says; None if it says nothing. Never raises."""
    scanner = LateScanner()
    scanner.feed(body)
    return scanner.found


class LateRecords:
    """Hands records to the ledger, by `note_in_ledger`, and to its followers those that are new there, as kept."""

    def __init__(self, note_in_ledger: Callable[[Iterable[Recorded]], None]) -> None:
        self._note_in_ledger = note_in_ledger
        self._followers: tuple[Callable[[CallRecord], None], ...] = ()
        self._waiting: OrderedDict[str, CallRecord] = OrderedDict()

    def follow(self, follower: Callable[[CallRecord], None]) -> None:
        """Tell `follower` of records that are new, from now on."""
        self._followers += (follower,)

    def note(self, record: CallRecord) -> None:
        """Somebody was told what `record` says; never waits. What was told first stands, unless it says nothing."""
        known = self._waiting.get(record.id)
        if known is None or (known.usage is None and record.usage is not None):
            self._waiting[record.id] = record
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popitem(last=False)
        self._note_in_ledger([(record, "")])

    def written(self, new: Iterable[Line], reserved: Mapping[str, Mapping[str, int]] = _NOTHING) -> None:
        """The ledger has these lines, which it had not before; `reserved` was what they tell of, by their ids."""
        if not self._waiting:
            return
        for line in new:
            record = self._waiting.pop(line.id, None) if line.id.startswith(PREFIX) else None
            if record is not None:
                # Of what was told since, or on other nodes, the ledger may have kept something else.
                record = structs.replace(
                    record,
                    model=line.model,
                    usage=usage_of(line),
                    usage_source=line.usage_source,
                    cost_microusd=line.cost_microusd,
                )
                if line.id in reserved:
                    record = structs.replace(record, due=Due(line.id.removeprefix(PREFIX), reserved[line.id]))
                for follow in self._followers:
                    follow(record)
