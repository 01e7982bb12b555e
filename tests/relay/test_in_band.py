"""Errors inside a stream."""

import json

from gateway.call import Dialect
from gateway.errors import UpstreamTimeout
from gateway.relay.in_band import error_event

ERROR = UpstreamTimeout("too slow\nby far")
NESTED = {"message": "too slow\nby far", "type": "upstream_error", "param": None, "code": "upstream_timeout"}


def test_chat_gets_one_data_line_with_the_error_object() -> None:
    event = error_event(ERROR, Dialect.CHAT, None)
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert json.loads(event[6:]) == {"error": NESTED}
    assert event.count(b"\n") == 2


def test_responses_get_the_flat_and_the_nested_shape_and_the_next_sequence_number() -> None:
    event = error_event(ERROR, Dialect.RESPONSES, 41)
    first, second, *rest = event.split(b"\n")
    assert (first, rest) == (b"event: error", [b"", b""])
    assert json.loads(second.removeprefix(b"data: ")) == {
        "type": "error",
        "code": "upstream_timeout",
        "message": "too slow\nby far",
        "param": None,
        "sequence_number": 42,
        "error": NESTED,
    }


def test_a_stream_that_had_no_number_yet_begins_at_zero() -> None:
    assert b'"sequence_number":0' in error_event(ERROR, Dialect.RESPONSES, None)
