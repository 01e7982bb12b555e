"""One request and its response on a client's connection: uvicorn's cycle with a writer of our own.

Head and first piece of the body leave in one write, which saves a system call a reply. An HTTP/1.0 client gets no
chunks, and an event stream no `Connection: close`, which some clients take for permission to end a cut stream quietly.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    import logging

    from uvicorn.protocols.http.flow_control import FlowControl

_JOINED_BYTES = 64 * 1024
"""A larger piece is written without being copied behind what precedes it."""

_HIGH_WATER_BYTES = 64 * 1024
"""Unread bytes of a request's body above which its client is made to wait."""
_PIECE_BYTES = 48
"""What keeping a piece takes besides: a body may come in chunks of a byte."""

_SMALL_BYTES = 64 * 1024
_REST_S = 1.0
"""How much of a request may still come, and for how long, before it is refused."""

_BODILESS = (204, 304)
"""Their Content-Length, which upstream may state, is no promise of a body and is left out."""
_RESET = struct.pack("ii", 1, 0)
_END_OF_HEAD = (b"", b"")
_STATUS = {status: line[:-2] for status, line in STATUS_LINE.items()}

Headers = Sequence[tuple[bytes, bytes]]


def reset(transport: asyncio.Transport) -> None:
    """Drop a connection so that its client cannot take what it has for all there is (RST in place of FIN)."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _is_event_stream(fields: dict[bytes, bytes]) -> bool:
    return fields.get(b"content-type", b"").startswith(b"text/event-stream")


class GatewayCycle(RequestResponseCycle):
    """What uvicorn hands to the application as `receive` and `send`."""

    _head: bytes = b""
    _ends_with_connection: bool = False
    """No length was stated and no chunks are understood: the connection's end is the body's."""
    _is_last: bool = False
    """The connection is to end. It does so behind a reply that says so, and no other: a request may be on its way."""

    # What most calls never read is not set for each.
    waiting_for_100_continue = False
    more_body = True
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    task: asyncio.Task[None] | None = None
    """What answers the request, if it is one of the mirrored surface."""
    _has_news: bool = False
    """Since `receive` was asked last, more of the request came, or the reply or the connection has ended."""
    _unread_bytes: int = 0
    holds_end = False
    """What ends the reply waits for `let_go`."""
    _held: tuple[bytes, ...] | None = None
    _is_whole: bool = False
    """All of the reply is there; `response_complete` says that it was sent."""
    segment: bytes | None = None
    """The whole request, if it came in one piece that may hold nothing else."""

    def __init__(  # noqa: PLR0913 - uvicorn's parts, of which there are many
        self,
        scope: Any,
        transport: asyncio.Transport,
        flow: FlowControl,
        logger: logging.Logger,
        on_response: Callable[[], None],
        *,
        expects_100: bool,
        keep_alive: bool,
    ) -> None:
        # All that uvicorn's own sets and the inherited methods read; to call it costs as much again.
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.logger = logger
        self.on_response = on_response
        self.disconnected = False
        self.keep_alive = keep_alive
        if expects_100:
            self.waiting_for_100_continue = True
        self.response_started = False
        self._news: asyncio.Event | None = None
        """Made for whoever waits for some, which few do."""
        self._pieces: list[bytes] = []
        self.is_ordinary = keep_alive and not expects_100 and scope["method"] != "HEAD"
        """Nothing about the request makes its reply's head another than what is asked for."""

    @property
    def message_event(self) -> GatewayCycle:  # type: ignore[override]
        """For uvicorn, which calls its `set` when the connection is lost."""
        return self

    def set(self) -> None:
        """Say that there are news."""
        self._has_news = True
        if self._news is not None:
            self._news.set()

    def be_last(self) -> None:
        """End the connection behind this reply if that can say so: it has not begun, and is no event stream."""
        self._is_last, self.is_ordinary = True, False

    def fill(self, body: bytes) -> None:
        """The request's whole body is there."""
        self._pieces.append(body)
        self.more_body = False
        self._has_news = True

    def whole_body(self) -> bytes | None:
        """The request's body, if it came whole and in one piece; `receive` does not give it again then."""
        pieces = self._pieces
        return None if self.more_body or len(pieces) != 1 or self.disconnected else pieces.pop()

    def hold(self, piece: bytes) -> None:
        """A piece of the request's body has come; once much is unread, the client is made to wait.

        Once its reply has begun, nobody reads on: the rest is dropped, and reading goes on so that a loss is noticed.
        """
        if self.response_started:
            return
        self._pieces.append(piece)
        self._unread_bytes += len(piece) + _PIECE_BYTES
        if self._unread_bytes > _HIGH_WATER_BYTES:
            self.flow.pause_reading()
        self.set()

    async def receive(self) -> Any:
        """ASGI's `receive`. A body that came in one piece is handed on uncopied."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self._is_whole:
            if self.more_body:
                self.flow.resume_reading()
            await self._wait_for_news()
        if self.disconnected or self._is_whole:
            return {"type": "http.disconnect"}
        pieces, self._pieces, self._unread_bytes = self._pieces, [], 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def hear_out(self) -> None:
        """Drop what is still to come of the request, if that is little and comes soon.

        A proxy that sends bodies on as they come ends its client's connection when the reply overtakes one.
        """
        if self.response_started or self.waiting_for_100_continue:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REST_S):
                while self.more_body and not self.disconnected and self._unread_bytes <= _SMALL_BYTES:
                    self._pieces.clear()
                    self.flow.resume_reading()
                    await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        if not self._has_news:
            self._news = self._news or asyncio.Event()
            await self._news.wait()
        self._has_news = False
        if self._news is not None:
            self._news.clear()

    async def send(self, message: Any) -> None:
        """ASGI's `send`: returns silently once the client is gone."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.body" and self.response_started and not self._is_whole:
            body, more = message.get("body", b""), message.get("more_body", False)
            if self.chunked_encoding and more and body and not self._head and len(body) < _JOINED_BYTES:
                self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))  # what a stream mostly is
            else:
                self._send_body(body, more=more)
        elif message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            if self.more_body:
                self._stop_listening()
            self._head = self._head_of(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"ASGI message {message['type']!r} is out of order")

    def respond_now(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, length: bytes | None) -> bool:
        """As `gateway.relay.live.Wire`: `send` for a whole reply."""
        if self.disconnected:
            return True
        if self.flow.write_paused or self.response_started:
            return False
        self.response_started = True
        if self.more_body:
            self._stop_listening()
        size = len(body)
        if self.is_ordinary and status not in _BODILESS and length == b"%d" % size and size < _JOINED_BYTES:
            self._finish((b"\r\n".join((_STATUS[status], *map(b": ".join, headers), b"", body)),))
            return True
        self._head = self._head_of(status, headers)
        self._send_body(body, more=False)
        return True

    def write_now(self, piece: bytes) -> bool:
        """As `gateway.relay.live.Wire`: `send` for one more piece."""
        if not self.chunked_encoding or (self.flow.write_paused and not self.disconnected):
            return False
        if not self.disconnected:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return True

    def abort(self) -> None:
        """As `gateway.relay.live.Wire`."""
        self.disconnected = True
        self._held = None
        if not self._ends_with_connection:
            self.transport.close()
            return
        reset(self.transport)  # an orderly end of the connection would be the end of the body

    def _stop_listening(self) -> None:
        """A reply has begun: what is still to come of the request matters no more."""
        self._pieces.clear()
        self.flow.resume_reading()

    def _head_of(self, status: int, headers: Headers) -> bytes:
        fields = dict(headers)
        if status in _BODILESS:
            headers = [field for field in headers if field[0] != b"content-length"]
            fields.pop(b"content-length", None)
        lines = [_STATUS[status], *map(b": ".join, headers)]
        if (length := fields.get(b"content-length")) is not None:
            self.chunked_encoding, self.expected_content_length = False, int(length)
        elif status not in _BODILESS and self.scope["method"] != "HEAD":
            self.chunked_encoding = self.scope["http_version"] != "1.0"
            self._ends_with_connection = not self.chunked_encoding
            if self.chunked_encoding:
                lines.append(b"transfer-encoding: chunked")
        if self.waiting_for_100_continue:
            # The body that was announced may never come; what comes instead must not be read as it.
            self.waiting_for_100_continue = self.keep_alive = False
        if b"close" in fields.get(b"connection", b""):
            self.keep_alive = False
        elif (self._is_last or not self.keep_alive) and not _is_event_stream(fields):
            self.keep_alive = False
            lines.append(b"connection: close")
        lines += _END_OF_HEAD
        head = b"\r\n".join(lines)
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
            raise RuntimeError("a line break in a response header")
        return head

    def _send_body(self, body: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            body, self.expected_content_length = b"", 0
        parts = self._chunk(body, more=more) if self.chunked_encoding else self._plain(body)
        if more:
            self._write(parts)
        else:
            self._end(parts)

    def _chunk(self, body: bytes, *, more: bool) -> tuple[bytes, ...]:
        head, self._head = self._head, b""
        end = b"" if more else b"0\r\n\r\n"
        if not body:
            return (head + end,)
        if len(body) < _JOINED_BYTES:
            return (b"%b%x\r\n%b\r\n%b" % (head, len(body), body, end),)
        return b"%b%x\r\n" % (head, len(body)), body, b"\r\n" + end

    def _plain(self, body: bytes) -> tuple[bytes, ...]:
        head, self._head = self._head, b""
        if not self._ends_with_connection:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the response is longer than its Content-Length")
        if len(body) < _JOINED_BYTES:
            return (head + body if head else body,)
        return head, body

    def _write(self, parts: tuple[bytes, ...]) -> None:
        if len(parts) > 1:
            self.transport.writelines(parts)
        elif parts[0]:
            self.transport.write(parts[0])

    def _end(self, parts: tuple[bytes, ...]) -> None:
        """`parts` are the last bytes of the reply."""
        if self.expected_content_length:
            raise RuntimeError("the response is shorter than its Content-Length")
        self._finish(parts)

    def _finish(self, parts: tuple[bytes, ...]) -> None:
        self._is_whole = True
        self.segment = None
        self._has_news = True
        if self._news is not None:
            self._news.set()
        self._held = parts
        if not self.holds_end:
            self.let_go()

    def let_go(self) -> None:
        """As `gateway.relay.live.Wire`."""
        self.holds_end = False
        parts, self._held = self._held, None
        if parts is None:
            return
        self.response_complete = True
        if self.disconnected or self.transport.is_closing():
            return
        self._write(parts)
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
