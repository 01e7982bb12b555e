"""Undo a request body's Content-Encoding, never holding more than its cap allows.

Knows gzip (RFC 1952), zlib and raw deflate (RFC 1950, 1951), zstd (RFC 8878) and lists of
two of them (RFC 9110, section 8.4). Refuses to know what is in the body. Decoding stops
at the cap, so what a small body inflates to costs no more than the cap and one window.
"""

import io
import zlib
from collections.abc import Callable

import zstandard

from gateway.errors import BadRequest, RequestTooLarge, UnsupportedEncoding

MAX_ENCODINGS = 2
MAX_GZIP_MEMBERS = 1024
"""Empty members cost time and count for nothing against the cap."""
MAX_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
"""What RFC 9659 allows in the content coding zstd."""

_TOO_EARLY = "it ends too early"
_STEP_BYTES = 64 * 1024
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS

_SENTINEL_FRAME = b"\x28\xb5\x2f\xfd\x20\x20\x03\x01\x00\x00"
_SENTINEL = bytes(32)
"""What that zstd frame holds. The library does not tell a body that is cut short from a whole one. But a frame that is
put after the body is read as a frame only if all before it are whole."""


def decode_body(body: bytes, content_encoding: bytes, max_bytes: int) -> bytes:
    """`body` without the codings that `content_encoding` lists, at most `max_bytes` long at every step.

    Raises `RequestTooLarge` past the cap, `BadRequest` for broken or incomplete data, `UnsupportedEncoding` for
    a coding that is not known or for too many of them.
    """
    codings = [coding.strip(b" \t").lower() for coding in content_encoding.split(b",")]
    decoders = [_decoder(coding) for coding in codings if coding not in (b"", b"identity")]
    if len(decoders) > MAX_ENCODINGS:
        raise UnsupportedEncoding(f"The request body may have at most {MAX_ENCODINGS} content encodings.")
    for decode in reversed(decoders):
        try:
            body = decode(body, max_bytes)
        except (zlib.error, zstandard.ZstdError, EOFError) as error:
            raise BadRequest(
                f"The request body does not match its Content-Encoding: {error}. Send it whole, or without one."
            ) from error
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


def _decoder(coding: bytes) -> Callable[[bytes, int], bytes]:
    try:
        return _DECODERS[coding]
    except KeyError:
        name = coding[:40].decode("ascii", "replace")
        raise UnsupportedEncoding(
            f"Content-Encoding {name!r} is not supported. Use gzip, deflate, zstd or none."
        ) from None


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"The decoded request body is larger than {max_bytes} bytes. Send a smaller one.")


class _Capped(io.BytesIO):
    """Collects what was decoded; raises once that is more than `max_bytes`, and `extra_bytes` besides."""

    def __init__(self, max_bytes: int, extra_bytes: int = 0) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._extra_bytes = extra_bytes

    def add(self, piece: bytes) -> None:
        if self.tell() + len(piece) > self._max_bytes + self._extra_bytes:
            raise _too_large(self._max_bytes)
        self.write(piece)


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """All members of `body`, one after the other (RFC 1952, section 2.2)."""
    out = _Capped(max_bytes)
    rest = memoryview(body)
    for _ in range(MAX_GZIP_MEMBERS):
        rest = rest[_inflate(rest, _GZIP, out) :]
        if not rest:
            return out.getvalue()
    raise zlib.error(f"it has more than {MAX_GZIP_MEMBERS} gzip members")


def _undeflate(body: bytes, max_bytes: int) -> bytes:
    """zlib, as the RFC says, or raw deflate, as some clients send it."""
    try:
        return _inflate_whole(body, _ZLIB, max_bytes)
    except (zlib.error, EOFError) as error:
        try:
            return _inflate_whole(body, _RAW, max_bytes)
        except (zlib.error, EOFError):
            raise error from None


def _inflate_whole(body: bytes, wbits: int, max_bytes: int) -> bytes:
    out = _Capped(max_bytes)
    if _inflate(memoryview(body), wbits, out) < len(body):
        raise zlib.error("there are bytes after its end")
    return out.getvalue()


def _inflate(data: memoryview, wbits: int, out: _Capped) -> int:
    """Decode one stream from the beginning of `data` into `out`; gives back how many bytes it took."""
    stream = zlib.decompressobj(wbits)
    for start in range(0, len(data), _STEP_BYTES):
        step: bytes | memoryview = data[start : start + _STEP_BYTES]
        while step and not stream.eof:
            out.add(stream.decompress(step, _STEP_BYTES))
            step = stream.unconsumed_tail
        if stream.eof:
            return min(start + _STEP_BYTES, len(data)) - len(stream.unused_data)
    out.add(stream.flush())
    if not stream.eof:
        raise EOFError(_TOO_EARLY)
    return len(data)


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    """All frames of `body`, one after the other (RFC 8878, section 3)."""
    if not body:
        raise EOFError(_TOO_EARLY)
    out = _Capped(max_bytes, len(_SENTINEL))
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
    with decompressor.stream_reader(body + _SENTINEL_FRAME, read_across_frames=True) as reader:
        while piece := reader.read(_STEP_BYTES):
            out.add(piece)
    decoded = out.getvalue()
    if not decoded.endswith(_SENTINEL):
        raise EOFError(_TOO_EARLY)
    return decoded[: -len(_SENTINEL)]


_DECODERS: dict[bytes, Callable[[bytes, int], bytes]] = {
    b"gzip": _gunzip,
    b"x-gzip": _gunzip,
    b"deflate": _undeflate,
    b"zstd": _unzstd,
}
