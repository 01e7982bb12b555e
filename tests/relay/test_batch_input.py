"""A file of requests, line by line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.relay import batch_input
from gateway.relay.batch_input import Lines


def lines_of(pieces: list[bytes]) -> list[tuple[int, bytes]]:
    lines = Lines()
    return [line for piece in (*filter(None, pieces), b"") for line in lines.feed(piece)]


@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"\n", b"a\nb\n", b" \r\n"]), max_size=12))
def test_lines_are_the_same_wherever_the_pieces_are_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces).split(b"\n")
    expected = [(number, line) for number, line in enumerate(whole, 1) if line.strip()]
    found = [(number, line) for number, line in lines_of(pieces)]
    if not whole[0].startswith(b"\xef\xbb\xbf"):
        assert found == expected


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert lines_of([b"\xef\xbb", b"\xbfa\n\xef\xbb\xbfb"]) == [(1, b"a"), (2, b"\xef\xbb\xbfb")]


def test_a_line_is_held_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_input, "MAX_LINE_BYTES", 10)
    assert lines_of([b"0123456789", b"\n", b"0123456789"]) == [(1, b"0123456789"), (2, b"0123456789")]
    with pytest.raises(BadRequest, match="longer"):
        lines_of([b"0123456789", b"0"])
