"""Replies cut anywhere and changed anywhere: the same reply, or a clean failure; never something else.

The parser is fed directly; what it leaves on a connection is tried over a real one at the end.
"""

import asyncio
import random
from itertools import combinations

import pytest

from gateway.upstream.native import NativeTransport
from gateway.upstream.origin import Origin
from gateway.upstream.reply_parser import ReplyParser
from gateway.upstream.transport import (
    ConnectionBroken,
    ProtocolViolation,
    RawHeaders,
    Timeouts,
    TransportError,
    UpstreamRequest,
)
from tests.support.wire import Fin, Script, WireUpstream, reply

MAX_HEAD_BYTES = 4096

Facts = tuple[int, RawHeaders, bytes, bool, bool]

EVENT = 'data: {"choices":[{"delta":{"content":"zwölf"}}]}\r\n\r\n'.encode()
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)

LEGAL = {
    "plain": b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A:  b \t\r\nx-empty:\r\n\r\nhello world",
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
    "chunked": CHUNKED + CHUNK + CHUNK + b"0\r\n\r\n",
    "chunk extensions": CHUNKED + b'5;a="b";c\r\nhello\r\n00;z\r\n\r\n',
    "trailers": CHUNKED + CHUNK + b"0\r\nX-T: 1\r\nx-u:\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
    "closing": b"HTTP/1.1 500 Oh\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbad",
    "to the end": b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nuntil it closes",
    "old": b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold",
    "old, kept": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold",
    "cookies": b"HTTP/1.1 429 Slow\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
}

ILLEGAL = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 settings": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "empty line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status under 100": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status of letters": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "switch of protocols": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "plain 101": b"HTTP/1.1 101 Switching\r\n\r\n",
    "17 interim replies": b"HTTP/1.1 100 Continue\r\n\r\n" * 17,
    "interim reply with a body": b"HTTP/1.1 103 Hints\r\nContent-Length: 1\r\n\r\nx",
    "CL and TE": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE and CL": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\na",
    "hex length": b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\na",
    "empty length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\na",
    "endless length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\na",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "chunks in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "blank before colon": b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "no name": b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n",
    "large head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES + b"Content-Length: 0\r\n\r\n",
    "chunk size of letters": CHUNKED + b"xyz\r\nhello\r\n",
    "negative chunk": CHUNKED + b"-5\r\nhello\r\n",
    "chunk size with a blank": CHUNKED + b"5 \r\nhello\r\n",
    "endless chunk size": CHUNKED + b"f" * 17 + b"\r\nhello\r\n",
    "chunk longer than its size": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
    "chunk with LF": CHUNKED + b"5\nhello\n0\n\n",
    "length in the trailers": CHUNKED + b"0\r\nContent-Length: 9\r\n\r\n",
    "large extension": CHUNKED + b"5;" + b"a" * 2 * MAX_HEAD_BYTES,
    "large trailers": CHUNKED + b"0\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES,
}


def parse(*segments: bytes, head_only: bool = False) -> Facts:
    """What a connection would make of these segments and the end after them; raises as it would."""
    parser = ReplyParser(max_head_bytes=MAX_HEAD_BYTES)
    parser.begin(head_only=head_only)
    for segment in segments:
        if not parser.ended:
            parser.feed(segment)
    parser.finish()
    return parser.status, parser.headers, b"".join(parser.pieces), parser.ended, parser.reusable


@pytest.mark.parametrize("raw", LEGAL.values(), ids=LEGAL)
def test_a_legal_reply_is_the_same_wherever_it_is_cut(raw: bytes) -> None:
    whole = parse(raw)
    assert whole[3]
    for at in range(1, len(raw)):
        assert parse(raw[:at], raw[at:]) == whole
    for first, second in combinations(range(1, len(raw)), 2):
        assert parse(raw[:first], raw[first:second], raw[second:]) == whole
    assert parse(*(raw[at : at + 1] for at in range(len(raw)))) == whole


@pytest.mark.parametrize("raw", ILLEGAL.values(), ids=ILLEGAL)
def test_an_illegal_reply_is_refused_wherever_it_is_cut(raw: bytes) -> None:
    cuts = range(len(raw)) if len(raw) < 300 else random.Random(25).sample(range(len(raw)), 50)
    for at in cuts:
        with pytest.raises(ProtocolViolation) as caught:
            parse(*(segment for segment in (raw[:at], raw[at:]) if segment))
        assert "aaa" not in str(caught.value)
        assert "hello" not in str(caught.value)


