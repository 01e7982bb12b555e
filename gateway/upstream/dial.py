"""Open a connection to an origin, over whichever of its addresses answers first.

Knows name resolution, TLS set-up and the race between addresses ("happy
eyeballs", RFC 8305; uvloop has none of its own). Knows nothing of HTTP.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine
from itertools import chain, zip_longest
from typing import Any, TypeVar

from gateway.upstream.origin import Origin
from gateway.upstream.transport import ConnectFailed

_HEAD_START_S = 0.25

P = TypeVar("P", bound=asyncio.Protocol)
Connected = tuple[asyncio.Transport, P]


async def dial(origin: Origin, ssl_context: ssl.SSLContext | None, factory: Callable[[], P]) -> P:
    """A connected protocol made by `factory`, TLS handshake done if there is a context.

    Raises ConnectFailed. Cancelled, it leaves no socket and no task behind. Both event loops set TCP_NODELAY.
    """

    async def attempt(address: str) -> Connected[P]:
        return await asyncio.get_running_loop().create_connection(
            factory,
            address,
            origin.port,
            ssl=ssl_context,
            server_hostname=origin.host if ssl_context is not None else None,
        )

    try:
        addresses = await _addresses(origin)
        if len(addresses) == 1:
            _, protocol = await attempt(addresses[0])
        else:
            _, protocol = await _race(attempt, addresses)
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(f"cannot connect to {origin.authority}: {_reason(error)}") from error
    return protocol


async def _addresses(origin: Origin) -> list[str]:
    """The host's addresses, its families taking turns (RFC 8305, 4.)."""
    try:
        ipaddress.ip_address(origin.host)
    except ValueError:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    else:
        return [origin.host]
    families: dict[int, list[str]] = {}
    for family, _, _, _, address in infos:
        families.setdefault(family, []).append(str(address[0]))
    turns = chain.from_iterable(zip_longest(*families.values()))
    return list(dict.fromkeys(address for address in turns if address is not None))


async def _race(attempt: Callable[[str], Coroutine[Any, Any, Connected[P]]], addresses: list[str]) -> Connected[P]:
    """The first that connects; each next address starts a little later, or as soon as one has failed."""
    tasks: list[asyncio.Task[Connected[P]]] = []
    winner: asyncio.Task[Connected[P]] | None = None
    waiting = list(reversed(addresses))
    pending: set[asyncio.Task[Connected[P]]] = set()
    try:
        while waiting or pending:
            if waiting:
                tasks.append(asyncio.create_task(attempt(waiting.pop())))
                pending.add(tasks[-1])
            done, pending = await asyncio.wait(
                pending, timeout=_HEAD_START_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            winner = next((task for task in done if task.exception() is None), None)
            if winner is not None:
                return winner.result()
    finally:
        for task in tasks:
            if task is not winner:
                _discard(task)
    raise _all_failed(tasks)


def _discard(task: "asyncio.Task[Connected[P]]") -> None:
    task.cancel()
    task.add_done_callback(_close_late)


def _close_late(task: "asyncio.Task[Connected[P]]") -> None:
    """It connected though it had lost, or though nobody waits any more."""
    if not task.cancelled() and task.exception() is None:
        task.result()[0].abort()


def _all_failed(tasks: "list[asyncio.Task[Connected[P]]]") -> BaseException:
    errors = [error for task in tasks if (error := task.exception()) is not None]
    unexpected = next((error for error in errors if not isinstance(error, OSError)), None)
    return unexpected or OSError("; ".join(dict.fromkeys(_reason(error) for error in errors)))


def _reason(error: BaseException) -> str:
    """What the system calls it; the loops add addresses, which is said already, or nothing at all."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def reset_on_close(transport: asyncio.Transport) -> None:
    """Closing throws away what the kernel has not sent: else upstream sees the close behind megabytes of request."""
    with contextlib.suppress(OSError):
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
