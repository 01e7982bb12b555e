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

_PROBE_BYTES = 32
"""find() prepares for each byte it is to look for, and leaps the further the more there are: beyond so many the first
costs a piece of a stream more than the second saves, and half as many take twice as long over a large body."""
_LEAST_SHOWN, _MOST_SHOWN = 3, 32
_LIKE_A_KEY = re.compile(r"(?<![A-Za-z0-9])sk-[\w-]{8,}")
_ESCAPE = re.compile("%..")


def without_keys(text: str) -> str:
    """`text` for logs and metrics, with stars for what looks like an API key that somebody put in the wrong place.

    For a NUL, which no database takes as text, it has U+FFFD, so that what is priced is what is recorded.
    """
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return _LIKE_A_KEY.sub("sk-***", text) if "sk-" in text else text


class SecretMask:
    """Masks every occurrence of `secrets` (bytes; an empty one is ignored) in bytes that are whole.

    In base64 the characters at both ends hold bits of the neighbouring bytes as well; those two may stay.
    """

    __slots__ = ("_probes", "_redacted", "inner", "needles")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self.needles = tuple({spelling for secret in secrets for spelling in _spellings(secret)})
        self._probes = tuple({needle[:_PROBE_BYTES] for needle in self.needles})
        self._redacted = tuple(_redacted(secret) for secret in secrets if len(secret) >= MIN_ENCODED_BYTES)
        self.inner = frozenset(byte for needle in self.needles for byte in needle[:-1])
        """Where another byte is last, no secret has begun."""

    def __repr__(self) -> str:
        return f"SecretMask({len(self.needles)} spellings)"

    def is_in(self, data: bytes) -> bool:
        """Whether any of the secrets occurs in `data`."""
        return self.mask(data) is not data

    def mask(self, data: bytes) -> bytes:
        """`data` with `*` for each byte of each occurrence; `data` itself if there is none."""
        find = data.find
        for probe in self._probes:
            if find(probe) >= 0:
                spans = self.spans(data)
                return _starred(data, spans) if spans else data
        return data

    def mask_error(self, data: bytes) -> bytes:
        """As `mask`, and what an API shows of a key that it refuses: its first characters, dots or stars, its last."""
        data = self.mask(data)
        for pattern in self._redacted:
            data = pattern.sub(lambda shown: b"*" * len(shown[0]), data)
        return data

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """From where to where the occurrences lie; they may overlap."""
        return [(at, at + len(needle)) for needle in self.needles for at in _occurrences(needle, data)]


class MaskedStream:
    """Masks the secrets of `mask` in one stream of bytes that is cut anywhere."""

    __slots__ = ("_condemned", "_held", "_mask")

    def __init__(self, mask: SecretMask) -> None:
        self._mask = mask
        self._held = b""
        self._condemned = 0
        """So many bytes of `_held` are to be masked whatever follows."""

    def __repr__(self) -> str:
        return f"MaskedStream({len(self._held)} bytes held)"

    def feed(self, piece: bytes) -> bytes:
        """All that can be given out by now, masked; only what may be the beginning of a secret is held back."""
        mask = self._mask
        if not self._held and (not piece or piece[-1] not in mask.inner):
            return mask.mask(piece)
        data = self._held + piece if self._held else piece
        start = min([_begin(needle, data) for needle in mask.needles], default=len(data))
        if start == len(data) and not self._condemned:
            self._held = b""
            return mask.mask(data)
        spans = [(0, self._condemned), *mask.spans(data)]
        self._held = data[start:]
        self._condemned = max(0, *(end - start for begin, end in spans if begin < start or begin == 0))
        return _starred(data, spans)[:start]

    def flush(self) -> bytes:
        """What is still held, masked: nothing follows it."""
        if not self._held:
            return b""
        rest, spans = self._held, [(0, self._condemned), *self._mask.spans(self._held)]
        self._held, self._condemned = b"", 0
        return _starred(rest, spans)


def _redacted(secret: bytes) -> re.Pattern[bytes]:
    """The first three or more characters of `secret`, three or more stars or dots, and what follows them."""
    shown = b""
    for byte in reversed(secret[_LEAST_SHOWN:_MOST_SHOWN]):
        shown = b"(?:%b%b)?" % (re.escape(bytes([byte])), shown)
    start = re.escape(secret[:_LEAST_SHOWN]) + shown
    return re.compile(start + rb"(?:[*.]|\xe2\x80\xa6|\\u2026){3,}+[\w+/=&?-]*+")


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
