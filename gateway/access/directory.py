"""Turn a bearer token into a principal, out of memory.

Knows the keys that the settings declare, as digests only. One refusal stands for every reason, so that a caller
learns nothing about which keys exist.
"""

from collections.abc import Iterable

from gateway.access.keys import digest
from gateway.call import Principal
from gateway.errors import InvalidKey, MissingKey
from gateway.settings import Key

LOCAL = Principal(key="local", team="local")
"""Whoever calls a gateway that has no keys and listens on loopback."""

_HOW = "Send it as 'Authorization: Bearer YOUR_KEY', or as api_key of your OpenAI client"


class KeyDirectory:
    """All keys, by digest: how long a look-up takes tells of a digest, from which no key can be made.

    `open_to_all`: any bearer token is taken, which settings allow on loopback only.
    """

    def __init__(self, keys: Iterable[Key], *, open_to_all: bool = False) -> None:
        self._principals = {_digest_of(key): Principal(key.name, key.team) for key in keys}
        self._open = open_to_all

    @property
    def is_open(self) -> bool:
        """Whether any token is taken."""
        return self._open

    def __len__(self) -> int:
        return len(self._principals)

    def authenticate(self, authorization: bytes | None) -> Principal:
        """The principal of an Authorization header's value. Raises `MissingKey` or `InvalidKey`.

        A token is asked for even where any will do: a browser cannot send one to another origin unasked.
        """
        if authorization is None:
            raise MissingKey(f"No API key was sent. {_HOW}.")
        scheme, _, token = authorization.partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not token:
            raise MissingKey(f"The Authorization header holds no bearer token. {_HOW}.")
        if self._open:
            return LOCAL
        principal = self._principals.get(digest(token))
        if principal is not None:
            return principal
        raise InvalidKey(f"This API key is not valid here. {_HOW}, or ask whoever runs this gateway for one.")


def _digest_of(key: Key) -> bytes:
    if key.secret_sha256 is not None:
        return bytes.fromhex(key.secret_sha256)
    if key.secret is None:
        raise ValueError("a key has either secret or secret_sha256")
    return digest(key.secret.get_secret_value().encode())
