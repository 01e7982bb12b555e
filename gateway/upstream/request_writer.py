"""Write requests: the head in one piece, the body as large or as slow as it is.

Knows the bytes of a request (RFC 9112, 3. and 7.) and when to stop sending
them: once upstream has replied, or the connection is gone.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from gateway.upstream.transport import RawHeaders, UpstreamRequest

ONE_WRITE_BYTES = 64 * 1024
"""The largest body that is copied behind its head."""

_SLICE_BYTES = 256 * 1024


class Outlet(Protocol):
    """Where a request goes: a connection, as this file sees it."""

    def write(self, data: bytes | memoryview) -> None:
        """Hand bytes to the socket; never waits."""

    async def writable(self) -> None:
        """Wait until the socket takes more, or there is no use in sending more."""

    def on_sent(self) -> None:
        """The request's last byte was written."""


class Outcome(Protocol):
    """What is known of the reply meanwhile."""

    @property
    def is_decided(self) -> bool:
        """The head has come, or never will."""

    async def changed(self) -> None:
        """Wait until it is decided, or `wake` was called."""

    def wake(self) -> None:
        """End `changed`."""


def serialise_head(request: UpstreamRequest) -> bytes:
    """Request line and headers as they go on the wire. Raises ValueError where one of them would end early."""
    headers = request.headers
    line = b"%b %b HTTP/1.1" % (request.method, request.target)
    head = b"\r\n".join((line, *map(b": ".join, headers), b"", b""))
    lines = len(headers) + 2
    if head.count(b"\n") != lines or head.count(b"\r") != lines or line.count(b" ") != 2:
        raise ValueError("a line break in the request's head, or a blank in its method or target")
    return head


async def send_request(outlet: Outlet, outcome: Outcome, request: UpstreamRequest, head: bytes) -> None:
    """Send what is more than one write: returns when all is written or upstream has replied early.

    Raises what the body's iterator raises, and ValueError when it does not yield what Content-Length states.
    """
    if isinstance(request.body, bytes):
        await _send_slices(outlet, outcome, head, request.body)
    else:
        await _send_stream(outlet, outcome, _Framing(request.headers, head), request.body)


async def _send_slices(outlet: Outlet, outcome: Outcome, head: bytes, body: bytes) -> None:
    """A large body, in slices, so that an early reply is noticed and little of it is copied."""
    outlet.write(head)
    view = memoryview(body)
    for start in range(0, len(view), _SLICE_BYTES):
        await _turn(outlet)
        if outcome.is_decided:
            return
        outlet.write(view[start : start + _SLICE_BYTES])
    outlet.on_sent()


async def _send_stream(outlet: Outlet, outcome: Outcome, framing: "_Framing", body: AsyncIterator[bytes]) -> None:
    """A body that is still being made: its source may be slow, so the reply is watched at the same time."""
    sending = asyncio.create_task(_send_pieces(outlet, outcome, framing, body))
    sending.add_done_callback(lambda _: outcome.wake())
    try:
        await outcome.changed()
    finally:
        sending.cancel()
        await asyncio.wait({sending})
    if not sending.cancelled():
        sending.result()


async def _send_pieces(outlet: Outlet, outcome: Outcome, framing: "_Framing", body: AsyncIterator[bytes]) -> None:
    outlet.write(framing.head)
    try:
        async for piece in body:
            if piece:
                outlet.write(framing.wrap(piece))
                await _turn(outlet)
            if outcome.is_decided:
                return
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()
    outlet.write(framing.end())
    outlet.on_sent()


async def _turn(outlet: Outlet) -> None:
    """Let the loop look for a reply, even where body and socket are both so fast that neither has to wait."""
    await asyncio.sleep(0)
    await outlet.writable()


class _Framing:
    """How a body of unknown origin is delimited: by the Content-Length that the headers state, or in chunks."""

    def __init__(self, headers: RawHeaders, head: bytes) -> None:
        stated = {name.lower(): value for name, value in headers}
        length = stated.get(b"content-length")
        self._remaining = None if length is None else int(length)
        self.head = head
        if length is None and b"transfer-encoding" not in stated:
            self.head = head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"

    def wrap(self, piece: bytes) -> bytes:
        if self._remaining is None:
            return b"%x\r\n%b\r\n" % (len(piece), piece)
        self._remaining -= len(piece)
        if self._remaining < 0:
            raise ValueError("the request's body is longer than its Content-Length")
        return piece

    def end(self) -> bytes:
        if self._remaining is None:
            return b"0\r\n\r\n"
        if self._remaining:
            raise ValueError("the request's body is shorter than its Content-Length")
        return b""
