"""Errors on the wire: from a `GatewayError` to OpenAI's JSON. The only mapping there is.

Every reply that the gateway itself makes up has the four members of `error`, whatever part of it refused.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.errors import GatewayError, Headers

_to_json = json.JSONEncoder(separators=(",", ":")).encode

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def error_reply(
    error: GatewayError, call_id: bytes, more: Headers = ()
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers (`more` at their end) and body of the reply that tells a client about `error`."""
    body = _to_json(error.body()).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", call_id),
        (b"x-gateway-request-id", call_id),
        *error.headers,
        *more,
    ]
    return error.status, headers, body


async def send_error(error: GatewayError, call_id: bytes, send: Send, more: Headers = ()) -> int:
    """Send `error` as the whole reply of an ASGI call, `more` headers with it; the size of its body in bytes."""
    status, headers, body = error_reply(error, call_id, more)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    return len(body)


def raw_error_reply(error: GatewayError, call_id: bytes) -> bytes:
    """The same as bytes on a connection that is then closed, for requests that never became an ASGI call."""
    status, headers, body = error_reply(error, call_id)
    lines = [b"HTTP/1.1 %d %s" % (status, type(error).__name__.encode())]
    lines += [name + b": " + value for name, value in (*headers, (b"connection", b"close"))]
    return b"\r\n".join((*lines, b"", body))
