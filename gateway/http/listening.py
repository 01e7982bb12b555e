"""How to stop listening on a socket without losing a client.

The kernel lets clients in by itself. One that it lets in between the last `accept` and the `close` is reset, its
request with it, which no balancer sends again. No call refuses newcomers ahead of that, so on Linux their packets are
dropped first: they ask again, by then nobody listens, and a balancer whose connection is refused tries the next node.
Knows nothing of HTTP.
"""

import ctypes
import socket
import struct
import sys
from collections.abc import Sequence

_SO_ATTACH_FILTER = 26
"""Of Linux's <asm-generic/socket.h>, which Python leaves out."""
_SYN, _SYN_ACK = 0x02, 0x12

# struct sock_filter: code, jump if true, jump if false, operand. A TCP socket's filter is shown segments, header first.
_NO_NEWCOMERS = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, _SYN_ACK),
    (0x15, 0, 1, _SYN),  # SYN without ACK: a newcomer
    (0x06, 0, 0, 0),  # dropped
    (0x06, 0, 0, 0xFFFFFFFF),  # kept whole; who has begun to come in may go on
)


def ignore_newcomers(listener: socket.socket) -> None:
    """Let nobody in any more who has not begun to come in; a client asks again a second later.

    Nothing happens where the system cannot do that. Other processes that listen on the same socket are concerned too.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_NEWCOMERS))
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_NEWCOMERS), ctypes.addressof(program))
        )
    except OSError:
        return  # sandboxes that stand in for the kernel have no filters


def accept_waiting(listeners: Sequence[socket.socket]) -> list[socket.socket]:
    """All whom the kernel has let in and nobody has accepted yet; returns at once."""
    accepted = []
    for listener in listeners:
        listener.setblocking(False)
        try:
            while True:
                accepted.append(listener.accept()[0])
        except OSError:
            continue  # mostly BlockingIOError: there is nobody left
    return accepted
