"""Heads are looked at while they come, in whatever pieces."""

import pytest

from gateway.upstream.httpx2_head import HeadCheck
from gateway.upstream.transport import ProtocolViolation
from tests.contract.corpus import CORPUS, FIN

LEGAL = {
    "plain": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "no reason": b"HTTP/1.0 404\r\nX:\r\n\r\n",
    "any reason": b"HTTP/1.1 200 \xc3\xa9 \t!\r\nX: y\r\n\r\n",
    "line feeds alone": b"HTTP/1.1 200 OK\nX: y\n\n",
    "folded": b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 16 + b"HTTP/1.1 200 OK\r\n\r\n",
    "another reply after the final one": b"HTTP/1.1 200 OK\r\n\r\nno status line\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nanything",
}


def refused_after(raw: bytes, size: int) -> int | None:
    """How many bytes it took, in pieces of `size`; None if all were taken."""
    check = HeadCheck()
    for start in range(0, len(raw), size):
        try:
            check.feed(raw[start : start + size])
        except ProtocolViolation:
            return start + size
    return None


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_head_is_taken_wherever_it_is_cut(name: str, size: int) -> None:
    assert refused_after(LEGAL[name], size) is None


@pytest.mark.parametrize(
    ("legal", "wrong"),
    [
        (b"", b"X"),
        (b"HTT", b"X"),
        (b"HTTP/", b"2"),
        (b"HTTP/1.", b"2"),
        (b"HTTP/1.1", b"\t"),
        (b"HTTP/1.1 ", b"0"),
        (b"HTTP/1.1 20", b" "),
        (b"HTTP/1.1 20", b"\n"),
        (b"HTTP/1.1 200", b"0"),
        (b"HTTP/1.1 200 O", b"\x00"),
        (b"HTTP/1.1 200 O\r", b"K"),
        (b"HTTP/1.1 200 OK\r\n", b":"),
        (b"HTTP/1.1 200 OK\r\nX", b" "),
        (b"HTTP/1.1 200 OK\r\nX", b"\n"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", b"\x80"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"2"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 16 + b"HTTP/1.1 100 Continue\r\n\r", b"\n"),
    ],
)
def test_the_first_wrong_byte_is_refused(legal: bytes, wrong: bytes) -> None:
    assert refused_after(legal + wrong, 1) == len(legal) + 1


@pytest.mark.parametrize(
    ("raw", "final"),
    [
        (b"", False),
        (b"HTTP/1.1 ", False),
        (b"HTTP/1.1 1", False),
        (b"HTTP/1.1 2", True),
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 100 Continue\r\nX", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 ", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 4", True),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", True),
    ],
)
def test_the_final_reply_has_begun_once_its_status_says_so(raw: bytes, final: bool) -> None:
    check = HeadCheck()
    check.feed(raw)
    assert check.final_begun == final


@pytest.mark.parametrize("name", CORPUS)
def test_a_head_is_judged_alike_in_one_piece_and_byte_by_byte(name: str) -> None:
    raw = CORPUS[name].removesuffix(FIN)[: 70 * 1024]
    assert (refused_after(raw, 1) is None) == (refused_after(raw, len(raw) or 1) is None)
