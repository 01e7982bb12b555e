"""Errors inside an event stream whose status line is already gone.

Pure. Each dialect's clients raise on a shape of their own: chat clients on `data: {"error": …}`; responses clients
on `event: error`, Python's on the nested members and Node's on the flat ones, so both are there.
"""

import json

from gateway.call import Dialect
from gateway.errors import GatewayError


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
