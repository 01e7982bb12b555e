"""What is said of a path that the API does not have, to its caller and to the log."""

import re

from gateway.errors import GatewayError, UnknownRoute, UpgradeRequired
from gateway.relay.mask import without_keys

_LONGEST_PATH = 200
"""What is shown of it."""
_LIKE_A_SECRET = re.compile(r"(?=[^/]*[0-9%])[^/]{16,}")
"""A segment of it: it may be a key in the wrong place, whatever its form."""


def no_route(method: str, raw_path: bytes, upgrade: bytes, by: str) -> GatewayError:
    """`upgrade` is the protocol that was asked for, in lower case; `by` says for the log whose call it is."""
    if method == "GET" and raw_path in (b"/v1/responses", b"/responses") and upgrade == b"websocket":
        return UpgradeRequired(
            "WebSocket mode is not offered by this gateway; send POST /v1/responses with stream: true instead."
        )
    shown = raw_path[:_LONGEST_PATH].decode("ascii", "replace")
    return UnknownRoute(
        f"Invalid URL ({method} {shown}). Check the method and the base URL of your client: it ends in /v1.",
        detail=f"{method} {without_keys(_LIKE_A_SECRET.sub('***', shown))}{by}",
    )
