"""Forward a reply that is no event stream: JSON, audio, a file.

The head goes out with the first piece, so that a reply which fails before it becomes an error reply. After that a
break can only be shown by dropping the client's connection.
"""

import asyncio
import logging
from time import perf_counter

from gateway.call import Outcome, Reply, Usage
from gateway.errors import GatewayError
from gateway.metering.usage import usage_of_reply
from gateway.relay.client import ClientReply
from gateway.relay.failures import KEY_REFUSED, as_gateway_error, error_code, kind_of
from gateway.relay.live import LiveCall
from gateway.relay.mask import MaskedStream, SecretMask
from gateway.relay.new_ids import NewIds
from gateway.upstream.transport import TransportError, UpstreamReply

_log = logging.getLogger("gateway")

MAX_METERED_BYTES = 16 * 1024 * 1024
"""A larger reply is passed on but not read for usage."""


MAX_HELD_BYTES = MAX_METERED_BYTES
"""A reply that names a new object is held until that is noted; a larger one is passed on, and what it made is lost."""

MAX_ERROR_BYTES = 1024 * 1024
"""A longer error reply is passed on in pieces, and only looked through for the key as it is."""


class PlainRelay:
    """Carries one reply from `reply` to `client`."""

    def __init__(
        self, call: LiveCall, reply: UpstreamReply, client: ClientReply, mask: SecretMask, length: bytes | None
    ) -> None:
        self._call = call
        self._reply = reply
        self._client = client
        self._mask = mask
        self._length = -1 if length is None or not length.isdigit() else int(length)
        """The body's length as upstream states it, -1 where it does not: only then the end must be waited for."""
        self._masked = MaskedStream(mask)
        self._is_error = reply.status >= 400
        metered = call.route is not None and call.route.reply is Reply.USAGE and not self._is_error
        self._new_ids = None if self._is_error else call.new_ids
        self._kept: list[bytes] | None = [] if metered else None
        self._kept_bytes = 0

    async def run(self) -> None:
        """Relay to the end. Raises `GatewayError` only while nothing has been sent."""
        try:
            await self._pump()
        except TransportError as error:
            self._call.upstream_error = kind_of(error)
            self._break_off(as_gateway_error(error), "cut")
        except asyncio.CancelledError:
            if self._call.cut_by is None:
                raise
            self._call.uncancel()
            self._break_off(self._call.cut_by, "drained")

    async def _pump(self) -> None:
        left = self._length
        piece = await self._first_piece()
        if self._new_ids is not None:
            piece = await self._with_new_ids(self._new_ids, piece)
        while piece:
            left -= len(piece)
            self._keep(piece)
            out = self._masked.feed(piece)
            if left == 0:
                await self._end(out)
                await self._reply.read()  # the end, which is there: the connection is free again
                return
            if out:
                await self._client.write(out)
            piece = await self._reply.read()
        await self._end(b"")

    async def _first_piece(self) -> bytes:
        """The first piece; the whole of an error, which is masked more thoroughly than pieces could be."""
        first = await self._reply.read()
        self._call.first_byte_at = perf_counter()
        if not self._is_error:
            return first
        pieces, size = [first], len(first)
        while size <= MAX_ERROR_BYTES and (piece := await self._reply.read()):
            pieces.append(piece)
            size += len(piece)
        body = b"".join(pieces)
        self._note(body)
        return self._mask.mask_error(body)

    async def _with_new_ids(self, new_ids: NewIds, first: bytes) -> bytes:
        """All of the reply, once the ids in it are noted; its first part, if it is too large for that."""
        body = bytearray(first)
        while len(body) <= MAX_HELD_BYTES:
            piece = await self._reply.read()
            if not piece:
                new_ids.read(bytes(body))
                return bytes(body)
            body += piece
        _log.warning("a reply that names a new object is over %d bytes: nobody will see it", MAX_HELD_BYTES)
        return bytes(body)

    def _note(self, body: bytes) -> None:
        """What upstream says is wrong, for the log; its text stays out, since it may repeat what was sent."""
        code = error_code(body)
        self._call.error = None if code is None else self._mask.mask_error(code.encode()).decode()
        if self._reply.status == 401:
            self._call.upstream_error = KEY_REFUSED
            self._call.detail = "upstream refuses the account's key; no client can mend this: gmi-gateway doctor"

    async def _end(self, rest: bytes) -> None:
        self._call.usage = self._usage()
        await self._client.write(rest + self._masked.flush(), more=False)
        self._call.end("upstream_error" if self._is_error else "done")

    def _break_off(self, error: GatewayError, outcome: Outcome) -> None:
        if self._call.outcome is not None:
            return  # the client has all of it
        if not self._client.started:
            raise error
        self._call.fail(error)
        self._call.end(outcome)
        self._call.wire.abort()

    def _keep(self, piece: bytes) -> None:
        if self._kept is None:
            return
        self._kept.append(piece)
        self._kept_bytes += len(piece)
        if self._kept_bytes > MAX_METERED_BYTES:
            self._kept = None

    def _usage(self) -> Usage | None:
        return usage_of_reply(b"".join(self._kept)) if self._kept else None
