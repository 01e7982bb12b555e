"""When a connection is read and when not; that its client has left although nothing is read, or takes nothing.

The end of a connection is read like its bytes, so nobody hears of it who does not read on. The kernel knows: it says
in which state of TCP the connection is.
"""

import asyncio
import contextlib
import fcntl
import socket
import sys
import termios

from uvicorn.protocols.http.flow_control import FlowControl

_LOOK_S = 0.5
_IS_TOLD = sys.platform == "linux"
"""Elsewhere nobody says."""
_ESTABLISHED = 1
"""The first byte of TCP_INFO while neither side has ended the connection, nor broken it off."""


class WatchfulFlow(FlowControl):
    """uvicorn's, which closes the connection within a second of its client's leaving, read or not."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._look: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0
        self._unsent_since_s = 0.0

    def stuck_s(self, now_s: float) -> float:
        """For how long the client has taken nothing of what is there for it, as far as these questions tell."""
        held = self._transport.get_write_buffer_size()
        unsent = held and held + _unsent_bytes(self._transport)
        if not unsent or unsent != self._unsent_bytes:
            self._unsent_bytes, self._unsent_since_s = unsent, now_s
        return now_s - self._unsent_since_s

    def pause_reading(self) -> None:
        """Read no more, and look now and then whether the client is there."""
        super().pause_reading()
        if self._look is None and _IS_TOLD:
            self._look_later()

    def _look_later(self) -> None:
        self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._look_now)

    def _look_now(self) -> None:
        self._look = None
        if not self.read_paused or self._transport.is_closing():
            return
        if _has_left(self._transport):
            self._transport.close()
        else:
            self._look_later()


def _has_left(transport: asyncio.Transport) -> bool:
    connection: socket.socket = transport.get_extra_info("socket")
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED


def _unsent_bytes(transport: asyncio.Transport) -> int:
    """What the kernel still holds for a client: megabytes, so that a slow one may read long before it asks for more."""
    queued = bytearray(4)
    with contextlib.suppress(OSError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
    return int.from_bytes(queued, sys.byteorder)
