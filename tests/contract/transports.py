"""What the contract suite needs to drive a transport as the relay does."""

import re
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from gateway.upstream.httpx2_transport import Httpx2Transport
from gateway.upstream.native import NativeTransport
from gateway.upstream.origin import Origin
from gateway.upstream.transport import RawHeaders, Timeouts, Transport, UpstreamReply, UpstreamRequest

KINDS = ("native", "httpx2")

_CLASSES: dict[str, Callable[..., Transport]] = {"native": NativeTransport, "httpx2": Httpx2Transport}

SHORT_S = 0.2
"""A limit that a test waits for, in seconds."""

SLACK_S = 0.5
"""How much later than its limit a timeout may come, in seconds."""

Outcome = tuple[int, RawHeaders, bytes]


class Connect(Protocol):
    """Make a transport to a base URL; the fixture closes it."""

    def __call__(
        self,
        url: str,
        *,
        timeouts: Timeouts = ...,
        max_connections: int = ...,
        ssl_context: ssl.SSLContext | None = ...,
    ) -> Transport: ...


def make(
    kind: str,
    url: str,
    *,
    timeouts: Timeouts | None = None,
    max_connections: int = 10,
    ssl_context: ssl.SSLContext | None = None,
) -> Transport:
    """One of the transports."""
    return _CLASSES[kind](
        Origin.from_url(url),
        timeouts or Timeouts(10, 10, 10, 10),
        max_connections=max_connections,
        ssl_context=ssl_context,
    )


def get(target: bytes = b"/v1/models", headers: RawHeaders | None = None) -> UpstreamRequest:
    """A GET without a body."""
    return UpstreamRequest(b"GET", target, [(b"Host", b"upstream.test"), *(headers or [])])


def post(body: Any, headers: RawHeaders | None = None) -> UpstreamRequest:
    """A POST of bytes with Content-Length, or of an iterator with what the headers state."""
    framing = [(b"Content-Length", str(len(body)).encode())] if isinstance(body, bytes) else []
    all_headers = [(b"Host", b"upstream.test"), *framing, *(headers or [])]
    return UpstreamRequest(b"POST", b"/v1/chat/completions", all_headers, body)


async def read_all(reply: UpstreamReply) -> bytes:
    """The body to its end; no piece may be empty before it."""
    body = b""
    while piece := await reply.read():
        body += piece
    assert await reply.read() == b""
    return body


async def call(transport: Transport, request: UpstreamRequest) -> Outcome:
    """Send, read to the end, close."""
    reply = await transport.send(request)
    try:
        return reply.status, reply.headers, await read_all(reply)
    finally:
        reply.close()


def load(transport: Transport) -> tuple[int, int]:
    """How many connections are in use and how many idle, as the transport's repr says."""
    counts = re.search(r"(\d+) in use, (\d+) idle", repr(transport))
    assert counts, repr(transport)
    return int(counts[1]), int(counts[2])
