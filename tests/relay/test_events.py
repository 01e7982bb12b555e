import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.events import EventCutter, data_of, sequence_number_after, split_events

LIMIT = 1 << 20

CORPUS = {
    "chat": b'data: {"a":1}\n\ndata: {"b":"\xc3\xa9\xe2\x82\xac"}\n\ndata: [DONE]\n\n',
    "responses": b'event: x\ndata: {"type":"x","sequence_number":1}\n\nevent: y\ndata: {}\n\n',
    "crlf": b"data: 1\r\n\r\nevent: x\r\ndata: 2\r\n\r\n",
    "cr": b"data: 1\r\rdata: 2\r\r",
    "mixed": b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\r\ndata: 4\n\r",
    "comments": b": hi\n\n:\n\ndata: 1\n\n",
    "byte order mark": b"\xef\xbb\xbfdata: 1\n\ndata: 2\n\n",
    "empty lines": b"\n\r\n\r\r\n\n\ndata: 1\n\n\n\n\r",
    "unfinished": b"data: 1\n\ndata: 2\n",
    "many lines": b"data: 1\ndata: 2\nid: 3\nretry: 4\ndata\n\n",
}

LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)")
streams = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"data: x"]), max_size=14).map(b"".join)


def naive_boundaries(stream: bytes) -> list[int]:
    """The offsets after each empty line, read line by line as the standard says."""
    return [0, *(line.end() for line in LINE.finditer(stream) if not line[1])]


def cut(stream: bytes, at: int) -> list[bytes]:
    return [stream[:at], stream[at:]]


def assert_cut_well(pieces: list[bytes]) -> None:
    stream, cutter, given_back, fed = b"".join(pieces), EventCutter(LIMIT), 0, 0
    boundaries = naive_boundaries(stream)
    for piece in pieces:
        out = cutter.feed(piece)
        assert stream.startswith(out, given_back)
        given_back, fed = given_back + len(out), fed + len(piece)
        # With a CR last, whether a line ends there is open until the next byte.
        known = fed - stream.endswith(b"\r", 0, fed)
        assert given_back == max(b for b in boundaries if b <= known)
        assert cutter.pending == fed - given_back
        assert cutter.at_boundary
    assert cutter.take() == stream[given_back:]
    assert cutter.at_boundary == (len(stream) in boundaries)


@pytest.mark.parametrize("stream", CORPUS.values(), ids=CORPUS.keys())
def test_a_stream_cut_at_any_byte_comes_out_in_whole_events(stream: bytes) -> None:
    for at in range(len(stream) + 1):
        assert_cut_well(cut(stream, at))


@pytest.mark.parametrize("stream", CORPUS.values(), ids=CORPUS.keys())
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_stream_in_small_pieces_comes_out_in_whole_events(stream: bytes, size: int) -> None:
    assert_cut_well([stream[at : at + size] for at in range(0, len(stream), size)])


@given(streams, st.lists(st.integers(0, 60), max_size=6))
def test_any_line_ends_in_any_pieces_come_out_in_whole_events(stream: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(stream), *(at for at in cuts if at < len(stream))})
    assert_cut_well([stream[start:end] for start, end in pairwise(edges)])


def test_a_piece_of_whole_events_is_given_back_uncopied() -> None:
    piece = CORPUS["chat"]
    assert EventCutter(LIMIT).feed(piece) is piece


def test_a_crlf_is_never_cut_in_half() -> None:
    cutter = EventCutter(LIMIT)
    assert cutter.feed(b"data: 1\r\n\r") == b""
    assert cutter.feed(b"\n") == b"data: 1\r\n\r\n"
    assert cutter.pending == 0


@given(streams, st.lists(st.integers(0, 60), max_size=6), st.integers(0, 5))
def test_too_large_events_are_let_through_and_boundaries_stay_true(
    stream: bytes, cuts: list[int], max_event_bytes: int
) -> None:
    edges = sorted({0, len(stream), *(at for at in cuts if at < len(stream))})
    cutter, given_back = EventCutter(max_event_bytes), b""
    boundaries = naive_boundaries(stream)
    for start, end in pairwise(edges):
        given_back += cutter.feed(stream[start:end])
        assert stream.startswith(given_back)
        assert cutter.at_boundary == (len(given_back) in boundaries)
        assert cutter.overflowed is not cutter.at_boundary
        assert cutter.pending <= max(max_event_bytes, 1)
    assert given_back + cutter.take() == stream
    assert cutter.at_boundary == (len(stream) in boundaries)


def test_after_an_event_that_was_too_large_events_are_whole_again() -> None:
    cutter = EventCutter(8)
    given_back = [(cutter.feed(piece), cutter.overflowed) for piece in (b"data: 0123", b"ab\n", b"\nda", b"ta")]
    assert given_back == [(b"data: 0123", True), (b"ab\n", True), (b"\n", False), (b"", False)]


@pytest.mark.parametrize("size", [1, 100])
def test_a_large_event_in_small_pieces_costs_linear_time(size: int) -> None:
    def seconds(event_bytes: int) -> float:
        cutter, piece = EventCutter(LIMIT * 2), b"x" * size
        start = time.process_time()
        for _ in range(event_bytes // size):
            cutter.feed(piece)
        assert len(cutter.feed(b"\n\n")) > event_bytes - size
        return time.process_time() - start

    small = min(seconds(1 << 16) for _ in range(3))
    assert seconds(1 << 20) < 16 * small * 4 + 0.05


@given(streams)
def test_splitting_keeps_every_byte_and_ends_each_event_with_its_empty_line(stream: bytes) -> None:
    events = split_events(stream)
    assert b"".join(events) == stream
    ends = [sum(map(len, events[: i + 1])) for i in range(len(events))]
    assert [0, *ends][: len(naive_boundaries(stream))] == naive_boundaries(stream)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: 1\n\n", b"1"),
        (b"data:1\n\n", b"1"),
        (b"data:  1\n\n", b" 1"),
        (b"event: x\r\ndata: 1\r\nid: 2\r\n\r\n", b"1"),
        (b"data: 1\ndata: 2\n\n", b"1\n2"),
        (b"data\n\n", b""),
        (b": data: 1\n\n", None),
        (b"database: 1\n\n", None),
        (b"xdata: 1\n\n", None),
        (b"", None),
    ],
)
def test_data_is_what_the_data_fields_hold(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data


@pytest.mark.parametrize(
    ("block", "number"),
    [
        (b'event: x\ndata: {"type":"x","sequence_number":7}\n\n', 7),
        (b'data: {"sequence_number":1}\n\ndata: {"sequence_number": 2}\n\n', 2),
        (b'data: {"sequence_number":1}\n\ndata: {"type":"x"}\n\n', 1),
        (b'data: {"sequence_number":1}\n\ndata: {"item":{"sequence_number":9}}\n\n', 1),
        (b'data: {"delta":"\\"sequence_number\\":9","sequence_number":3}\n\n', 3),
        (b'data: {"sequence_number":"4"}\n\n', None),
        (b'data: {"sequence_number":true}\n\n', None),
        (b'data: {"sequence_number":4\n\n', None),
        (b'data: ["sequence_number"]\n\n', None),
        (b'data: {"sequence_number":' + b"[" * 100_000 + b"\n\n", None),
        (b": ping\n\n", None),
        (b"", None),
    ],
)
def test_the_sequence_number_is_that_of_the_last_event_that_has_one(block: bytes, number: int | None) -> None:
    assert sequence_number_after(block) == number
