"""The format of virtual keys.

`sk-gw-` + 32 base62 characters from the system's random source (190 bits) + 6 base62 characters of their CRC-32, so
that a mistyped key can be told from an unknown one without a look-up. Knows nothing of who owns a key.
"""

import secrets
import zlib
from hashlib import sha256

PREFIX = "sk-gw-"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH, _CHECKSUM_LENGTH = 32, 6


def new_secret() -> str:
    """A fresh key."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return PREFIX + random + _checksum(random)


def is_well_formed(secret: str) -> bool:
    """Whether `secret` has the shape and the checksum of a key that was made here."""
    body = secret.removeprefix(PREFIX)
    if len(secret) - len(body) != len(PREFIX) or len(body) != _RANDOM_LENGTH + _CHECKSUM_LENGTH:
        return False
    return _checksum(body[:_RANDOM_LENGTH]) == body[_RANDOM_LENGTH:]


def digest(secret: bytes) -> bytes:
    """What is kept of a key: its SHA-256. A slow hash would guard 190 random bits no better."""
    return sha256(secret).digest()


def _checksum(random: str) -> str:
    number, digits = zlib.crc32(random.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
