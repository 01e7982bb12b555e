"""Forward an event stream: bytes as they come, cut between events only, with an honest end.

Knows how streams end and break (WHATWG HTML section 9.2; OpenAI's two dialects). An event is passed on when it is
complete, so that whatever happens upstream, the client holds whole events and an error can follow them in-band. It
never makes up an end: a stream that broke off never looks complete.
"""

import asyncio
from time import perf_counter

from gateway.call import Dialect, Reply
from gateway.errors import GatewayError
from gateway.metering.delivered import Sample
from gateway.metering.late import LateScanner
from gateway.metering.usage import UsageScanner
from gateway.metering.usage_tail import PartScanner
from gateway.relay.client import ClientReply
from gateway.relay.events import EventCutter, data_of, ends_response, sequence_number_after, split_events
from gateway.relay.failures import as_gateway_error, kind_of
from gateway.relay.in_band import error_at_the_end, error_event
from gateway.relay.include_usage import UsageRemover
from gateway.relay.keepalive import COMMENT, KeepAlive
from gateway.relay.live import LiveCall
from gateway.relay.mask import MaskedStream, SecretMask
from gateway.settings import Streams
from gateway.upstream.transport import TransportError, UpstreamReply

_DONE = tuple(b"[DONE]" + end for end in (b"\n\n", b"\r\n\r\n", b"\r\r"))
_UPSTREAM_END_S = 0.5
"""How long upstream may take to end its reply after `[DONE]` before its connection is dropped."""


