"""The interface between the relay and whatever carries a call upstream.

Knows the shapes of a request and of a reply, and the ways in which carrying
one can fail. Knows nothing of keys, routes, JSON or ASGI. `native` and
`httpx2` implement it and pass the same suite (tests/contract/).
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

RawHeaders = list[tuple[bytes, bytes]]

Sink = Callable[[bytes], bool]
"""Takes a piece of a body; False asks for no more for now."""

Phase = Literal["connect", "headers", "first_byte", "stream", "total"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that each phase may take; 0 means no limit.

    `connect_s`: TCP and TLS handshake. `first_byte_s`: from the last byte of the request to the first byte
    of the reply's body. `idle_s`: between two pieces of the body. `total_s`: from `send` to the end of the body.
    """

    connect_s: float = 10.0
    first_byte_s: float = 600.0
    idle_s: float = 300.0
    total_s: float = 3600.0


class UpstreamRequest(msgspec.Struct):
    """One HTTP request, complete: the transport adds no header and changes none.

    `target` is the origin-form request target as it goes on the wire (raw path and query). `headers` are in
    order and include Host; for `body: bytes` they include Content-Length; an `AsyncIterator` body is sent with
    the Content-Length that the headers state, or in chunks if they state none. `head` is what `native` makes of
    method, target and headers, where that is known already.
    """

    method: bytes
    target: bytes
    headers: RawHeaders
    body: bytes | AsyncIterator[bytes] = b""
    head: bytes | None = None


class UpstreamReply(Protocol):
    """The reply's head, and its body as it comes."""

    status: int
    headers: RawHeaders
    """Names in lower case, values as sent, in order."""

    async def read(self) -> bytes:
        """The next piece of the body, never empty before the end; b"" at the end, and again after it.

        Raises a `TransportError` when the body breaks off, stalls or is not legal HTTP. Pieces are
        whatever has come so far: transfer coding is taken off, content coding is not touched.
        """

    def whole(self) -> bytes | None:
        """The body, if all of it is there in one piece, of which nothing was read; it can be read all the same.

        None in any other case, and where that is not known.
        """

    async def pump(self, sink: Sink) -> None:
        """Hand every further piece to `sink` as it comes, until it returns False or the body has ended.

        What a loop over `read` does, without a wake-up for each piece: `sink` may be called from the socket's own
        call-back, so it must not wait; what it raises is raised here. Raises as `read` does. After it has returned,
        failed or been cancelled, `read` and `pump` go on with the next piece; none is lost.
        """

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it at once. Idempotent, never waits."""


class Transport(Protocol):
    """Carries requests to one origin over kept-alive connections."""

    @property
    def in_use(self) -> int:
        """Connections that carry a call, or are being made for one."""

    @property
    def idle(self) -> int:
        """Connections that wait for a call."""

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Send the request and wait for the reply's head.

        Raises a `TransportError`. A cancelled `send` leaves no connection behind. A request whose bytes may have
        reached upstream is never sent twice, but for a GET that met a kept-alive connection which upstream had closed;
        a kept-alive connection that is found closed before a byte was written is replaced by a new one. A refused
        connection is not tried again: where else to go is the caller's to know.
        """

    async def close(self) -> None:
        """Drop all connections."""


class TransportError(Exception):
    """Carrying a call upstream failed; the class says how, the message says where, without any secret."""


class ConnectFailed(TransportError):
    """No connection could be made (refused, unreachable, name not found, TLS handshake failed): nothing was sent."""


class PoolExhausted(TransportError):
    """`max_connections` are in use: nothing was sent."""


class ConnectionBroken(TransportError):
    """Upstream closed or reset the connection before the reply was complete."""


class ProtocolViolation(TransportError):
    """Upstream's bytes are no legal HTTP/1.1 reply, or over a cap."""


class TransportTimeout(TransportError):
    """A phase took longer than its limit."""

    def __init__(self, phase: Phase, limit_s: float) -> None:
        super().__init__(f"upstream took longer than {limit_s:g} s ({phase})")
        self.phase: Phase = phase
        self.limit_s = limit_s
