"""The way of one call upstream and back: send, see what comes, pass it on, leave nothing open.

The object that streams owns its closing: whatever ends the call, the reply is closed here, and a reply that was not
read to its end takes its connection with it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter

from gateway.access.grants import allows_model
from gateway.call import Principal, Reply
from gateway.errors import BadRequest, GatewayError
from gateway.metering.meter import Meter
from gateway.relay.batch_input import check_batch_input
from gateway.relay.catalogue import add_aliases, keep_allowed, relay_models
from gateway.relay.client import ClientReply, Send
from gateway.relay.failures import as_gateway_error, kind_of
from gateway.relay.headers import fields_of, is_event_stream, reply_headers
from gateway.relay.listing import MAX_PAGE_BYTES, Listing
from gateway.relay.live import LiveCall
from gateway.relay.mask import SecretMask
from gateway.relay.objects import StoredObjects
from gateway.relay.plain import PlainRelay, relay_now
from gateway.relay.streaming import EventRelay
from gateway.relay.tracing import add_trace
from gateway.relay.whole import read_whole
from gateway.settings import Streams
from gateway.terms import Grants
from gateway.upstream.transport import ProtocolViolation, Transport, TransportError, UpstreamReply, UpstreamRequest

_MODELS = Reply.MODELS  # every call asks, and a member of an Enum is slow to find


@dataclass(frozen=True, slots=True)
class Relay:
    """Carries calls to one upstream."""

    transport: Transport
    mask: SecretMask
    streams: Streams
    aliases: dict[str, str]
    objects: StoredObjects
    meter: Meter

    async def carry(self, call: LiveCall, request: UpstreamRequest, send: Send) -> None:
        """Send `request` and relay its reply to `send`. Raises `GatewayError` only while nothing has been sent."""
        call.sent_at = perf_counter()
        if call.trace is not None:
            add_trace(request, call.trace, call.trace.upstream_span_id)
        try:
            reply = await self.transport.send(request)
        except TransportError as error:
            raise _failed(call, error) from error
        try:
            if (rest := self._relay(call, reply, send)) is not None:
                await rest
        finally:
            reply.close()

    async def carry_list(
        self, call: LiveCall, listing: Listing, request_for: Callable[[bytes], UpstreamRequest], send: Send
    ) -> None:
        """Send requests until `listing` is complete, and reply with that. `request_for` makes one of a query.

        Raises `GatewayError`, and then nothing has been sent. An error reply of upstream's own is passed on.
        """
        call.sent_at = perf_counter()
        while True:
            reply = await self._send(call, request_for(listing.query))
            try:
                if reply.status != 200:
                    listing.check_refusal(reply.status)
                    if (rest := self._relay(call, reply, send)) is not None:
                        await rest
                    return
                page = await read_whole(call, reply, MAX_PAGE_BYTES, "list")
            finally:
                reply.close()
            if await listing.take(page):
                break
        call.complete_at = perf_counter()
        client = self._client(call, reply, dict(reply.headers), send, keep_length=False)
        await client.write(self.mask.mask(listing.page()), more=False)
        call.end("done")

    async def check_file(self, call: LiveCall, request: UpstreamRequest, principal: Principal) -> None:
        """Refuse the call unless all that the file names which `request` asks for is `principal`'s to use.

        Raises `GatewayError`. A file that upstream does not hand out cannot be checked.
        """
        reply = await self._send(call, request)
        try:
            if reply.status != 200:
                raise BadRequest(
                    "The batch's input file cannot be read, so what it names cannot be checked. Upload it again, with"
                    " the purpose batch.",
                    param="input_file_id",
                    detail=f"upstream answered with status {reply.status}",
                )
            await check_batch_input(call, reply, self.objects, principal)
        finally:
            reply.close()

    async def _send(self, call: LiveCall, request: UpstreamRequest) -> UpstreamReply:
        if call.trace is not None:
            # What is asked before the call itself is part of its admission.
            add_trace(request, call.trace, call.trace.upstream_span_id if call.sent_at else call.trace.span_id)
        try:
            return await self.transport.send(request)
        except TransportError as error:
            raise _failed(call, error) from error

    def _relay(self, call: LiveCall, reply: UpstreamReply, send: Send) -> Awaitable[None] | None:
        """Relay what is there and can be; the rest of it is to be awaited, None if that was all."""
        if not 200 <= reply.status < 300:
            _check_status(call, reply.status)
        fields = fields_of(reply.headers)
        call.streamed = stream = is_event_stream(fields)
        route = call.route
        grants = None if route is None or route.reply is not _MODELS else _grants_of(call)
        rewrites = grants is not None and bool(self.aliases or grants)
        client = self._client(call, reply, fields, send, keep_length=not (stream or rewrites))
        if stream:
            return EventRelay(call, reply, client, self.mask, self.streams).run()
        if grants is not None and rewrites and reply.status == 200:
            return relay_models(call, reply, client, self._for_grants(grants), self.mask)
        if relay_now(call, reply, client, self.mask, self.meter, fields):
            return None
        return PlainRelay(call, reply, client, self.mask, self.meter, fields).run()

    def _for_grants(self, grants: tuple[Grants, ...]) -> Callable[[bytes], bytes]:
        """What becomes of the list of models for a key with these grants."""

        def allows(name: str) -> bool:
            return allows_model(grants, (name, self.aliases.get(name, name)))

        def change(body: bytes) -> bytes:
            body = add_aliases(body, self.aliases)
            return keep_allowed(body, allows) if grants else body

        return change

    def _client(
        self, call: LiveCall, reply: UpstreamReply, fields: dict[bytes, bytes], send: Send, *, keep_length: bool
    ) -> ClientReply:
        """The client's reply with what passes of upstream's head; `fields` are its headers as a dict."""
        headers = reply_headers(reply.headers, fields, call.id, self.mask, keep_length=keep_length)
        if call.limit_headers:
            headers += call.limit_headers
        request_id = fields.get(b"x-request-id")
        # Where it does not pass, it must not be repeated in a log either.
        if request_id is not None and (b"x-request-id", request_id) in headers:
            call.upstream_request_id = request_id.decode("latin-1")
        return ClientReply(call, send, reply.status, headers, fields.get(b"content-length") if keep_length else None)


def _check_status(call: LiveCall, status: int) -> None:
    """Of a reply that is no success. Raises `GatewayError` where it could not be passed on."""
    if not 200 <= status <= 599:
        raise _failed(call, ProtocolViolation(f"upstream answered with status {status}"))
    call.is_free = True


def _grants_of(call: LiveCall) -> tuple[Grants, ...]:
    return () if call.principal is None else call.principal.grants


def _failed(call: LiveCall, error: TransportError) -> GatewayError:
    """What the client is told; the call keeps what it was."""
    call.upstream_error = kind_of(error)
    return as_gateway_error(error)
