"""The client's side of a call: ASGI's `send`, and the reply's head, which is held until there is a body to go with it.

Holding the head is what lets a reply that fails before its first byte still become an honest error.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

import msgspec

from gateway.relay.headers import RawHeaders
from gateway.relay.live import LiveCall
from gateway.relay.receipt import receipt

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ClientReply(msgspec.Struct, eq=False):
    """One reply to the client: head once, then pieces, then the end.

    `_length`: the Content-Length in `_headers`, if there is one.
    """

    _call: LiveCall
    _send: Send
    _status: int
    _headers: RawHeaders
    _length: bytes | None = None
    started: bool = False

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send `data` at once; the head goes first, if it has not. `more=False` ends the reply."""
        if not self.started:
            if not more and self.respond_now(data):
                return
            now = perf_counter()
            headers = self._headers + receipt(self._call, now)
            await self._send({"type": "http.response.start", "status": self._status, "headers": headers})
            # Not before: a call that is cut while its client takes nothing can still be refused.
            self.started = True
            self._call.status, self._call.first_write_at = self._status, now
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._call.sent_bytes += len(data)

    def respond_now(self, data: bytes) -> bool:
        """Send `data` as the whole reply without waiting, or return False: while the client is slow."""
        call, now = self._call, perf_counter()
        if not call.wire.respond_now(self._status, self._headers + receipt(call, now), data, self._length):
            return False
        self.started = True
        call.status, call.first_write_at, call.sent_bytes = self._status, now, len(data)
        return True

    def write_now(self, data: bytes) -> bool:
        """Send `data` without waiting, or return False: before the first `write`, and while the client is slow."""
        if self.started and self._call.wire.write_now(data):
            self._call.sent_bytes += len(data)
            return True
        return False
