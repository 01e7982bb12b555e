"""The reply that the native transport hands out.

Knows what has come and who waits for more. How it comes is `connection`'s;
this outlives it, for a reply may be read after its connection has gone on to
the next call.
"""

from typing import TYPE_CHECKING

from gateway.upstream.transport import ConnectionBroken, RawHeaders, Sink, TransportError

if TYPE_CHECKING:
    import asyncio

    from gateway.upstream.connection import Connection


class Reply:
    """An `UpstreamReply`. Its connection goes back to the pool once the reply has come in full, read or not.

    A cancelled `read` loses nothing and may be repeated.
    """

    __slots__ = ("_connection", "_error", "_pieces", "_sink", "_sink_error", "_was_read", "headers", "status", "waiter")

    def __init__(self, connection: "Connection", pieces: list[bytes]) -> None:
        self.status = 0
        self.headers: RawHeaders = []
        self.waiter: asyncio.Future[None] | None = None
        self._connection: Connection | None = connection
        self._pieces = pieces
        self._error: TransportError | None = None
        self._sink: Sink | None = None
        self._sink_error: Exception | None = None
        self._was_read = False

    def __repr__(self) -> str:
        if self._connection is not None:
            state = "coming"
        else:
            state = "complete" if self._error is None else type(self._error).__name__
        return f"<Reply {self.status or '-'}: {state}, {sum(map(len, self._pieces))} bytes unread>"

    async def read(self) -> bytes:
        """As `UpstreamReply.read`; all that has come since the last one is one piece."""
        while not self._pieces:
            connection = self._connection
            if connection is None:
                if self._error is not None:
                    raise self._error
                return b""
            self.waiter = waiter = connection.loop.create_future()
            await waiter
        return self._take()

    def whole(self) -> bytes | None:
        """As `UpstreamReply.whole`."""
        pieces = self._pieces
        if len(pieces) != 1 or self._was_read or self._connection is not None or self._error is not None:
            return None
        return pieces[0]

    async def pump(self, sink: Sink) -> None:
        """As `UpstreamReply.pump`; one future serves for all pieces until `sink` wants no more."""
        while True:
            while self._pieces:
                if not sink(self._take()):
                    return
            connection = self._connection
            if connection is None:
                if self._error is not None:
                    raise self._error
                return
            self.waiter = waiter = connection.loop.create_future()
            self._sink, self._sink_error = sink, None
            try:
                await waiter
            finally:
                is_sated, self._sink = self._sink is None, None
            if self._sink_error is not None:
                raise self._sink_error
            if is_sated:
                return

    def offer(self) -> bool:
        """Give what has come straight to a sink that waits for it; False if there is none."""
        sink = self._sink
        if sink is None or self.waiter is None or self.waiter.done():
            return False
        try:
            wants_more = sink(self._take())
        except Exception as error:  # it is for the caller of `pump`, not for the socket's call-back
            self._sink_error, wants_more = error, False
        if not wants_more:
            self._sink = None
            self.wake()
        return True

    def close(self) -> None:
        """As `UpstreamReply.close`."""
        if self._connection is not None:
            self._connection.fail(ConnectionBroken("the call was closed before its reply was complete"))
        if self._pieces:
            self._pieces = []
            self._error = ConnectionBroken("the call was closed before its reply was read")

    async def head(self) -> "Reply":
        """Itself, once the head has come. Raises the `TransportError` that kept it from coming, and is closed then."""
        while not self.status:
            connection = self._connection
            if connection is None:
                raise self._error or ConnectionBroken("upstream closed the connection without a reply")
            self.waiter = waiter = connection.loop.create_future()
            try:
                await waiter
            except BaseException:
                self.close()
                raise
        return self

    @property
    def is_decided(self) -> bool:
        """The head has come, or never will."""
        return self.status != 0 or self._connection is None

    async def changed(self) -> None:
        """Wait until it is decided, or `wake` was called."""
        if self._connection is not None and not self.status:
            self.waiter = waiter = self._connection.loop.create_future()
            await waiter

    def wake(self) -> None:
        """Let the one who waits look again."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _take(self) -> bytes:
        """All that has come, as one piece."""
        self._was_read = True
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._connection is not None and self._connection.unread_bytes:
            self._connection.on_drained()
        return piece

    def detach(self, error: TransportError | None) -> None:
        """The connection has no more to say to this reply: it is complete, or broke off with `error`."""
        self._connection = None
        self._pieces = self._pieces.copy()
        self._error = error
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)
