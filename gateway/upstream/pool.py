"""Which connection a call gets, decided synchronously.

Knows how many connections are open, which of them are idle and since when.
Knows nothing of sockets or HTTP: it is told what happened to a connection, and
the only thing it ever does to one is to drop it.
"""

import asyncio
from typing import Generic, Protocol, TypeVar

from gateway.upstream.transport import PoolExhausted


class Pooled(Protocol):
    """What the pool has to know of a connection."""

    def is_usable(self) -> bool:
        """Whether a request may be written to it."""

    def drop(self) -> None:
        """Close it at once."""


C = TypeVar("C", bound=Pooled)


class Pool(Generic[C]):
    """Kept-alive connections to one origin, the one used last first.

    A slot is in use from `take` or `reserve` until `give_back` or `release`. Idle connections hold none, but
    together with the slots in use they are never more than `max_connections`. `idle_close_s`: seconds after
    which an idle connection is dropped; a server's own limit is commonly 60 to 75 and meets fewer of ours so.
    """

    def __init__(self, name: str, *, max_connections: int, idle_close_s: float) -> None:
        self._name = name
        self._max_connections = max_connections
        self._idle_close_s = idle_close_s
        self._idle: dict[C, float] = {}  # since when, longest first: a set that remembers its order
        self._open: set[C] = set()
        self._in_use = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._all_closed: asyncio.Future[None] | None = None
        self._is_closed = False

    @property
    def in_use(self) -> int:
        return self._in_use

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def __repr__(self) -> str:
        state = "closed, " if self._is_closed else ""
        counts = f"{self._in_use} in use, {len(self._idle)} idle, {len(self._open)} open"
        return f"<Pool {self._name}: {state}{counts}, at most {self._max_connections}>"

    def take(self) -> C | None:
        """An idle connection, or None where the caller has to open one; either way a slot is in use now.

        Raises PoolExhausted.
        """
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if connection.is_usable():
                self._in_use += 1
                return connection
        self.reserve()
        return None

    def reserve(self) -> None:
        """Take a slot for a new connection, in an idle one's place if need be. Raises PoolExhausted."""
        if self._in_use >= self._max_connections:
            raise PoolExhausted(f"all {self._max_connections} connections to {self._name} are in use")
        if self._idle and self._in_use + len(self._idle) >= self._max_connections:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.drop()
        self._in_use += 1

    def add(self, connection: C) -> None:
        """The caller, who has a slot, has opened this connection."""
        self._open.add(connection)

    def give_back(self, connection: C, now_s: float) -> None:
        """The connection is fit for another call; `now_s` is the loop's time."""
        self._in_use -= 1
        if self._is_closed:
            connection.drop()
            return
        self._idle[connection] = now_s
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._idle_close_s, self._drop_stale)

    def release(self) -> None:
        """A slot is free again, and its connection is gone or never came to be."""
        self._in_use -= 1

    def forget(self, connection: C) -> None:
        """The connection is not idle any more: nobody shall get it."""
        self._idle.pop(connection, None)

    def lost(self, connection: C) -> None:
        """The connection's socket is closed."""
        self._idle.pop(connection, None)
        self._open.discard(connection)
        if self._all_closed is not None and not self._open and not self._all_closed.done():
            self._all_closed.set_result(None)

    async def close(self) -> None:
        """Drop every connection, idle or not, and wait until their sockets are closed."""
        self._is_closed = True
        self._idle.clear()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._open):
            connection.drop()
        while self._open:
            self._all_closed = asyncio.get_running_loop().create_future()
            await self._all_closed

    def _drop_stale(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for connection, since_s in list(self._idle.items()):
            remaining_s = since_s + self._idle_close_s - now_s
            if remaining_s > 0.001:  # a loop's clock has no finer grain
                self._sweep = loop.call_later(remaining_s, self._drop_stale)
                return
            del self._idle[connection]
            connection.drop()
