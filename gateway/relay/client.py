"""The client's side of a call: ASGI's `send`, and the reply's head, which is held until there is a body to go with it.

Holding the head is what lets a reply that fails before its first byte still become an honest error.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

from gateway.relay.headers import RawHeaders
from gateway.relay.live import LiveCall

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ClientReply:
    """One reply to the client: head once, then pieces, then the end. `send` is ASGI's, for pieces after the first."""

    __slots__ = ("_call", "_headers", "_status", "send", "started")

    def __init__(self, call: LiveCall, send: Send, status: int, headers: RawHeaders) -> None:
        self._call = call
        self.send = send
        self._status = status
        self._headers = headers
        self.started = False

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send `data` at once; the head goes first, if it has not. `more=False` ends the reply."""
        if not self.started:
            await self._start()
        await self.send({"type": "http.response.body", "body": data, "more_body": more})
        self._call.sent_bytes += len(data)

    async def _start(self) -> None:
        self.started = True
        self._call.status = self._status
        self._call.first_write_at = perf_counter()
        await self.send({"type": "http.response.start", "status": self._status, "headers": self._headers})
