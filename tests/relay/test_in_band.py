"""Errors inside a stream."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Dialect
from gateway.errors import UpstreamTimeout
from gateway.relay.in_band import UpstreamsError, error_at_the_end, error_event

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


BOOM = {"message": "boom", "type": "server_error", "code": "overloaded"}
DELTA = b'data: {"choices":[{"delta":{"content":"an \\"error\\""}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"error": BOOM}, "overloaded"),
        ({"error": {"message": "boom", "type": "server_error", "code": None}}, "server_error"),
        ({"error": {"message": "boom", "code": 503}}, "503"),
        ({"error": {}}, None),
        ({"error": "boom"}, None),
        ({"error": BOOM, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}, "overloaded"),
        ({"type": "error", "code": "overloaded", "message": "boom", "param": None}, "overloaded"),
        ({"type": "error", "error": BOOM}, "overloaded"),
        ({"type": "error", "error": None, "message": "boom"}, "error"),
        ({"type": "response.failed", "response": {"id": "resp_1", "error": BOOM}}, "overloaded"),
        ({"type": "response.failed", "response": {"id": "resp_1", "error": None}}, None),
        ({"error": BOOM, "last": {"error": None}}, "overloaded"),
    ],
)
def test_an_error_of_upstreams_own_is_seen_at_the_end_of_a_stream(document: object, code: str | None) -> None:
    last = event(document)
    error = UpstreamsError(code)
    for blocks in ((b"", last), (b"", DELTA + last), (DELTA + last, DONE), (b"", last + b": bye\n\n" + DONE)):
        assert error_at_the_end(*blocks) == error
    assert error_at_the_end(b"", last.rstrip(b"\n")) == error
    assert error_at_the_end(b"", last.replace(b"\n", b"\r\n")) == error


@pytest.mark.parametrize(
    "document",
    [
        {"error": None},
        {"choices": [{"delta": {"content": "x"}, "error": BOOM}]},
        {"type": "response.completed", "response": {"id": "resp_1", "error": None}},
        {"type": "response.incomplete", "response": {"id": "resp_1", "error": BOOM}},
        {"type": "response.output_text.delta", "delta": json.dumps({"error": BOOM})},
        [{"error": BOOM}],
        "error",
    ],
)
def test_what_only_speaks_of_errors_is_none(document: object) -> None:
    assert error_at_the_end(event({"error": BOOM}), event(document) + DONE) is None


def test_an_error_that_a_stream_has_gone_on_after_is_not_its_end() -> None:
    assert error_at_the_end(event({"error": BOOM}) + DELTA, DONE) is None
    assert error_at_the_end(b"", b"") is None


@given(st.binary(max_size=60))
def test_no_bytes_are_a_failure(data: bytes) -> None:
    error_at_the_end(data, b'data: {"error":' + data + b"}\n\n")
