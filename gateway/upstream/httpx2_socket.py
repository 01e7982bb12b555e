"""The sockets under the `httpx2` transport: a network backend for httpcore2.

Knows bytes, TLS and backpressure, how a connection ended, and when a head is
to come; how one looks is known elsewhere. httpcore2's own backend waits when
it closes; this one never does, so that a call that is dropped is seen upstream
at once and no cancellation can interrupt the dropping.
"""

import asyncio
import select
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Self, cast

import httpcore2

from gateway.upstream.dial import reset_on_close
from gateway.upstream.httpx2_head import HeadCheck
from gateway.upstream.transport import ProtocolViolation

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of a reply's head, interim replies included."""

MAX_BUFFERED_BYTES = 64 * 1024
"""Reading stops when so much waits to be read; what the kernel hands over in one piece comes on top."""


class SocketBackend(httpcore2.AsyncNetworkBackend):
    """Makes `SocketStream`s. Errors of connecting are OSErrors, as the loop raises them."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109, ARG002 - the transport keeps the time
        local_address: str | None = None,  # noqa: ARG002 - part of the interface
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002 - as above
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(SocketStream, host, port)
        return stream


class SocketStream(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """One connection. TCP_NODELAY is on, as asyncio and uvloop set it for every TCP connection."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._eof = False
        self._lost = False
        self._reading_paused = False
        self._writing_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._head_left_bytes: int | None = None
        self._head = HeadCheck()
        self._fault: ProtocolViolation | None = None
        self.on_blocked: Callable[[bool], None] | None = None
        """Called with true when a write has to wait for upstream, with false when it goes on."""
        self.saw_eof = False
        """The end of the stream was handed to the reader."""

    def __repr__(self) -> str:
        state = "closed" if self._transport.is_closing() else "open"
        return f"<SocketStream {state}, {self._buffered_bytes} bytes unread>"

    # What the transport asks

    def begin_reply(self) -> None:
        """A request is about to be written: what is read next is the head of its reply."""
        self._head = HeadCheck()
        self._head_left_bytes = MAX_HEAD_BYTES

    def end_head(self) -> None:
        """The head is complete: what is read next is body, without a cap."""
        self._head_left_bytes = None

    @property
    def unread_bytes(self) -> int:
        """How many bytes have come that nobody has read."""
        return self._buffered_bytes

    @property
    def is_over(self) -> bool:
        """No byte can be sent any more."""
        return self._eof or self._transport.is_closing()

    @property
    def reply_begun(self) -> bool:
        """A byte of the current reply has come."""
        return self._head.begun

    async def answered(self) -> None:
        """Wait until sending more has no use: upstream has answered, or the connection is over."""
        while not (self.is_over or self._is_answered()):
            await self._wait()

    def abort(self) -> None:
        """Close at once: nothing is flushed, nothing is waited for, readers and writers fail. Idempotent."""
        self._lost = True
        self._pieces.clear()
        self._buffered_bytes = 0
        if self._transport.get_write_buffer_size():
            reset_on_close(self._transport)
        self._transport.abort()
        self._wake()

    # httpcore2.AsyncNetworkStream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109, ARG002
        """The next bytes, b"" at the end; ReadError when the connection was lost.

        ProtocolViolation when a head is over the cap, or cannot become one of HTTP/1.1.
        """
        while not self._pieces:
            if self._lost:
                raise httpcore2.ReadError("connection lost")
            if self._eof:
                self.saw_eof = True
                return b""
            await self._wait()
        if self._fault is not None:
            raise self._fault
        return self._take(max_bytes)

    def _take(self, max_bytes: int) -> bytes:
        if self._head_left_bytes is not None:
            if not self._head_left_bytes:
                raise ProtocolViolation(f"the head of the reply is over {MAX_HEAD_BYTES} bytes")
            max_bytes = min(max_bytes, self._head_left_bytes)
        piece = self._pieces.popleft()
        if len(piece) > max_bytes:
            self._pieces.appendleft(piece[max_bytes:])
            piece = piece[:max_bytes]
        self._account_for(piece)
        return piece

    def _account_for(self, piece: bytes) -> None:
        self._buffered_bytes -= len(piece)
        if self._head_left_bytes is not None:
            self._head_left_bytes -= len(piece)
        if self._reading_paused and self._buffered_bytes <= MAX_BUFFERED_BYTES:
            self._reading_paused = False
            self._transport.resume_reading()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109, ARG002
        """Send, and wait while upstream does not take it.

        WriteError when the connection was lost, and when upstream has answered though the request is not all
        sent: httpcore2 then stops sending, reads the reply and does not use the connection again.
        """
        if not buffer:
            return
        if self.is_over:
            raise httpcore2.WriteError("connection closed")
        self._transport.write(buffer)
        if self._is_answered():
            raise httpcore2.WriteError("upstream has answered already")
        if self._writing_paused:
            self._tell_blocked(True)
            await self._flushed()
            self._tell_blocked(False)

    async def _flushed(self) -> None:
        while self._writing_paused:
            if self.is_over or self._is_answered():
                raise httpcore2.WriteError("upstream takes no more")
            await self._wait()

    def _tell_blocked(self, blocked: bool) -> None:
        if self.on_blocked is not None:
            self.on_blocked(blocked)

    async def aclose(self) -> None:
        """As `abort`."""
        self.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109, ARG002 - the transport keeps the time
    ) -> Self:
        """Shake hands; what fails is an OSError (ssl.SSLError is one), and the connection is closed."""
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self._transport, self, ssl_context, server_hostname=server_hostname)
        except BaseException:
            self.abort()
            raise
        self._transport = cast("asyncio.Transport", transport)
        return self

    def get_extra_info(self, info: str) -> Any:
        """`is_readable` is what httpcore2's pool asks before it uses a connection again."""
        if info == "is_readable":
            return self._buffered_bytes > 0 or self.is_over or self._kernel_has_bytes()
        return self._transport.get_extra_info(info)

    def _kernel_has_bytes(self) -> bool:
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _is_answered(self) -> bool:
        """The final reply has begun, or what came can be none."""
        return self._fault is not None or self._head.final_begun

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._lost:
            return
        self._pieces.append(data)
        self._buffered_bytes += len(data)
        if self._head_left_bytes is not None:
            self._check(data)
        if self._buffered_bytes > MAX_BUFFERED_BYTES and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def _check(self, data: bytes) -> None:
        try:
            self._head.feed(data)
        except ProtocolViolation as error:
            self._fault = self._fault or error

    def eof_received(self) -> None:
        self._eof = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._lost or exc is not None or not self._eof
        self._wake()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
