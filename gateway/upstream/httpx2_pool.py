"""httpcore2's pool and connections, watched.

Knows on which socket a call runs, how far it came, and when a connection must
not be used again. What a reply says is read elsewhere.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpcore2

from gateway.upstream.httpx2_clock import Clock
from gateway.upstream.httpx2_socket import SocketStream
from gateway.upstream.transport import ConnectionBroken, ProtocolViolation, TransportError


class Call:
    """What is known of one attempt: on which connection, and how far it came."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked = False
        """Bytes of the request may have reached upstream."""
        self.found_closed = False
        self.is_reuse = False
        self._connection: WatchedConnection | None = None

    @property
    def stream(self) -> SocketStream:
        """The socket; there is one once the request was written."""
        if self._connection is None or self._connection.socket is None:
            raise RuntimeError("not connected yet")
        return self._connection.socket

    def assign(self, connection: "WatchedConnection") -> None:
        """The pool has chosen a connection."""
        self._connection = connection
        self.is_reuse = connection.socket is not None

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        """Follow httpcore2's events (its `trace` extension)."""
        match event:
            case "connection.connect_tcp.complete" if self._connection is not None:
                self._connection.socket = info["return_value"]
            case "http11.send_request_headers.started" if info["request"].method != b"CONNECT":
                self._before_the_first_byte()
            case "http11.receive_response_headers.started" if info["request"].method != b"CONNECT":
                self.clock.enter("headers")

    def _before_the_first_byte(self) -> None:
        if self.stream.is_over or (self.is_reuse and self.stream.unread_bytes):
            self.found_closed = True
            raise ConnectionBroken("upstream had closed the connection")
        if self.stream.unread_bytes:
            raise ProtocolViolation("upstream spoke before it was asked")
        self.stream.begin_reply()
        self.stream.on_blocked = self._on_blocked
        self.asked = True
        self.clock.enter("total")

    def _on_blocked(self, blocked: bool) -> None:
        # While upstream does not take the request, upstream is the one that is waited for, not the caller.
        self.clock.enter("headers" if blocked else "total")

    async def until_answered(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces of a request's body; WriteError, which ends the sending, once upstream has replied."""
        while (piece := await self._next_piece(body)) is not None:
            yield piece

    async def _next_piece(self, body: AsyncIterator[bytes]) -> bytes | None:
        """Wait for the source, which may be slow, and for upstream at the same time."""
        piece = asyncio.ensure_future(anext(body, None))
        answered = asyncio.ensure_future(self.stream.answered())
        try:
            await asyncio.wait({piece, answered}, return_when=asyncio.FIRST_COMPLETED)
            if not piece.done():
                raise httpcore2.WriteError("upstream has answered already")
            return piece.result()
        finally:
            piece.cancel()
            answered.cancel()
            await asyncio.wait({piece, answered})

    def failure(self, error: Exception) -> TransportError:
        """What an error of httpcore2 means; its text is not passed on, since it may quote the reply."""
        if isinstance(error, httpcore2.ProtocolError) and not self.stream.saw_eof:
            return ProtocolViolation("upstream's reply is not legal HTTP/1.1")
        return ConnectionBroken("upstream closed the connection before the reply was complete")


class WatchedPool(httpcore2.AsyncConnectionPool):
    """httpcore2's pool, of connections that are watched."""

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        return WatchedConnection(super().create_connection(origin))


class WatchedConnection(httpcore2.AsyncConnectionInterface):
    """A connection of the pool that is closed whenever a call on it fails, and not used again with bytes left over.

    httpcore2 alone keeps a tunnel's slot for ever when the TLS handshake inside it fails, and would take bytes
    that came after the end of one reply for the beginning of the next.
    """

    def __init__(self, inner: httpcore2.AsyncConnectionInterface) -> None:
        self._inner = inner
        self.socket: SocketStream | None = None

    def __repr__(self) -> str:
        return f"<WatchedConnection {self._inner.info()}>"

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        request.extensions["call"].assign(self)
        try:
            return await self._inner.handle_async_request(request)
        except httpcore2.ConnectionNotAvailable:
            raise
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    def has_expired(self) -> bool:
        return self._inner.has_expired() or (self.is_idle() and self._has_left_over())

    def _has_left_over(self) -> bool:
        # httpcore2 does not tell: its connections lie in each other, h11 in the innermost.
        inner: object = self._inner
        while (deeper := getattr(inner, "_connection", None)) is not None:
            inner = deeper
        parser = getattr(inner, "_h11_state", None)
        return parser is None or bool(parser.trailing_data[0])

    def info(self) -> str:
        return self._inner.info()

    def can_handle_request(self, origin: httpcore2.Origin) -> bool:
        return self._inner.can_handle_request(origin)

    def is_connected(self) -> bool:
        return self._inner.is_connected()

    def is_available(self) -> bool:
        return self._inner.is_available()

    def is_idle(self) -> bool:
        return self._inner.is_idle()

    def is_closed(self) -> bool:
        return self._inner.is_closed()
