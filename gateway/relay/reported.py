"""What a plain reply says of usage: whole, or in pieces that are only passing, compressed or not.

Upstream is asked for identity, but some servers compress all the same. What cannot be decoded says nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence

from gateway.call import Usage
from gateway.errors import GatewayError
from gateway.metering.usage import usage_of_reply, usage_of_stream
from gateway.metering.usage_tail import TAIL_BYTES, usage_at_the_end
from gateway.relay.encoding import decode_body

MAX_KEPT_BYTES = 16 * 1024 * 1024
"""Of a larger reply only the end is looked at."""
_DECODED_INLINE_BYTES = 16 * 1024
"""A larger reply is decoded in a thread, since others must not wait."""

_NO_DOCUMENTS = (b"audio/", b"video/", b"image/", b"application/octet-stream", b"text/event-stream")
_JSON = b"application/json"
_EVENTS = b"text/event-stream"


class Reported:
    """Reads usage out of one reply, whose headers are `fields`."""

    __slots__ = ("_coding", "_is_stream", "_kept", "_kept_bytes", "_tail", "is_document")

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        content_type = fields.get(b"content-type", b"")
        self.is_document = content_type == _JSON or not content_type.lower().startswith(_NO_DOCUMENTS)
        """It is of use only when it is whole."""
        self._is_stream = not self.is_document and content_type.lower().startswith(_EVENTS)
        self._coding = fields.get(b"content-encoding")
        self._kept: list[bytes] | None = [] if self.is_document or self._is_stream else None
        self._kept_bytes = 0
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        """Keep a piece of a reply that passes."""
        if self._kept is not None:
            self._kept.append(piece)
            self._kept_bytes += len(piece)
            if self._kept_bytes > MAX_KEPT_BYTES:
                self._tail = _end_of(self._kept)
                self._kept = None
        elif self._tail:
            self._tail = (self._tail + piece if len(piece) < TAIL_BYTES else piece)[-TAIL_BYTES:]

    async def usage(self) -> Usage | None:
        """The usage of the pieces that were fed, once the reply has ended."""
        if self._kept:
            return self.usage_of(await self.text_of(b"".join(self._kept)))
        return None if self._coding is not None or self._is_stream else usage_at_the_end(self._tail)

    def usage_of(self, text: bytes) -> Usage | None:
        """The usage in a whole reply, decoded."""
        return usage_of_stream(text) if self._is_stream else usage_of_reply(text)

    async def text_of(self, body: bytes) -> bytes:
        """A whole reply, decoded; b"" where that is not possible."""
        if self._coding is None:
            return body
        try:
            if len(body) <= _DECODED_INLINE_BYTES:
                return decode_body(body, self._coding, MAX_KEPT_BYTES)
            return await asyncio.to_thread(decode_body, body, self._coding, MAX_KEPT_BYTES)
        except GatewayError:
            return b""


def _end_of(pieces: Sequence[bytes]) -> bytes:
    end = b""
    for piece in reversed(pieces):
        end = piece[-TAIL_BYTES:] + end
        if len(end) >= TAIL_BYTES:
            break
    return end[-TAIL_BYTES:]
