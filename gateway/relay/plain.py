"""Forward a reply that is no event stream: JSON, audio, a file.

The head goes out with the first piece, so that a reply which fails before it becomes an error reply. A reply that
says what its call used, or that names a new object, is held until it is whole: the one is told in its head, and the
other noted before the client knows of it. After the head a break can only be shown by dropping the client's connection.
"""

import asyncio
import logging
from collections.abc import Mapping
from time import perf_counter

from gateway.call import Outcome, Reply, Usage
from gateway.errors import GatewayError
from gateway.metering.late import late_usage, late_usage_of_stream
from gateway.metering.meter import Meter
from gateway.metering.usage import STREAM_BEGINNINGS, usage_of_reply
from gateway.relay.client import ClientReply
from gateway.relay.failures import KEY_REFUSED, as_gateway_error, error_code, kind_of
from gateway.relay.headers import is_event_stream
from gateway.relay.live import LiveCall
from gateway.relay.mask import MaskedStream, SecretMask
from gateway.relay.new_ids import NewIds
from gateway.relay.reported import Reported
from gateway.upstream.transport import TransportError, UpstreamReply

_log = logging.getLogger("gateway")

MAX_RECEIPT_BYTES = 1024 * 1024
"""A larger reply goes out as it comes, and its head does not tell what was used."""

MAX_HELD_BYTES = 16 * 1024 * 1024
"""A reply that names a new object is held until that is noted; a larger one is passed on, and what it made is lost."""

MAX_ERROR_BYTES = 1024 * 1024
"""A longer error reply is passed on in pieces, and only looked through for the key as it is."""

_USAGE = Reply.USAGE  # every call asks, and a member of an Enum is slow to find
_NOT_HELD = (b" ", b"\n", b"\r", b"\t", *STREAM_BEGINNINGS)
"""What some servers send to keep a connection alive before a reply begins, and event streams that are not called so."""


def relay_now(  # noqa: PLR0913 - as PlainRelay
    call: LiveCall,
    reply: UpstreamReply,
    client: ClientReply,
    mask: SecretMask,
    meter: Meter,
    fields: Mapping[bytes, bytes],
) -> bool:
    """Relay what replies mostly are, short and there at once, without waiting. False: it is one for `PlainRelay`."""
    body = reply.whole()
    if body is None or reply.status >= 300 or call.new_ids is not None or b"content-encoding" in fields:
        return False
    if fields.get(b"content-length") != b"%d" % len(body):
        return False
    call.first_byte_at = perf_counter()
    if _is_metered(call):
        _note_usage(call, meter, usage_of_reply(body))
    if not client.respond_now(mask.mask(body)):
        return False
    call.end("done")
    return True


class PlainRelay:
    """Carries one reply from `reply` to `client`; `fields` are its headers as a dict."""

    def __init__(  # noqa: PLR0913 - both sides of a reply, and what looks at it
        self,
        call: LiveCall,
        reply: UpstreamReply,
        client: ClientReply,
        mask: SecretMask,
        meter: Meter,
        fields: Mapping[bytes, bytes],
    ) -> None:
        self._call = call
        self._reply = reply
        self._client = client
        self._mask = mask
        self._meter = meter
        length = fields.get(b"content-length")
        self._length = -1 if length is None or not length.isdigit() else int(length)
        """The body's length as upstream states it, -1 where it does not: only then the end must be waited for."""
        self._masked = MaskedStream(mask)
        self._is_error = reply.status >= 400
        self._is_metered = _is_metered(call)
        self._fields = fields
        self._reported: Reported | None = None
        self._new_ids = None if self._is_error else call.new_ids
        self._is_whole = False

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
        if self._is_metered:
            self._reported = Reported(self._fields)
        if not self._is_whole and (max_bytes := self._most_to_hold(piece)):
            piece = await self._held(piece, max_bytes)
        while piece:
            left -= len(piece)
            if self._reported is not None and not self._is_whole:
                self._reported.feed(piece)
            out = self._masked.feed(piece)
            if left == 0 or self._is_whole:
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

    def _most_to_hold(self, first: bytes) -> int:
        """How many bytes of the reply are waited for before its head goes out; 0: it goes out with the first ones."""
        if self._new_ids is not None:
            return MAX_HELD_BYTES
        if self._reported is None or not self._reported.is_document or self._length > MAX_RECEIPT_BYTES:
            return 0
        return MAX_RECEIPT_BYTES if self._length >= 0 or not first.startswith(_NOT_HELD) else 0

    async def _held(self, first: bytes, max_bytes: int) -> bytes:
        """All of the reply, once what it says of usage and of new objects is read; its first part, if it is longer."""
        body = first
        if len(first) != self._length and first:
            body = await self._joined(first, max_bytes)
            self._call.complete_at = perf_counter()
            if len(body) > max_bytes:
                if self._new_ids is not None:
                    _log.warning("a reply that names a new object is over %d bytes: nobody will see it", max_bytes)
                return body
        self._is_whole = True
        text, is_stream = body, body.startswith(STREAM_BEGINNINGS)
        if b"content-encoding" in self._fields:
            text = await (self._reported or Reported(self._fields)).text_of(body)
            is_stream = is_event_stream({b"content-type": self._fields.get(b"content-type", b"")})
        if self._reported is not None:
            self._note_usage(self._reported.usage_of(text))
        if self._new_ids is not None:
            self._note_made(self._new_ids, text, is_stream=is_stream)
        return body

    def _note_made(self, new_ids: NewIds, text: bytes, *, is_stream: bool) -> None:
        """What all of the reply says of new objects. An event stream comes here if it was compressed or misnamed."""
        if is_stream:
            new_ids.feed(text)
            late = late_usage_of_stream
        else:
            new_ids.read(text)
            late = late_usage
        if self._call.may_tell_late:
            self._call.late = late(text)

    async def _joined(self, first: bytes, max_bytes: int) -> bytes:
        body = bytearray(first)
        while len(body) <= max_bytes and len(body) != self._length and (piece := await self._reply.read()):
            body += piece
        return bytes(body)

    def _note(self, body: bytes) -> None:
        """What upstream says is wrong, for the log; its text stays out, since it may repeat what was sent."""
        code = error_code(body)
        self._call.error = None if code is None else self._mask.mask_error(code.encode()).decode()
        if self._reply.status == 401:
            self._call.upstream_error = KEY_REFUSED
            self._call.detail = "upstream refuses the account's key; no client can mend this: gmi-gateway doctor"

    def _note_usage(self, usage: Usage | None) -> None:
        """All of the reply is there, and says this."""
        self._is_whole = True
        _note_usage(self._call, self._meter, usage)

    async def _end(self, rest: bytes) -> None:
        await self._client.write(rest + self._masked.flush(), more=False)
        if self._reported is not None and not self._is_whole:
            self._call.usage = await self._reported.usage()
        self._call.end("upstream_error" if self._is_error else "done")

    def _break_off(self, error: GatewayError, outcome: Outcome) -> None:
        if self._call.outcome is not None:
            return  # the client has all of it
        if not self._client.started:
            raise error
        self._call.fail(error)
        self._call.end(outcome)
        self._call.wire.abort()


def _is_metered(call: LiveCall) -> bool:
    return call.route is not None and call.route.reply is _USAGE and not call.is_free


def _note_usage(call: LiveCall, meter: Meter, usage: Usage | None) -> None:
    call.usage = usage
    if usage is not None:
        call.cost_microusd = meter.cost_of(call.model, usage)
        call.is_costed = True
