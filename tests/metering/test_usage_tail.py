"""Usage is found at the end of what is too large to be kept, and nothing else is taken for it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Usage
from gateway.metering.usage_tail import TAIL_BYTES, PartScanner, usage_at_the_end

TOLD = {"input_tokens": 300, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 40, "total_tokens": 340}
FREE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
USAGE = Usage(300, 40, 340, 8)
LONG = {"result": "A" * 3 * TAIL_BYTES}
SCHEMA = {"tools": [{"type": "function", "parameters": {"properties": {"usage": FREE}}}]}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "after",
    [
        {},
        {"after": 1},
        {"user": None, "metadata": {f"{number:064}": "é" * 500 for number in range(4)}},
        {"text": json.dumps({"usage": FREE})},
        {"metadata": {"usage": "free"}, "usage_of": "usage"},
        SCHEMA,
    ],
)
def test_usage_of_a_reply_is_found_in_its_tail_whatever_follows(indent: int | None, after: dict[str, Any]) -> None:
    reply = json.dumps({**LONG, "usage": TOLD, **after}, indent=indent, ensure_ascii=False).encode()
    assert usage_at_the_end(reply[-TAIL_BYTES:]) == USAGE


@pytest.mark.parametrize(
    "tail",
    [
        json.dumps({"text": json.dumps({"usage": TOLD})}).encode(),
        json.dumps([{"usage": TOLD}]).encode(),
        json.dumps({"inner": {"usage": TOLD}}).encode(),
        json.dumps({**LONG, **SCHEMA}).encode(),
        json.dumps({"usage": TOLD}).encode() + b"}",
        b'"usage": {"total_tokens": 1}',
        b'"usage": {"total_tokens": ' + b"9" * 5000 + b"}}",
        b'"usage":' + b"[" * 10_000,
        b'"usage":{' * 1000,
        b'"usage": null}',
        b"",
    ],
)
def test_what_is_no_member_of_the_reply_itself_is_not_taken_for_its_usage(tail: bytes) -> None:
    assert usage_at_the_end(tail) is None


def event_of(document: object, end: bytes = b"\n\n", indent: int | None = None) -> bytes:
    lines = json.dumps(document, indent=indent).encode().splitlines()
    line_end = end[: len(end) // 2]
    return b"event: x" + line_end + line_end.join(b"data: " + line for line in lines) + end


COMPLETED = {"type": "response.completed", "response": {**LONG, **SCHEMA, "usage": TOLD, "user": None}, "last": 1}
CHUNK = {**LONG, "choices": [], "usage": TOLD, "after": {"usage": FREE}}


@pytest.mark.parametrize("document", [COMPLETED, CHUNK], ids=["in its response", "at its top"])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("size", [1000, 50_000, 10**6])
def test_usage_of_a_large_event_is_found_wherever_it_is_cut(
    document: dict[str, Any], end: bytes, indent: int | None, size: int
) -> None:
    large = event_of({"delta": "x"}, end) + event_of(document, end, indent)
    parts = [large[at : at + size] for at in range(100, len(large), size)]
    scanner = PartScanner(None, large[:100])
    for part in parts:
        scanner.feed(part)
    assert scanner.usage == USAGE
    scanner.feed(b"data: [DONE]" + end)
    assert scanner.usage == USAGE


def test_what_the_stream_reports_last_counts() -> None:
    large, small = event_of(CHUNK), event_of({"usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    scanner = PartScanner(Usage(9, 9, 18), large[:100])
    assert scanner.usage == Usage(9, 9, 18)
    scanner.feed(large[100:] + small)
    assert scanner.usage == Usage(1, 2, 3)
    scanner.feed(small + large[:100])
    assert scanner.usage == Usage(1, 2, 3)
    scanner.feed(large[100:-1])
    assert scanner.usage == USAGE


@pytest.mark.parametrize("document", [{**LONG, **SCHEMA}, {"response": {**LONG, **SCHEMA, "usage": None}}])
def test_a_schema_in_a_large_event_is_no_usage(document: dict[str, Any]) -> None:
    large = event_of(document)
    scanner = PartScanner(None, large[:100])
    scanner.feed(large[100:])
    assert scanner.usage is None


@given(st.lists(st.binary(max_size=100) | st.sampled_from([b'"usage":{', b"\n", b"\r", b"}", b"data:"])))
def test_no_bytes_are_an_error(parts: list[bytes]) -> None:
    scanner = PartScanner(None, b"data: {")
    for part in parts:
        scanner.feed(part)
        usage_at_the_end(part)
    assert scanner.usage is None or scanner.usage.total_tokens >= 0
