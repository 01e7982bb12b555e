"""What is no legal reply is refused, and nothing of it reaches the next call."""

import pytest

from gateway.upstream.transport import ConnectionBroken, ProtocolViolation
from tests.contract.transports import Connect, call, get, load, post
from tests.support.wire import Fin, Stall, WireUpstream, chunked, reply

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CANARY = b"sk-canary-0123456789"


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"Content-Length: 2, 3\r\n\r\nabc",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\na",
        OK + b"Content-Length: 0x1\r\n\r\na",
        OK + b"Content-Length: 1 1\r\n\r\na",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\na",
        OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"No colon\r\nContent-Length: 0\r\n\r\n",
        OK + b"Name : value\r\nContent-Length: 0\r\n\r\n",
        OK + b": no name\r\nContent-Length: 0\r\n\r\n",
        OK + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
        OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
        CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        OK + b"X: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
        OK + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 50) for n in range(20_000)) + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 " + b"x" * 1_000_000,
        CHUNKED + b"0\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        CHUNKED + b"1;" + b"x" * 200_000 + b"\r\na\r\n0\r\n\r\n",
    ],
    ids=lambda raw: repr(raw[:60]),
)
async def test_an_illegal_reply_is_refused_and_its_connection_dropped(connect: Connect, raw: bytes) -> None:
    async with WireUpstream(raw, reply(body=b"clean")) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ProtocolViolation):
            await call(transport, post(b"{}"))
        assert load(transport) == (0, 0)
        await upstream.closed(1)
        assert (await call(transport, get()))[2] == b"clean"
    assert len(upstream.connections) == 2


FORGED = reply(body=b"forged")


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (reply(body=b"true") + FORGED, b"true"),
        (b"".join(step for step in chunked([b"true"]) if isinstance(step, bytes)) + FORGED, b"true"),
        (reply(204) + FORGED, b""),
        (b"HTTP/1.1 204 OK\r\nContent-Length: 6\r\n\r\nforged" + FORGED, b""),
        (b"HTTP/1.1 304 OK\r\nContent-Length: 6\r\n\r\nforged" + FORGED, b""),
        (reply(body=b"true") + b"x", b"true"),
    ],
)
async def test_bytes_after_the_end_are_not_the_next_reply(connect: Connect, raw: bytes, body: bytes) -> None:
    async with WireUpstream(raw, reply(body=b"clean")) as upstream:
        transport = connect(upstream.url)
        assert (await call(transport, get()))[2] == body
        assert load(transport) == (0, 0)
        assert (await call(transport, post(b"{}")))[2] == b"clean"
    assert len(upstream.connections) == 2


async def test_the_body_of_a_head_reply_is_not_the_next_reply(connect: Connect) -> None:
    head_request = get()
    head_request.method = b"HEAD"
    async with WireUpstream(FORGED, reply(body=b"clean")) as upstream:
        transport = connect(upstream.url)
        assert (await call(transport, head_request))[2] == b""
        assert load(transport) == (0, 0)
        assert (await call(transport, get()))[2] == b"clean"


async def test_a_head_just_under_the_cap_is_taken(connect: Connect) -> None:
    value = b"x" * (63 * 1024)
    async with WireUpstream(reply(headers=[(b"X", value)], body=b"ok")) as upstream:
        _, headers, body = await call(connect(upstream.url), get())
    assert (headers[0], body) == ((b"x", value), b"ok")


async def test_interim_replies_without_end_are_refused(connect: Connect) -> None:
    async with WireUpstream(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ProtocolViolation):
            await transport.send(get())
        assert load(transport) == (0, 0)


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


async def test_sixteen_interim_replies_are_taken(connect: Connect) -> None:
    async with WireUpstream([*[INTERIM] * 16, reply(body=b"ok")]) as upstream:
        assert (await call(connect(upstream.url), get()))[2] == b"ok"


async def test_the_seventeenth_interim_reply_is_refused_without_waiting_for_more(connect: Connect) -> None:
    async with WireUpstream([*[INTERIM] * 17, Stall()]) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ProtocolViolation):
            await transport.send(get())
        assert load(transport) == (0, 0)
        await upstream.closed(1)


@pytest.mark.parametrize(
    "raw",
    [
        b"g",
        b"garbage",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"http/1.1",
        b"HTTP/2",
        b"HTTP/1.1 2x",
        b"HTTP/1.1 2000",
        OK + b"No colon\r\n",
        OK + b"A na",
        OK + b": no name",
        OK + b"X: y\r\n\x01",
        INTERIM + b"garbage",
    ],
)
async def test_a_head_that_cannot_become_one_is_refused_before_the_rest_comes(connect: Connect, raw: bytes) -> None:
    async with WireUpstream([raw, Stall()]) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ProtocolViolation):
            await transport.send(get())
        assert load(transport) == (0, 0)
        await upstream.closed(1)


async def test_an_upstream_that_speaks_another_protocol_is_refused(connect: Connect) -> None:
    async with WireUpstream(greeting=b"220 ready\r\n") as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ProtocolViolation):
            await transport.send(post(b"{}"))
        assert load(transport) == (0, 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n%s\r\n\r\n",
        b"%s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
        CHUNKED + b"%s\r\n",
    ],
)
async def test_no_message_quotes_what_upstream_sent_or_what_it_was_sent(connect: Connect, raw: bytes) -> None:
    async with WireUpstream([raw % CANARY, Fin()]) as upstream:
        transport = connect(upstream.url)
        request = get(headers=[(b"Authorization", b"Bearer " + CANARY)])
        with pytest.raises((ProtocolViolation, ConnectionBroken)) as caught:
            await call(transport, request)
    told = f"{caught.value!r} {caught.value} {transport!r} {vars(caught.value)}"
    assert CANARY.decode() not in told
