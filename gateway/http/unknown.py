"""What is said of a path that the API does not have, to its caller and to the log."""

import re
from collections.abc import Sequence

from gateway.errors import GatewayError, UnknownRoute, UpgradeRequired
from gateway.relay.mask import without_keys

_LONGEST_PATH = 200
"""What is shown of it."""
_LIKE_A_SECRET = re.compile(r"(?=[^/]*[0-9%])[^/]{16,}")
"""A segment of it: it may be a key in the wrong place, whatever its form."""


_OTHERS = (b"/v1/messages", b"/v1/complete")
"""Of Anthropic's API."""


def no_route(method: str, raw_path: bytes, upgrade: bytes, by: str, takes: Sequence[str] = ()) -> GatewayError:
    """`upgrade` is the protocol that was asked for, in lower case; `by` says for the log whose call it is.

    `takes`: the methods that the path has.
    """
    if method == "GET" and raw_path in (b"/v1/responses", b"/responses") and upgrade == b"websocket":
        return UpgradeRequired(
            "WebSocket mode is not offered by this gateway; send POST /v1/responses with stream: true instead."
        )
    shown = raw_path[:_LONGEST_PATH].decode("ascii", "replace")
    return UnknownRoute(
        f"Invalid URL ({method} {shown}). {_cure(raw_path, takes)}",
        detail=f"{method} {without_keys(_LIKE_A_SECRET.sub('***', shown))}{by}",
    )


def _cure(raw_path: bytes, takes: Sequence[str]) -> str:
    if takes:
        return f"This path takes {' and '.join(takes)}."
    if raw_path.startswith(b"/v1/v1"):
        return "The base URL of your client has /v1 twice, or your client adds it by itself: say it once."
    if raw_path.startswith(_OTHERS):
        return "Anthropic's Messages API is not mirrored; use /v1/chat/completions."
    if raw_path.startswith(b"/v1/"):
        return "This gateway does not mirror this path; /docs has those that it does."
    return "Check the method and the base URL of your client: it ends in /v1."
