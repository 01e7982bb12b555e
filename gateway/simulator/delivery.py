"""Send one reply, and do to it on the way what the request asked for.

The only place that waits, writes and breaks connections. It ends in one of
three ways that it tells (`completed`, `cut`, `reset`) or raises ClientLeft.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from gateway.simulator.call import Headers
from gateway.simulator.faults import Faults

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
_LINGER_ZERO = struct.pack("ii", 1, 0)


class ClientLeft(Exception):
    """The connection was closed from the other side."""


class Line:
    """One exchange's way out: writes that notice when nobody listens any more."""

    def __init__(self, send: Send, transport: asyncio.Transport | None) -> None:
        self._send = send
        self._transport = transport
        self.gone = asyncio.Event()
        self.sent_bytes = 0

    async def pause(self, seconds: float) -> None:
        """Wait, but not for a client that has left."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self.gone.wait()
            except TimeoutError:
                return
        self._check()

    async def stall(self) -> None:
        """Do nothing until the client leaves."""
        await self.gone.wait()
        raise ClientLeft

    async def start(self, status: int, headers: Headers) -> None:
        self._check()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        """One write, and one turn of the loop, so that writes do not melt into one."""
        if piece:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self.sent_bytes += len(piece)
        await asyncio.sleep(0)
        self._check()

    async def finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def close(self) -> None:
        """FIN, once what was written is out."""
        self._reachable().close()
        await self.gone.wait()

    async def reset(self) -> None:
        """RST; what was written goes out first, for a reset throws away what is still in a buffer."""
        transport = self._reachable()
        transport.set_write_buffer_limits(high=0)
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})
        _linger_zero(transport)
        transport.abort()
        await self.gone.wait()

    def _reachable(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("cut and reset need gateway.simulator.server.SimulatorProtocol")
        return self._transport

    def _check(self) -> None:
        if self.gone.is_set():
            raise ClientLeft


def _linger_zero(transport: asyncio.Transport) -> None:
    """SO_LINGER of zero turns close into RST. Set on a duplicate, for uvloop's own socket object is read-only."""
    given = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(given.fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


async def deliver(line: Line, status: int, headers: Headers, body: Iterable[bytes], faults: Faults) -> str:
    """Send it all, or as much as `faults` allow; tells how it ended."""
    await line.pause(faults.delay_s)
    if faults.stall_headers:
        await line.stall()
    await line.start(status, headers)
    end_at, end = _end(line, faults)
    if end_at == 0:
        return await end()
    for number, piece in enumerate(body):
        if number:
            await line.pause(faults.chunk_delay_s)
        room = len(piece) if end_at is None else end_at - line.sent_bytes
        await line.write(piece[:room])
        if line.sent_bytes == end_at:
            return await end()
    await line.finish()
    return "completed"


def _end(line: Line, faults: Faults) -> tuple[int | None, Callable[[], Awaitable[str]]]:
    """After how many bytes this reply ends before its time, and how."""

    async def cut() -> str:
        await line.close()
        return "cut"

    async def reset() -> str:
        await line.reset()
        return "reset"

    async def stall() -> str:
        await line.stall()
        return "stalled"

    ends = ((faults.cut_bytes, cut), (faults.reset_bytes, reset), (faults.stall_bytes, stall))
    wanted = [(at, end) for at, end in ends if at is not None]
    return min(wanted, key=lambda each: each[0]) if wanted else (None, stall)
