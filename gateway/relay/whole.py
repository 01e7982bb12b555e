"""Read a reply of upstream's whole, under a cap, where it cannot be passed on in pieces."""

from time import perf_counter

from gateway.errors import UpstreamProtocolError
from gateway.relay.failures import as_gateway_error, kind_of
from gateway.relay.live import LiveCall
from gateway.upstream.transport import TransportError, UpstreamReply


async def read_whole(call: LiveCall, reply: UpstreamReply, max_bytes: int, what: str) -> bytes:
    """The body of `reply`, which is `what`. Raises `GatewayError`."""
    body = bytearray()
    try:
        while piece := await reply.read():
            call.first_byte_at = call.first_byte_at or perf_counter()
            body += piece
            if len(body) > max_bytes:
                raise UpstreamProtocolError(f"The upstream API's {what} is too long to be read.")
    except TransportError as error:
        call.upstream_error = kind_of(error)
        raise as_gateway_error(error) from error
    return bytes(body)
