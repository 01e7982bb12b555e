"""What the simulator saw, and how each request ended: for tests that ask what reached upstream.

Knows the last requests as facts. Keeps no secret: of Authorization, cookies
and bodies there is only a digest.
"""

import asyncio
import hashlib
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from gateway.simulator.call import Headers

KEPT = 2_000
_SECRET = frozenset({b"authorization", b"cookie", b"proxy-authorization"})


@dataclass(slots=True)
class Exchange:
    """One request; `number` counts from 1 and is never used again.

    Times are `time.monotonic()`, in seconds; `ended` is null while it goes on.
    """

    number: int
    method: str
    target: str
    client: str
    headers: list[tuple[str, str]]
    began_s: float
    body_bytes: int = 0
    body_sha256: str = ""
    status: int | None = None
    sent_bytes: int = 0
    ended: str | None = None
    ended_s: float | None = None


def _shown(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), _value(name, value)) for name, value in headers]


def _value(name: bytes, value: bytes) -> str:
    return f"sha256:{hashlib.sha256(value).hexdigest()}" if name in _SECRET else value.decode("latin-1")


@dataclass(slots=True)
class Seen:
    """The last `KEPT` exchanges, and how many there were in all."""

    total: int = 0
    open: int = 0
    _number: int = 0
    _exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=KEPT))
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, method: str, target: str, client: str, headers: Headers) -> Exchange:
        self._number += 1
        exchange = Exchange(self._number, method, target, client, _shown(headers), time.monotonic())
        self._exchanges.append(exchange)
        self.total += 1
        self.open += 1
        self._tell()
        return exchange

    def body(self, exchange: Exchange, body: bytes) -> None:
        exchange.body_bytes = len(body)
        exchange.body_sha256 = hashlib.sha256(body).hexdigest()

    def end(self, exchange: Exchange, how: str) -> None:
        exchange.ended, exchange.ended_s = how, time.monotonic()
        self.open -= 1
        self._tell()

    def clear(self) -> None:
        """Forget what has ended; what goes on is forgotten by its record alone."""
        self._exchanges.clear()
        self.total = 0

    def report(self) -> dict[str, Any]:
        return {"open": self.open, "total": self.total, "requests": [asdict(each) for each in self._exchanges]}

    async def until(self, *, open_calls: int | None, total: int, timeout_s: float) -> bool:
        """Wait for so many open calls and at least so many in all; false if it took too long."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.total < total or open_calls not in (None, self.open):
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
