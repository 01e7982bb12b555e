"""Read token usage out of the end of what is too large to be kept: of a plain reply, or of one event of a stream.

Its beginning has passed, so it cannot be decoded. But what follows `"usage":` must end with the document, and close no
more than the object that it is a member of: so neither text (within a string there is no quote without a backslash) nor
a member of anything deeper, which a client may have made up, is taken for it. Pure.
"""

import json
from typing import Any

import msgspec

from gateway.call import Usage
from gateway.metering.usage import EVENT_END, usage_of_reply, usage_of_stream

TAIL_BYTES = 16 * 1024
"""So much of the end is looked at: a response's `metadata`, 8 KiB at most, may follow its usage."""

_KEY = b'"usage"'
_MOST_TRIES = 16
_DECODER = json.JSONDecoder()
_DATA = b"data:"


class PartScanner:
    """Feed blocks of a stream that come after `part`, which ends with the beginning of an event, cut wherever they are.

    `usage` is what the stream reported last, `before` until then.
    """

    __slots__ = ("_found", "_tail")

    def __init__(self, before: Usage | None, part: bytes) -> None:
        self._found = before
        self._tail = EVENT_END.split(part)[-1][-TAIL_BYTES:]
        """Of an event that has begun; b"": none has."""

    def feed(self, block: bytes) -> None:
        """Look at `block`. Never raises."""
        if self._tail:
            text = self._tail + block
            is_one_line = block.find(b"\n") < 0 and block.find(b"\r") < 0
            end = None if is_one_line else EVENT_END.search(text)
            if end is None:
                self._tail = text[-TAIL_BYTES:]
                return
            self._found = _usage_of_event(text[: end.start()]) or self._found
            block = text[end.end() :]
        self._found = usage_of_stream(block) or self._found
        self._tail = EVENT_END.split(block)[-1][-TAIL_BYTES:]

    @property
    def usage(self) -> Usage | None:
        """None if the stream has reported none. An event whose empty line never came counts, if it is whole."""
        return _usage_of_event(self._tail) or self._found


def usage_at_the_end(tail: bytes) -> Usage | None:
    """The usage of a JSON reply that ends with `tail`, if that is among its last members. Never raises."""
    return _last_usage(tail, depth=1)


def _usage_of_event(text: bytes) -> Usage | None:
    """The usage of an event that ends with `text`: a member of its own, else of an object in it (`response`)."""
    first, *lines = text[-TAIL_BYTES:].splitlines() or (b"",)
    data = [first.removeprefix(_DATA), *(line[len(_DATA) :] for line in lines if line.startswith(_DATA))]
    tail = b"\n".join(data)
    return _last_usage(tail, depth=1) or _last_usage(tail, depth=2)


def _last_usage(tail: bytes, depth: int) -> Usage | None:
    at = len(tail)
    for _ in range(_MOST_TRIES):
        at = tail.rfind(_KEY, 0, at)
        if at < 0:
            return None
        try:
            found = _members_after(tail[at:].decode(errors="replace"), depth)
        except (ValueError, RecursionError):
            continue
        if isinstance(found["usage"], dict):
            return usage_of_reply(msgspec.json.encode({"usage": found["usage"]}))
    return None


def _members_after(text: str, depth: int) -> dict[str, Any]:
    """The members that `text` begins with. Raises ValueError unless they end an object that is so deep in all of it."""
    members, end = _DECODER.raw_decode("{" + text)
    rest = text[end - 1 :].strip()
    if bool(rest) != (depth > 1) or (rest and not isinstance(json.loads('{"":0' + rest), dict)):
        raise ValueError(rest)
    return dict(members)
