"""One connection to upstream, which carries one call after the other.

Knows when bytes come and go, how long that may take and how much is held
meanwhile. What the bytes mean is `reply_parser`'s; who gets the connection
next is the pool's.
"""

import asyncio
import contextlib
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from gateway.upstream.deadline import SECOND_LOOK_S
from gateway.upstream.dial import reset_on_close
from gateway.upstream.reply import Reply
from gateway.upstream.reply_parser import ReplyParser
from gateway.upstream.transport import (
    ConnectionBroken,
    Phase,
    ProtocolViolation,
    Timeouts,
    TransportError,
    TransportTimeout,
)

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool

HIGH_WATER_BYTES = 64 * 1024
"""Unread bytes of a body above which upstream is made to wait."""


class Connection(asyncio.Protocol):
    """Carries one call after the other: `begin`, `write`, `on_sent`, and the `Reply` takes over.

    One timer serves all limits of all calls: it ticks at the shortest limit and looks whether anything is overdue,
    so that neither a call nor a piece has to set a timer.
    """

    __slots__ = (
        "_active_at_s",
        "_is_closed",
        "_is_due",
        "_is_new",
        "_is_paused",
        "_is_sent",
        "_parser",
        "_pieces",
        "_pool",
        "_reply",
        "_sent_at_s",
        "_spoke_first",
        "_started_at_s",
        "_tick_s",
        "_timeouts",
        "_timer",
        "_transport",
        "_writer",
        "is_blocked",
        "loop",
        "time",
        "unread_bytes",
    )

    def __init__(self, pool: "Pool[Connection]", timeouts: Timeouts, parser: ReplyParser) -> None:
        self.loop = asyncio.get_running_loop()
        self.time = self.loop.time
        self.is_blocked = False
        self.unread_bytes = 0
        self._pool = pool
        self._timeouts = timeouts
        self._tick_s = _shortest(timeouts.first_byte_s, timeouts.idle_s, timeouts.total_s)
        self._parser = parser
        self._pieces = parser.pieces
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writer: asyncio.Future[None] | None = None
        self._started_at_s = self._sent_at_s = self._active_at_s = 0.0
        self._is_new = self._is_sent = True
        self._is_paused = self._is_closed = self._is_due = self._spoke_first = False

    def __repr__(self) -> str:
        if self._is_closed or self._transport is None:
            state = "closed" if self._is_closed else "connecting"
        elif self._reply is None:
            state = "idle"
        else:
            state = "reading" if self._is_sent else "sending"
        return f"<Connection {state}{', paused' if self._is_paused else ''}>"

    def is_usable(self) -> bool:
        """Whether a request may be written to it."""
        transport = self._transport
        return transport is not None and not self._is_closed and not transport.is_closing()

    @property
    def is_lost(self) -> bool:
        """Its socket is closed, and the pool was told."""
        return self._transport is None

    def drop(self) -> None:
        """Close the socket at once; a call that is still on it breaks."""
        if self._reply is not None:
            self.fail(ConnectionBroken("the connection to upstream was closed on this side"))
        self._abort()

    # A call's request.

    def begin(self, started_at_s: float, *, head_only: bool) -> Reply:
        """Start a call; this is new or was just taken. `started_at_s`: the loop's time when its total limit began."""
        reply = Reply(self, self._pieces)
        self._reply = reply
        self._is_sent = False
        self._active_at_s = 0.0
        self._started_at_s = started_at_s
        self._sent_at_s = math.inf
        self._parser.begin(head_only=head_only)
        if self._timer is None and self._tick_s:
            self._tick()
        if self._is_new:  # the pool has just asked the others
            self._is_new = False
            if not self.is_usable():
                self.fail(self._why_unusable())
        return reply

    def _why_unusable(self) -> TransportError:
        if self._spoke_first:
            return ProtocolViolation("upstream spoke before it was asked")
        return ConnectionBroken("upstream closed the connection before the request was sent")

    def write(self, data: bytes | memoryview) -> None:
        """Hand bytes of the request to the socket; a connection that broke meanwhile takes them silently."""
        if self._transport is not None and self._reply is not None:
            self._transport.write(data)

    async def writable(self) -> None:
        """Wait until the socket takes more, the reply's head has come, or the call has failed."""
        while self.is_blocked and self._reply is not None and not self._reply.status:
            self._sent_at_s = self.time()  # upstream, not the caller, is the one to be waited for
            self._writer = self.loop.create_future()
            await self._writer
        if self._reply is not None and not self._reply.status:
            self._sent_at_s = math.inf

    def write_whole(self, request: bytes) -> None:
        """`write` and `on_sent` in one step."""
        if self._transport is not None and self._reply is not None:
            self._transport.write(request)
        self._is_sent = True
        self._sent_at_s = self.time()

    def on_sent(self) -> None:
        """The request's last byte was written."""
        self._is_sent = True
        self._sent_at_s = self.time()

    @property
    def is_unanswered(self) -> bool:
        """Not a byte of the last call's reply has come."""
        return self._parser.is_untouched

    # A call's reply.

    def on_drained(self) -> None:
        """All that had come was read."""
        self.unread_bytes = 0
        if self._is_paused:
            self._resume()
            self._active_at_s = self.time()

    def fail(self, error: TransportError) -> None:
        """Break the call off and close the socket at once."""
        reply, self._reply = self._reply, None
        if reply is None:
            return
        self._pool.release()
        self._abort()
        self._wake_writer()
        reply.detach(error)

    def data_received(self, data: bytes) -> None:
        reply, parser = self._reply, self._parser
        if reply is None:
            self._on_unasked()
            return
        try:
            parser.feed(data)
        except ProtocolViolation as error:
            self._announce(reply)
            self.fail(error)
            return
        if parser.ended:
            self._finish(reply)
            return
        if self._pieces:
            self._active_at_s = self.time()
            if not reply.status:
                self._announce(reply)
            if reply.offer():
                return
            waiter = reply.waiter
            if waiter is None:
                self._hold(len(data))
                return
            reply.waiter = None
            if not waiter.done():
                waiter.set_result(None)
        elif parser.status and not reply.status:
            self._announce(reply)
            reply.wake()

    def eof_received(self) -> None:
        reply = self._reply
        if reply is None:
            self._abort()
            return
        try:
            self._parser.finish()
        except ConnectionBroken as error:
            self.fail(error)
        else:
            self._finish(reply)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_the_rest()
        # An end that is worth its name was told to eof_received; over TLS a bare one is none (RFC 9112, 9.8).
        self.fail(ConnectionBroken(_describe_loss(exc, unanswered=self._parser.is_untouched)))
        self._is_closed = True
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.lost(self)

    def _read_the_rest(self) -> None:
        """Upstream may have refused a request and broken it off: writing fails then before the refusal is read.

        The socket is still open here. What it holds over TLS nobody can read any more.
        """
        transport = self._transport
        if transport is None or self._reply is None or transport.get_extra_info("ssl_object") is not None:
            return
        with contextlib.suppress(OSError):
            if data := os.read(transport.get_extra_info("socket").fileno(), HIGH_WATER_BYTES):
                self.data_received(data)

    def pause_writing(self) -> None:
        self.is_blocked = True

    def resume_writing(self) -> None:
        self.is_blocked = False
        self._wake_writer()

    def _announce(self, reply: Reply) -> None:
        """The head, if there is one by now, is what a request that is still being sent stops for."""
        if not reply.status and self._parser.status:
            reply.status = self._parser.status
            reply.headers = self._parser.headers
            if not self._is_sent:
                self._sent_at_s = self.time()
                self._wake_writer()

    def _finish(self, reply: Reply) -> None:
        parser = self._parser
        if not reply.status:
            reply.status, reply.headers = parser.status, parser.headers
        self._reply = None
        reply.detach(None)
        self._pieces.clear()
        self.unread_bytes = 0
        transport = self._transport
        if (
            parser.reusable
            and self._is_sent
            and not (self.is_blocked or self._is_closed or transport is None or transport.is_closing())
        ):
            if self._is_paused:
                self._resume()  # an idle connection that does not listen would not see its end
            self._pool.give_back(self, self.time())
        else:
            self._pool.release()
            self._wake_writer()
            self._abort()

    def _hold(self, size: int) -> None:
        """Nobody waits for these bytes. Counted as they came, which is a little more than what is held."""
        self.unread_bytes += size
        if self.unread_bytes > HIGH_WATER_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._is_paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _on_unasked(self) -> None:
        """Bytes that answer no request must not become the start of the next reply."""
        self._spoke_first = True
        self._abort()

    def _abort(self) -> None:
        self._is_closed = True
        self._pool.forget(self)
        if self._transport is None:
            return
        if self.is_blocked or not self._is_sent:
            reset_on_close(self._transport)
        self._transport.abort()

    def _wake_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and not writer.done():
            writer.set_result(None)

    def _tick(self) -> None:
        """Look at the clock; what is overdue has a second look to come, as with `Deadline`."""
        self._timer = None
        was_due, self._is_due = self._is_due, False
        if self._reply is None:
            return  # the next call starts the timer again
        now_s = self.time()
        due_at_s = now_s + self._tick_s
        for deadline_s, phase, limit_s in self._deadlines():
            if deadline_s <= now_s and was_due:
                self.fail(TransportTimeout(phase, limit_s))
                return
            due_at_s = min(due_at_s, deadline_s)
        self._is_due = due_at_s <= now_s
        self._timer = self.loop.call_later(max(due_at_s - now_s, SECOND_LOOK_S), self._tick)

    def _deadlines(self) -> Iterator[tuple[float, Phase, float]]:
        """What runs now: when it ends, its name, and its limit."""
        timeouts = self._timeouts
        if timeouts.total_s:
            yield self._started_at_s + timeouts.total_s, "total", timeouts.total_s
        if self._active_at_s:
            if timeouts.idle_s and not self._is_paused:
                yield self._active_at_s + timeouts.idle_s, "stream", timeouts.idle_s
        elif timeouts.first_byte_s:
            phase: Phase = "first_byte" if self._parser.status else "headers"
            yield self._sent_at_s + timeouts.first_byte_s, phase, timeouts.first_byte_s


def _shortest(*limits_s: float) -> float:
    return min((limit_s for limit_s in limits_s if limit_s), default=0.0)


def _describe_loss(error: Exception | None, *, unanswered: bool) -> str:
    when = "before it replied" if unanswered else "before its reply was complete"
    how = "upstream closed the connection" if error is None else f"the connection broke ({type(error).__name__})"
    return f"{how} {when}"
