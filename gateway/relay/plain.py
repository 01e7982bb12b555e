"""Forward a reply that is no event stream: JSON, audio, a file.

The head goes out with the first piece, so that a reply which fails before it becomes an error reply. After that a
break can only be shown by dropping the client's connection.
"""

import asyncio
from time import perf_counter

from gateway.call import Reply, Usage
from gateway.metering.usage import usage_of_reply
from gateway.relay.client import ClientReply
from gateway.relay.failures import as_gateway_error, kind_of
from gateway.relay.headers import value_of
from gateway.relay.live import LiveCall
from gateway.relay.mask import SecretMask
from gateway.upstream.transport import TransportError, UpstreamReply

MAX_METERED_BYTES = 16 * 1024 * 1024
"""A larger reply is passed on but not read for usage."""


class PlainRelay:
    """Carries one reply from `reply` to `client`."""

    def __init__(self, call: LiveCall, reply: UpstreamReply, client: ClientReply, mask: SecretMask) -> None:
        self._call = call
        self._reply = reply
        self._client = client
        self._mask = mask
        metered = call.route is not None and call.route.reply is Reply.USAGE and reply.status < 300
        self._kept: list[bytes] | None = [] if metered else None
        self._kept_bytes = 0

    async def run(self) -> None:
        """Relay to the end. Raises `GatewayError` only while nothing has been sent."""
        try:
            await self._pump()
        except TransportError as error:
            self._call.upstream_error = kind_of(error)
            if not self._client.started:
                raise as_gateway_error(error) from error
            self._call.fail(as_gateway_error(error))
            self._call.end("cut")
            self._call.abort()
        except asyncio.CancelledError:
            if self._call.cut_by is None:
                raise
            self._call.uncancel()
            if not self._client.started:
                raise self._call.cut_by from None
            self._call.end("drained")
            self._call.abort()

    async def _pump(self) -> None:
        left, out = self._length(), b""
        while piece := await self._reply.read():
            if self._call.first_byte_at is None:
                self._call.first_byte_at = perf_counter()
            left -= len(piece)
            self._keep(piece)
            out = self._mask.feed(piece)
            if left == 0:
                break
            if out:
                await self._client.write(out)
                out = b""
        self._call.usage = self._usage()
        await self._client.write(out + self._mask.flush(), more=False)
        self._call.end("done" if self._reply.status < 400 else "upstream_error")

    def _length(self) -> int:
        """The body's length as upstream states it, -1 where it does not: only then the end must be waited for."""
        stated = value_of(self._reply.headers, b"content-length")
        return int(stated) if stated is not None and stated.isdigit() else -1

    def _keep(self, piece: bytes) -> None:
        if self._kept is None:
            return
        self._kept.append(piece)
        self._kept_bytes += len(piece)
        if self._kept_bytes > MAX_METERED_BYTES:
            self._kept = None

    def _usage(self) -> Usage | None:
        return None if not self._kept else usage_of_reply(b"".join(self._kept))
