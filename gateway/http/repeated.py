"""Request heads that came before, byte for byte but for the digits of Content-Length.

A client says the same about itself with every call. What was read out of such a head the first time, by the parser
and by the proxy, holds for each repetition; the key in it is looked up anew each time. A head is remembered only
if the whole request came in one piece, so that there is nothing for the parser to know about it.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from gateway.http.requests import Head
    from gateway.http.routes import Match

_LENGTH = b"\r\ncontent-length: "
_TAIL = b"ength: "
"""What is searched for: faster than to look for both usual spellings of the name. `remember` checks all of it."""
_MOST_DIGITS = 8
_MAX_HEADS, _MAX_HEAD_BYTES = 256, 8 * 1024


class Repeated(NamedTuple):
    """What a head says. `at` is where its Content-Length begins, for two heads may differ in that alone."""

    at: int
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
        self._known: dict[bytes, Repeated] = {}

    def find(self, data: bytes) -> tuple[Repeated, bytes] | None:
        """What is known of the head of `data`, and the body, if `data` is one whole request with a known head."""
        end = data.find(b"\r\n\r\n")
        at = data.find(_TAIL, 0, max(end, 0))
        if at < 0:  # so too where the head has not come to its end
            return None
        after = data.find(b"\r\n", at)
        known = self._known.get(data[:at] + data[after:end])
        if known is None or known.at != at:
            return None
        body = data[end + 4 :]
        return (known, body) if _states(data[at + len(_TAIL) : after], body) else None

    def remember(self, data: bytes, known: Repeated) -> None:
        """`known` is what was read out of `data`; forgotten at once if it is not one whole request."""
        end = data.find(b"\r\n\r\n")
        at = data.find(_TAIL, 0, max(end, 0))
        name = at + len(_TAIL) - len(_LENGTH)
        if name < 0 or end > _MAX_HEAD_BYTES or data[name : at + len(_TAIL)].lower() != _LENGTH:
            return
        after = data.find(b"\r\n", at)
        has_other_ends = data.count(b"\n", 0, end) != data.count(b"\r\n", 0, end)
        if has_other_ends or not _states(data[at + len(_TAIL) : after], data[end + 4 :]):
            return
        if len(self._known) >= _MAX_HEADS:
            self._known.clear()
        self._known[data[:at] + data[after:end]] = known._replace(at=at)


def _states(length: bytes, body: bytes) -> bool:
    return length.isdigit() and len(length) <= _MOST_DIGITS and int(length) == len(body) > 0