@pytest.mark.parametrize("raw", LEGAL.values(), ids=LEGAL)
def test_a_reply_that_breaks_off_is_never_taken_for_complete(raw: bytes) -> None:
    head_end = raw.rindex(b"\r\n\r\n") if raw == LEGAL["to the end"] else len(raw) - 1
    for end in range(head_end + 1):
        with pytest.raises(ConnectionBroken):
            parse(raw[:end])


@pytest.mark.parametrize("name", ["plain", "empty", "chunked", "trailers", "no content", "not modified", "closing"])
@pytest.mark.parametrize("extra", [b"x", b"0", b"HTTP/1.1 200 OK\r\n\r\n", LEGAL["plain"], b"\x00"])
def test_bytes_after_the_end_change_nothing_but_the_connection_is_not_reused(name: str, extra: bytes) -> None:
    assert parse(LEGAL[name] + extra) == (*parse(LEGAL[name])[:4], False)


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"])
def test_a_reply_to_head_has_no_body_and_what_comes_after_it_is_not_one(framing: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing
    assert parse(head, head_only=True)[2:4] == (b"", True)
    assert parse(head + b"5\r\nhello\r\n0\r\n\r\n", head_only=True)[2:] == (b"", True, False)


def test_nothing_of_one_reply_is_left_in_the_next() -> None:
    parser = ReplyParser(max_head_bytes=MAX_HEAD_BYTES)
    for _ in range(3):
        for raw in LEGAL.values():
            for head_only in (False, True):
                parser.begin(head_only=head_only)
                parser.feed(raw[: raw.rindex(b"\r\n\r\n") + 4] if head_only else raw)
                facts = parser.status, parser.headers, b"".join(parser.pieces)
                parser.pieces.clear()
                assert facts == parse(raw)[:2] + ((b"",) if head_only else (parse(raw)[2],))
                if not parser.reusable:
                    parser = ReplyParser(max_head_bytes=MAX_HEAD_BYTES)


def mutate(raw: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, taken out, put in or swapped for what framing is made of."""
    data = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 8)]
            case 2:
                data[at:at] = chance.choice(
                    (b"\r\n", b"\n", b"0", b"\r\n\r\n", b" ", b":", b"\x00", b"HTTP/1.1 200\r\n")
                )
            case _:
                data[at] = chance.choice(b"0123456789abcdef\r\n:; ")
        if not data:
            return b"\x00"
    return bytes(data)


def outcome(*segments: bytes) -> tuple[int, RawHeaders, bytes, bool] | str:
    """All but `reusable`: bytes after the end may come too late to be seen."""
    try:
        return parse(*segments)[:4]
    except TransportError as error:
        return type(error).__name__


def test_changed_bytes_give_a_reply_or_a_transport_error_the_same_wherever_they_are_cut(is_long: bool) -> None:
    chance = random.Random(2026)
    seen = set()
    for _ in range(400_000 if is_long else 20_000):
        raw = mutate(chance.choice(list(LEGAL.values())), chance)
        at = chance.randrange(len(raw))
        result = outcome(raw)
        assert outcome(*(segment for segment in (raw[:at], raw[at:]) if segment)) == result
        seen.add(result if isinstance(result, str) else "reply")
    assert seen == {"reply", "ConnectionBroken", "ProtocolViolation"}


async def one_call(transport: NativeTransport, method: bytes) -> tuple[int, bytes]:
    answer = await transport.send(UpstreamRequest(method, b"/", [(b"Host", b"h"), (b"Content-Length", b"0")]))
    try:
        body = b""
        while piece := await answer.read():
            body += piece
        return answer.status, body
    finally:
        answer.close()


async def test_what_changed_bytes_leave_behind_never_reaches_the_next_call(is_long: bool) -> None:
    chance = random.Random(14)
    rounds = 5_000 if is_long else 300
    raws = [mutate(chance.choice(list(LEGAL.values())), chance) for _ in range(rounds)]
    marks = [reply(body=b"mark %d" % n, headers=[(b"X-Mark", b"")]) for n in range(rounds)]
    wrong: list[Script] = [[raw, Fin()] if chance.random() < 0.5 else raw for raw in raws]
    scripts: list[Script] = [script for pair in zip(wrong, marks, strict=True) for script in pair]
    async with WireUpstream(*scripts) as upstream:
        origin = Origin("http", "127.0.0.1", upstream.port)
        limits = Timeouts(5, 0.05, 0.05, 5)
        transport = NativeTransport(origin, limits, max_connections=1, ssl_context=None)
        for n in range(rounds):
            try:
                async with asyncio.timeout(5):
                    await one_call(transport, b"POST")
            except TransportError:
                assert transport.pool.idle == 0
            assert transport.pool.in_use == 0
            assert await one_call(transport, b"GET") == (200, b"mark %d" % n)
        await transport.close()
