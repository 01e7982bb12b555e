"""From what went wrong on the way upstream to what the client is told."""

import msgspec

from gateway.errors import GatewayError, Overloaded, UpstreamProtocolError, UpstreamTimeout, UpstreamUnreachable
from gateway.upstream.transport import (
    ConnectFailed,
    ConnectionBroken,
    PoolExhausted,
    ProtocolViolation,
    TransportError,
    TransportTimeout,
)

_NOT_SENT = "Nothing was sent, so it is safe to try again"
_MAYBE_SENT = "The request may have been processed; try again if that is acceptable"

_TIMEOUTS = {
    "connect": f"The upstream API could not be connected to in time. {_NOT_SENT}.",
    "headers": f"The upstream API did not start its answer in time. {_MAYBE_SENT}.",
    "first_byte": f"The upstream API did not start its answer in time. {_MAYBE_SENT}.",
    "stream": f"The upstream API fell silent in the middle of its answer. {_MAYBE_SENT}.",
    "total": f"The call took longer than this gateway allows. {_MAYBE_SENT}.",
}


KEY_REFUSED = "key_refused"
"""Upstream answered 401: it is the account's key that is wrong, not the client's."""

_LONGEST_CODE = 64


class _ErrorObject(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None


class _ErrorReply(msgspec.Struct):
    error: _ErrorObject


def error_code(body: bytes) -> str | None:
    """The code, or else the type, of an error reply in OpenAI's shape; None if it has neither."""
    try:
        error = msgspec.json.decode(body, type=_ErrorReply).error
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    code = error.code if error.code is not None else error.type
    return None if code is None else str(code)[:_LONGEST_CODE]


def kind_of(error: TransportError) -> str:
    """A short name for metrics and logs, out of a fixed set."""
    if isinstance(error, TransportTimeout):
        return f"timeout_{error.phase}"
    if isinstance(error, ConnectFailed):
        return "connect"
    if isinstance(error, PoolExhausted):
        return "pool"
    return "protocol" if isinstance(error, ProtocolViolation) else "broken"


def as_gateway_error(error: TransportError) -> GatewayError:
    """The refusal that the client sees; the transport's own words go to the log only."""
    detail = str(error)
    if isinstance(error, TransportTimeout):
        return UpstreamTimeout(_TIMEOUTS[error.phase], detail=detail)
    if isinstance(error, ConnectFailed):
        return UpstreamUnreachable(f"The upstream API could not be reached. {_NOT_SENT}.", detail=detail)
    if isinstance(error, PoolExhausted):
        return Overloaded(f"Too many calls are in flight at once. {_NOT_SENT} in a moment.", detail=detail)
    if isinstance(error, ConnectionBroken):
        message = f"The upstream API broke off the connection before its answer was complete. {_MAYBE_SENT}."
        return UpstreamUnreachable(message, detail=detail)
    return UpstreamProtocolError(
        f"The upstream API sent an answer that is not valid HTTP. {_MAYBE_SENT}.", detail=detail
    )
