"""Odd but legal spellings of a reply, done to its bytes.

Generators over pieces; nothing here waits or writes. What each word means is
in `faults`.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator

import msgspec

from gateway.simulator.call import EVENT_STREAM, Reply
from gateway.simulator.faults import Faults
from gateway.simulator.sse import data_event, named_event

BIG_EVENT_BYTES = 1024 * 1024
IN_BAND_MESSAGE = "The server had an error while processing your request. Sorry about that!"


def pieces(reply: Reply, faults: Faults) -> Iterator[bytes]:
    """The body in the writes in which it goes out."""
    body = _compressed([reply.body] if isinstance(reply.body, bytes) else _events(reply.body, faults), faults)
    if "split-utf8" in faults.odd:
        body = (part for piece in body for part in _split_within_characters(piece))
    if faults.drip_bytes is not None:
        body = _drip(body, faults.drip_bytes)
    return iter(body)


def length(reply: Reply, faults: Faults) -> int | None:
    """Bytes of the body, if that is known before it is sent."""
    if not isinstance(reply.body, bytes):
        return None
    return sum(map(len, _compressed([reply.body], faults)))


def headers(reply: Reply, faults: Faults) -> list[tuple[bytes, bytes]]:
    """What the body needs to be read."""
    encoding = [(b"content-encoding", b"gzip")] if "gzip" in faults.odd else []
    known = length(reply, faults)
    framing = [] if known is None else [(b"content-length", b"%d" % known)]
    no_cache = [(b"cache-control", b"no-cache")] if reply.content_type == EVENT_STREAM else []
    return [(b"content-type", reply.content_type), *encoding, *framing, *no_cache]


def _compressed(body: Iterable[bytes], faults: Faults) -> Iterable[bytes]:
    if "gzip" not in faults.odd:
        return body
    return (gzip.compress(body[0], mtime=0),) if isinstance(body, list) else _gzip(body)


def _gzip(body: Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(wbits=31)
    for piece in body:
        yield compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
    yield compressor.flush()


def _events(events: Iterable[bytes], faults: Faults) -> Iterator[bytes]:
    for number, event in enumerate(_ended(events, faults)):
        if number == faults.fail_events:
            yield from _spelled([_failure(event, number)], faults)
            return
        if "comments" in faults.odd:
            yield from _spelled([b": simulated comment %d\n\n" % number], faults)
        yield from _spelled([event], faults)
        if number == 1:
            yield from _spelled(_additions(event, faults), faults)


def _ended(events: Iterable[bytes], faults: Faults) -> Iterator[bytes]:
    """All events or, with `no-done`, all but the one that ends the stream."""
    if "no-done" not in faults.odd:
        yield from events
        return
    previous = None
    for event in events:
        if previous is not None:
            yield previous
        previous = event


def _additions(like: bytes, faults: Faults) -> Iterator[bytes]:
    spell = named_event if like.startswith(b"event:") else data_event
    if "unknown-events" in faults.odd:
        yield spell({"type": "simulated.surprise", "object": "simulated.surprise", "surprise": {"of": [1, None]}})
    if "big-event" in faults.odd:
        yield spell({"type": "simulated.big", "object": "simulated.big", "padding": "x" * BIG_EVENT_BYTES})


def _spelled(events: Iterable[bytes], faults: Faults) -> Iterator[bytes]:
    for event in events:
        yield event.replace(b"\n", b"\r\n") if "crlf" in faults.odd else event


def _failure(instead_of: bytes, number: int) -> bytes:
    """The error that ends a stream, as the API of the event that it replaces sends it."""
    if instead_of.startswith(b"event:"):
        error = {"code": "server_error", "message": IN_BAND_MESSAGE, "param": None}
        return named_event({"type": "error", **error, "sequence_number": number})
    error = {"message": IN_BAND_MESSAGE, "type": "server_error", "param": None, "code": None}
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"


def _split_within_characters(piece: bytes) -> Iterator[bytes]:
    """Cut after the first byte of every multi-byte character."""
    start = 0
    for index, byte in enumerate(piece):
        if byte >= 0xC0:
            yield piece[start : index + 1]
            start = index + 1
    yield piece[start:]


def _drip(body: Iterable[bytes], size: int) -> Iterator[bytes]:
    for piece in body:
        for start in range(0, len(piece), size):
            yield piece[start : start + size]