class EventRelay:
    """Carries one event stream from `reply` to `client`."""

    def __init__(
        self,
        call: LiveCall,
        reply: UpstreamReply,
        client: ClientReply,
        mask: SecretMask,
        streams: Streams,
    ) -> None:
        self._call = call
        self._reply = reply
        self._client = client
        self._mask = mask
        self._dialect = Dialect.OTHER if call.route is None else call.route.dialect
        self._cutter = EventCutter(streams.max_event_bytes)
        metered = call.route is not None and call.route.reply is Reply.USAGE and not call.is_free
        self._scanner: UsageScanner | PartScanner | None = UsageScanner() if metered else None
        self._late = LateScanner() if call.may_tell_late else None
        self._sample = self._call.sample = Sample(self._dialect if metered else Dialect.OTHER)
        self._remover = UsageRemover() if call.removes_usage else None
        self._new_ids = call.new_ids if reply.status < 400 else None
        self._is_chat = self._dialect is Dialect.CHAT
        self._last = b""
        self._before_done = b""
        self._unsent = b""
        self._is_done = False
        self._partial: MaskedStream | None = None
        self._pieces = 0
        self._last_piece_at = 0.0
        self._longest_gap_s = 0.0
        self._keepalive = KeepAlive(streams.keepalive_s, self._comment) if streams.keepalive_s else None

    async def run(self) -> None:
        """Relay to the end, or to the break. Raises `GatewayError` only while nothing has been sent."""
        try:
            await self._pump()
        except TransportError as error:
            self._call.upstream_error = kind_of(error)
            await self._break_off(as_gateway_error(error))
        except GatewayError as error:  # an object was made whose owner cannot be noted
            await self._break_off(error)
        except asyncio.CancelledError:
            if self._call.cut_by is None:
                raise
            self._call.uncancel()
            await self._break_off(self._call.cut_by)
        finally:
            if self._keepalive is not None:
                self._keepalive.close()
            self._tell()

    def _tell(self) -> None:
        """What the call is to know when it ends."""
        self._call.pieces, self._call.longest_gap_s = self._pieces, self._longest_gap_s
        if self._scanner is not None:
            self._call.usage = self._scanner.usage
        if self._late is not None:
            self._call.late = self._late.found

    async def _pump(self) -> None:
        while True:
            self._unsent = b""
            await self._reply.pump(self._take)
            if self._is_done:
                await self._finish(self._unsent)
                return
            if not self._unsent:
                await self._end(self._cutter.take())
                return
            await self._client.write(self._unsent)

    def _take(self, piece: bytes) -> bool:
        """Pass a piece on without waiting; False where its whole events are `_unsent` and somebody has to wait."""
        now = perf_counter()
        if self._pieces == 0:
            self._call.first_byte_at = now
        elif now - self._last_piece_at > self._longest_gap_s:
            self._longest_gap_s = now - self._last_piece_at
        self._pieces += 1
        self._last_piece_at = now
        block = self._cutter.feed(piece)
        if not block:
            return True
        if self._new_ids is not None:
            self._new_ids.feed(block)
        if self._is_chat and block.endswith(_DONE) and data_of(split_events(block)[-1]) == b"[DONE]":
            self._is_done, self._before_done = True, self._last
            self._unsent = self._prepare(block)
            return False
        out = self._prepare(block)
        if not out or self._client.write_now(out):
            return True
        self._unsent = out
        return False

    def _prepare(self, block: bytes) -> bytes:
        """Look at a block of whole events, and take out of it what the client must not see."""
        if self._scanner is not None:
            self._scanner.feed(block)
        if self._late is not None:
            self._late.feed(block)
        self._last = block
        if self._remover is not None:
            block = self._remover.feed(block)
        if self._sample.is_open:
            self._sample.feed(block)
        if self._keepalive is not None:
            self._keepalive.sent()
        return self._masked(block)

    def _masked(self, block: bytes) -> bytes:
        """`block` without secrets; only within an event that is passed on in parts can one be cut in two."""
        if self._cutter.at_boundary and self._partial is None:
            return self._mask.mask(block)
        if self._partial is None:
            self._begin_parts(block)
        partial = self._partial = self._partial or MaskedStream(self._mask)
        out = partial.feed(block)
        if self._cutter.at_boundary:
            out, self._partial = out + partial.flush(), None
        return out

    def _begin_parts(self, block: bytes) -> None:
        """`block` ends within an event, which will never be there as a whole.

        What a response in the background used is told by whoever asks for it, so it is not this call's.
        """
        if isinstance(self._scanner, UsageScanner) and not self._call.is_background:
            self._scanner = PartScanner(self._scanner.usage, block)

    async def _finish(self, last: bytes) -> None:
        """`last` ends with `[DONE]`: end the client's reply at once, then let upstream end its own."""
        await self._client.write(last, more=False)
        self._conclude()
        try:
            async with asyncio.timeout(_UPSTREAM_END_S):
                while await self._reply.read():
                    pass
        except (TimeoutError, TransportError):
            pass  # the client has all of it; the connection is dropped

    async def _end(self, rest: bytes) -> None:
        """Upstream's reply has ended, and `rest` is an event that it did not finish."""
        out = self._prepare(rest) if rest else b""
        if self._partial is not None:
            out += self._partial.flush()
        await self._client.write(out, more=False)
        self._conclude()

    def _conclude(self) -> None:
        """The client has all that upstream had to say, which may be that it failed."""
        self._tell()
        error = error_at_the_end(self._before_done, self._last)
        if error is not None and error.code is not None:
            self._call.error = self._mask.mask_error(error.code.encode()).decode()
        self._call.end("done" if error is None and self._reply.status < 400 else "upstream_error")

    async def _break_off(self, error: GatewayError) -> None:
        if not self._client.started:
            raise error
        # What upstream had said by then may still wait for a slow client.
        if self._is_done or (
            self._dialect is Dialect.RESPONSES and self._cutter.at_boundary and ends_response(self._last)
        ):
            await self._client.write(self._unsent, more=False)
            self._conclude()
            return
        self._call.fail(error)
        self._tell()
        self._call.end("drained" if error is self._call.cut_by else "cut")
        if self._cutter.at_boundary:
            event = error_event(error, self._dialect, sequence_number_after(self._last))
            await self._client.write(self._unsent + event, more=False)
        else:
            self._call.wire.abort()

    async def _comment(self) -> None:
        if self._cutter.at_boundary and self._call.outcome is None:
            await self._client.write(COMMENT)
