"""Request heads that came before, byte for byte but for the digits of Content-Length.

A client says the same about itself with every call. What was read out of such a head the first time, by the parser
and by the proxy, holds for each repetition; the key in it is looked up anew each time. A head is remembered only
if the whole request came in one piece, so that there is nothing for the parser to know about it.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from gateway.http.requests import Head
    from gateway.http.routes import Match

_NAME, _TAIL = b"\r\ncontent-l", b"ength: "
"""The tail is searched for: faster than to look for both usual spellings of the name. `remember` checks all of it."""
_MAX_HEADS, _MAX_HEAD_BYTES = 256, 8 * 1024


class Repeated(NamedTuple):
    """What a head says."""

    scope: dict[str, Any]
    match: "Match"
    head: "Head"
    """Its Content-Length is that of the first request; none of the others'."""
    target: bytes
    headers: list[tuple[bytes, bytes]]
    """What goes upstream, without Content-Length."""
    prefix: bytes
    """The same as bytes, up to the digits of Content-Length."""


class RepeatedHeads:
    """Finds repetitions. Bounded: past `_MAX_HEADS` it starts anew."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], Repeated] = {}
        """By what stands before the digits of Content-Length, and behind them."""

    def find(self, data: bytes) -> tuple[Repeated, bytes] | None:
        """What is known of the head of `data`, and the body, if `data` is one whole request with a known head."""
        head, _, body = data.partition(b"\r\n\r\n")
        before, _, rest = head.partition(_TAIL)
        length, _, after = rest.partition(b"\r\n")
        known = self._known.get((before, after))
        # No body is there where the head has not come to its end.
        return None if known is None or not body or length != b"%d" % len(body) else (known, body)

    def remember(self, data: bytes, known: Repeated) -> None:
        """`known` is what was read out of `data`; forgotten at once if it is not one whole request."""
        head, _, body = data.partition(b"\r\n\r\n")
        before, _, rest = head.partition(_TAIL)
        length, _, after = rest.partition(b"\r\n")
        if len(head) > _MAX_HEAD_BYTES or before[-len(_NAME) :].lower() != _NAME:
            return
        has_other_ends = head.count(b"\n") != head.count(b"\r\n")
        if has_other_ends or not body or length != b"%d" % len(body):
            return
        if len(self._known) >= _MAX_HEADS:
            self._known.clear()
        self._known[before, after] = known
