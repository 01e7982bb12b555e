"""Keep a secret from being echoed: stars in place of its bytes, and of their usual encodings.

Knows the spellings in which a reply could repeat a secret: as it is, within a JSON string,
percent-encoded, and base64 or base64url wherever in the encoded bytes it stands. Refuses
to know what a reply means. Lengths never change, so a Content-Length stays true.
"""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote, quote_plus

MIN_ENCODED_BYTES = 8
"""Secrets that are shorter are masked as they are only: their encodings are found in innocent text."""

_PROBE_BYTES = 16
"""find() prepares for each byte it is to look for: beyond so many that costs more than it saves."""
_ESCAPE = re.compile("%..")


class SecretMask:
    """Masks every occurrence of `secrets` (bytes; an empty one is ignored).

    `mask` is for bytes that are whole and keeps no state; `feed` and `flush` are for one stream that is cut anywhere.
    In base64 the characters at both ends hold bits of the neighbouring bytes as well; those two may stay.
    """

    __slots__ = ("_condemned", "_held", "_inner", "_needles", "_probes")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._needles = tuple({spelling for secret in secrets for spelling in _spellings(secret)})
        self._probes = tuple({needle[:_PROBE_BYTES] for needle in self._needles})
        self._inner = frozenset(byte for needle in self._needles for byte in needle[:-1])
        """Where another byte is last, no secret has begun."""
        self._held = b""
        self._condemned = 0
        """So many bytes of `_held` are to be masked whatever follows."""

    def __repr__(self) -> str:
        return f"SecretMask({len(self._needles)} spellings, {len(self._held)} bytes held)"

    def mask(self, data: bytes) -> bytes:
        """`data` with `*` for each byte of each occurrence; `data` itself if there is none."""
        find = data.find
        for probe in self._probes:
            if find(probe) >= 0:
                spans = self._spans(data)
                return _starred(data, spans) if spans else data
        return data

    def feed(self, piece: bytes) -> bytes:
        """All that can be given out by now, masked; only what may be the beginning of a secret is held back."""
        if not self._held and (not piece or piece[-1] not in self._inner):
            return self.mask(piece)
        data = self._held + piece if self._held else piece
        start = min([_begin(needle, data) for needle in self._needles])
        if start == len(data) and not self._condemned:
            self._held = b""
            return self.mask(data)
        spans = [(0, self._condemned), *self._spans(data)]
        self._held = data[start:]
        self._condemned = max(0, *(end - start for begin, end in spans if begin < start or begin == 0))
        return _starred(data, spans)[:start]

    def flush(self) -> bytes:
        """What is still held, masked: nothing follows it."""
        rest, spans = self._held, [(0, self._condemned), *self._spans(self._held)]
        self._held, self._condemned = b"", 0
        return _starred(rest, spans)

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        return [(at, at + len(needle)) for needle in self._needles for at in _occurrences(needle, data)]


def _occurrences(needle: bytes, data: bytes) -> Iterator[int]:
    at = data.find(needle)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1)


def _begin(needle: bytes, data: bytes) -> int:
    """The offset from which on all that is left of `data` begins `needle`; the length of `data` if there is none."""
    at = data.find(needle[:1], max(0, len(data) - len(needle) + 1))
    while at >= 0 and not needle.startswith(data[at:]):
        at = data.find(needle[:1], at + 1)
    return len(data) if at < 0 else at


def _starred(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    masked = bytearray(data)
    for start, end in spans:
        masked[start:end] = b"*" * (end - start)
    return bytes(masked)


def _spellings(secret: bytes) -> set[bytes]:
    if len(secret) < MIN_ENCODED_BYTES:
        return {secret} - {b""}
    return {secret, *_base64(secret), *_percent_encoded(secret), *_in_json(secret)}


def _base64(secret: bytes) -> Iterator[bytes]:
    """The characters that `secret` alone determines, for each of the three places it can have in a group of three."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        alone = encoded[-(-8 * before // 6) : 8 * (before + len(secret)) // 6]
        yield alone
        yield alone.replace(b"+", b"-").replace(b"/", b"_")


def _percent_encoded(secret: bytes) -> Iterator[bytes]:
    for text in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield text.encode()
        yield _ESCAPE.sub(lambda escape: escape[0].lower(), text).encode()


def _in_json(secret: bytes) -> Iterator[bytes]:
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        spelled = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield spelled.encode()
        yield spelled.replace("/", "\\/").encode()
