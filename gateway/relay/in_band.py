"""Errors inside an event stream whose status line is already gone.

Pure. Each dialect's clients raise on a shape of their own: chat clients on `data: {"error": …}`; responses clients
on `event: error`, Python's on the nested members and Node's on the flat ones, so both are there. Upstream tells of its
own errors in the same ways, and in the `response` of `response.failed` besides.
"""

import json
from typing import Any, NamedTuple

import msgspec

from gateway.call import Dialect
from gateway.errors import GatewayError
from gateway.relay.events import data_of, split_events
from gateway.relay.failures import error_code

_NOTHING = (None, b"", b"[DONE]")
_COMPLETED = b"event: response.completed"
_NO_ERROR = (b"", b"null", b"false")


class UpstreamsError(NamedTuple):
    """What an error event of upstream's own says."""

    code: str | None
    """Its code, or else its type; None if it has neither."""


class _Event(msgspec.Struct):
    type: Any = None
    error: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_EVENT = msgspec.json.Decoder(_Event)


def error_event(error: GatewayError, dialect: Dialect, last_sequence_number: int | None) -> bytes:
    """The event that tells a client of `dialect` why its stream ends here, blank line included."""
    if dialect is Dialect.RESPONSES:
        return _responses_event(error, last_sequence_number)
    return b"data: " + _compact(error.body()) + b"\n\n"


def _responses_event(error: GatewayError, last_sequence_number: int | None) -> bytes:
    nested = error.body()["error"]
    following = 0 if last_sequence_number is None else last_sequence_number + 1
    flat = {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "sequence_number": following,
    }
    return b"event: error\ndata: " + _compact({**flat, "error": nested}) + b"\n\n"


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def error_at_the_end(before: bytes, last: bytes) -> UpstreamsError | None:
    """The error that a stream whose last blocks these are ends with, but for `[DONE]`; None if it has no such end."""
    if not (_may_tell(last) or _may_tell(before)):
        return None
    for block in (last, before):
        for event in reversed(split_events(block)):
            data = data_of(event)
            if data not in _NOTHING:
                return _error_of(data or b"")
    return None


def _may_tell(block: bytes) -> bool:
    """Whether it is worth while to read `block`, which may repeat all of an answer."""
    errors = 0 if block.startswith(_COMPLETED) else block.count(b'"error"')
    if errors == 0:
        return False
    if errors > block.count(b'"error":null') + block.count(b'"error": null'):
        return True
    return block.find(b'"response.failed"') >= 0


def _error_of(data: bytes) -> UpstreamsError | None:
    try:
        event = _EVENT.decode(data)
    except (ValueError, RecursionError):
        return None
    if event.type == "response.failed":
        return UpstreamsError(error_code(bytes(event.response)))
    if bytes(event.error) not in _NO_ERROR:
        return UpstreamsError(error_code(data))
    return UpstreamsError(error_code(b'{"error":%b}' % data)) if event.type == "error" else None
