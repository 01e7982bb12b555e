"""Cut an event stream at the boundaries of its events, wherever the network has cut it.

Knows how lines and events end (WHATWG HTML, sections 9.2.5 and 9.2.6) and nothing of what
they say, but for the number that a responses event carries. Bytes come out as they went
in: what was given back, joined, equals what was fed, whatever the pieces.

A byte order mark is taken for a part of the first line.
"""

import re
from typing import Any

import msgspec

_EVENT = re.compile(rb"(?:[^\r\n]++(?:\r\n?+|\n))*+(?:\r\n?+|\n|[^\r\n]*+\Z)")
"""Lines that are not empty, then one that is, or the end."""
_DATA = re.compile(rb"(?<![^\r\n])data(?::\x20?+([^\r\n]*+))?+(?![^\r\n])")
"""A line that is a `data` field; the group is its value."""
_EMPTY_LINE = re.compile(rb"\n|\r(?:\n|(?=.))", re.DOTALL)
"""A CR at the very end may yet turn out to be half of a CRLF."""
_CR_BOUNDARIES = (b"\n\r", b"\r\r")
_USUAL_ENDS = (b"\n\n", b"\r\n\r\n")


class EventCutter:
    """Feed pieces as they come; get back the longest run of whole events that is complete by now.

    Only an event that is not complete is held back, with one exception: whether a CR at the end of a piece is half of
    a CRLF is known with the next byte. So where lines end in single CRs, an event leaves when the next one begins.

    An event of more than `max_event_bytes` is let through in parts; `overflowed` is true until its end has come.
    """

    __slots__ = ("_after_line", "_held", "_max_event_bytes", "at_boundary")

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._held = bytearray()
        self._after_line = True
        """While not at a boundary: what was given back ends with a whole line."""
        self.at_boundary = True
        """What was given back ends with a whole event, so that another one may follow it."""

    def __repr__(self) -> str:
        return f"EventCutter(pending={self.pending}, at_boundary={self.at_boundary})"

    @property
    def pending(self) -> int:
        """How many bytes are held."""
        return len(self._held)

    @property
    def overflowed(self) -> bool:
        """The beginning of an event has been given back, and its end has not."""
        return not self.at_boundary

    def feed(self, piece: bytes) -> bytes:
        """The events that `piece` completes, b"" if there are none; `piece` itself where it is just whole events."""
        if not self._held and piece.endswith(_USUAL_ENDS):
            self.at_boundary = True
            return piece
        searched = len(self._held)
        self._held += piece
        # A boundary that has not been seen yet begins at most two bytes before the new ones.
        cut = self._boundary(max(searched - 2, 0))
        if cut:
            out = self._give(cut)
            self.at_boundary = True
            return out + self._overflow() if len(self._held) > self._max_event_bytes else out
        if self.at_boundary and len(self._held) <= self._max_event_bytes:
            return b""
        return self._overflow()

    def take(self) -> bytes:
        """All that is held. For the end of the stream, where an incomplete event is given back as it is."""
        if not self._held:
            return b""
        ends_line = self._held.endswith(_CR_BOUNDARIES)
        self.at_boundary = ends_line or (self._held == b"\r" and self._at_line_start())
        return self._give(len(self._held))

    def _give(self, size: int) -> bytes:
        out = bytes(memoryview(self._held)[:size])
        del self._held[:size]
        return out

    def _overflow(self) -> bytes:
        whole_line_ends = len(self._held) - self._held.endswith(b"\r")
        if not whole_line_ends:
            return b""
        out = self._give(whole_line_ends)
        self._after_line = out.endswith((b"\n", b"\r"))
        self.at_boundary = False
        return out

    def _at_line_start(self) -> bool:
        return self.at_boundary or self._after_line

    def _boundary(self, start: int) -> int:
        """The offset in what is held that follows the last event that is complete; 0 if there is none."""
        held = self._held
        end = len(held) - held.endswith(b"\r")
        cut = held.rfind(b"\n\n", start, end) + 2
        if held.find(b"\r", start) >= 0:
            cut = max(cut, *(_after(held, held.rfind(ends, start, end) + 2) for ends in _CR_BOUNDARIES))
        if cut > 1:
            return cut
        first = _EMPTY_LINE.match(held) if self._at_line_start() else None
        return first.end() if first else 0


def _after(held: bytearray, cut: int) -> int:
    """`cut`, or one more where it would come between the two halves of a CRLF."""
    return cut + 1 if cut > 1 and held[cut : cut + 1] == b"\n" else cut


def split_events(block: bytes) -> list[bytes]:
    """The events of `block`, each with the empty line that ends it; last, where there is one, an incomplete rest."""
    if b"\r" in block or b"\n\n\n" in block or block.startswith(b"\n"):
        return [event for event in _EVENT.findall(block) if event]
    events = block.split(b"\n\n")
    rest = events.pop()
    whole = [event + b"\n\n" for event in events]
    return [*whole, rest] if rest else whole


def data_spans(event: bytes) -> list[tuple[int, int]]:
    """From where to where in `event` the values of its `data` fields lie."""
    return [field.span(1) if field[1] is not None else (field.end(),) * 2 for field in _DATA.finditer(event)]


def data_of(event: bytes) -> bytes | None:
    """The data of one event: its `data` fields joined with newlines, or None if it has none."""
    spans = data_spans(event)
    return b"\n".join([event[start:end] for start, end in spans]) if spans else None


class _Numbered(msgspec.Struct):
    sequence_number: Any = None
    type: Any = None


_LAST_OF_RESPONSE = ("response.completed", "response.incomplete", "response.failed", "error")


_NUMBERED = msgspec.json.Decoder(_Numbered)


def sequence_number_after(block: bytes) -> int | None:
    """The `sequence_number` of the last event in `block` that has one; None if none has.

    Not for every block: call it when the number is needed, with the last block that was passed on.
    """
    for event in reversed(split_events(block)):
        number = _sequence_number(event) if b"sequence_number" in event else None
        if number is not None:
            return number
    return None


def ends_response(block: bytes) -> bool:
    """Whether the last event in `block` is the one that a responses stream ends with."""
    events = split_events(block)
    try:
        return bool(events) and _NUMBERED.decode(data_of(events[-1]) or b"").type in _LAST_OF_RESPONSE
    except (ValueError, RecursionError):
        return False


def _sequence_number(event: bytes) -> int | None:
    try:
        number = _NUMBERED.decode(data_of(event) or b"")
    except (ValueError, RecursionError):
        return None
    return number.sequence_number if type(number.sequence_number) is int else None
