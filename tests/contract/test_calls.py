"""What goes on the wire and what comes back when nothing is wrong."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.upstream.transport import PoolExhausted
from tests.contract.transports import Connect, call, get, load, post, read_all
from tests.support.wire import Fin, Wait, WireUpstream, chunked, reply


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


async def test_the_head_on_the_wire_is_the_header_list_byte_for_byte(connect: Connect) -> None:
    headers = [
        (b"X-Odd_Case", b"a:b"),
        (b"authorization", b"Bearer x"),
        (b"X-Twice", b"1"),
        (b"X-Empty", b""),
        (b"X-Twice", b"2"),
        (b"X-Utf8", "é".encode()),
    ]
    async with WireUpstream(reply()) as upstream:
        await call(connect(upstream.url), get(b"/v1/models/openai%2Fgpt-5.2?a=%20b&c", headers))
    assert upstream.requests[0].head == (
        b"GET /v1/models/openai%2Fgpt-5.2?a=%20b&c HTTP/1.1\r\n"
        b"Host: upstream.test\r\nX-Odd_Case: a:b\r\nauthorization: Bearer x\r\n"
        b"X-Twice: 1\r\nX-Empty: \r\nX-Twice: 2\r\nX-Utf8: \xc3\xa9\r\n\r\n"
    )


@pytest.mark.parametrize("size", [0, 1, 1_000, 1_000_000])
async def test_a_body_of_bytes_goes_out_unchanged(connect: Connect, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with WireUpstream(reply()) as upstream:
        await call(connect(upstream.url), post(body))
    assert upstream.requests[0].head == (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: upstream.test\r\nContent-Length: %d\r\n\r\n" % size
    )
    assert upstream.requests[0].raw_body == body


async def test_an_iterator_with_a_stated_length_is_sent_unframed(connect: Connect) -> None:
    request = post(pieces(b"abc", b"", b"de"), [(b"Content-Length", b"5")])
    async with WireUpstream(reply()) as upstream:
        await call(connect(upstream.url), request)
    assert upstream.requests[0].raw_body == b"abcde"


async def test_an_iterator_without_a_length_is_sent_in_chunks(connect: Connect) -> None:
    async with WireUpstream(reply()) as upstream:
        await call(connect(upstream.url), post(pieces(b"abc", b"", b"x" * 300)))
    assert upstream.requests[0].head.lower().endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n")
    assert upstream.requests[0].raw_body == b"3\r\nabc\r\n12c\r\n" + b"x" * 300 + b"\r\n0\r\n\r\n"


async def test_a_stated_transfer_encoding_is_not_stated_twice(connect: Connect) -> None:
    async with WireUpstream(reply()) as upstream:
        await call(connect(upstream.url), post(pieces(b"a"), [(b"Transfer-Encoding", b"chunked")]))
    assert upstream.requests[0].head.lower().count(b"transfer-encoding") == 1
    assert upstream.requests[0].body == b"a"


async def test_the_reply_has_lower_case_names_values_as_sent_and_its_order(connect: Connect) -> None:
    headers = [(b"X-B", b"1"), (b"x-a", "ü, \t2".encode()), (b"X-B", b"3"), (b"Empty", b"")]
    async with WireUpstream(reply(418, headers, b"body")) as upstream:
        status, got, body = await call(connect(upstream.url), get())
    expected = [(name.lower(), value) for name, value in headers]
    assert (status, got, body) == (418, [*expected, (b"content-length", b"4")], b"body")


async def test_transfer_coding_is_taken_off_and_content_coding_is_not(connect: Connect) -> None:
    async with WireUpstream(chunked([b"\x1f\x8b", b"raw"], headers=[(b"Content-Encoding", b"gzip")])) as upstream:
        _, _, body = await call(connect(upstream.url), get())
    assert body == b"\x1f\x8braw"


async def test_a_piece_comes_as_soon_as_it_is_sent(connect: Connect) -> None:
    go = asyncio.Event()
    head, *chunks = chunked([b"one", b"two"])
    async with WireUpstream([head, chunks[0], Wait(go), *chunks[1:]]) as upstream:
        stream = await connect(upstream.url).send(get())
        assert await stream.read() == b"one"
        go.set()
        assert await read_all(stream) == b"two"
        stream.close()


async def test_the_head_comes_before_the_body_does(connect: Connect) -> None:
    go = asyncio.Event()
    head, *rest = chunked([b"late"])
    async with WireUpstream([head, Wait(go), *rest]) as upstream:
        stream = await connect(upstream.url).send(get())
        assert stream.status == 200
        go.set()
        assert await read_all(stream) == b"late"
        stream.close()


async def test_a_connection_is_kept_and_used_again(connect: Connect) -> None:
    async with WireUpstream(reply(body=b"a"), *[chunked([b"b", b"c"])] * 4) as upstream:
        transport = connect(upstream.url)
        for _ in range(5):
            await call(transport, get())
            assert load(transport) == (0, 1)
    assert len(upstream.connections) == 1


@pytest.mark.parametrize(
    "script",
    [
        reply(headers=[(b"Connection", b"close")]),
        reply(headers=[(b"Connection", b"x, Close")]),
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        [b"HTTP/1.1 200 OK\r\n\r\nto the end", Fin()],
    ],
)
async def test_a_connection_that_upstream_gives_up_is_not_used_again(
    connect: Connect, script: bytes | list[bytes]
) -> None:
    async with WireUpstream(script) as upstream:
        transport = connect(upstream.url)
        for _ in range(2):
            await call(transport, get())
            assert load(transport) == (0, 0)
        await upstream.closed(2)
    assert len(upstream.connections) == 2


async def test_calls_at_once_have_a_connection_each(connect: Connect) -> None:
    go = asyncio.Event()
    async with WireUpstream([Wait(go), reply(body=b"x" * 10)]) as upstream:
        transport = connect(upstream.url)
        calls = [asyncio.create_task(call(transport, get())) for _ in range(8)]
        await upstream.received(8)
        assert load(transport) == (8, 0)
        go.set()
        assert {(await each)[2] for each in calls} == {b"x" * 10}
        assert load(transport) == (0, 8)


async def test_one_call_over_the_cap_fails_at_once_and_harms_no_other(connect: Connect) -> None:
    go = asyncio.Event()
    async with WireUpstream([Wait(go), reply()]) as upstream:
        transport = connect(upstream.url, max_connections=2)
        calls = [asyncio.create_task(call(transport, get())) for _ in range(2)]
        await upstream.received(2)
        with pytest.raises(PoolExhausted):
            await transport.send(get())
        go.set()
        assert [(await each)[0] for each in calls] == [200, 200]
        assert (await call(transport, get()))[0] == 200
    assert len(upstream.connections) == 2


async def test_a_head_reply_has_no_body(connect: Connect) -> None:
    head_request = get()
    head_request.method = b"HEAD"
    async with WireUpstream(reply(headers=[(b"Content-Length", b"10")])) as upstream:
        transport = connect(upstream.url)
        assert (await call(transport, head_request))[2] == b""
        assert load(transport) == (0, 1)


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_body_ends_at_its_head(connect: Connect, status: int) -> None:
    async with WireUpstream(reply(status)) as upstream:
        transport = connect(upstream.url)
        assert (await call(transport, get()))[::2] == (status, b"")
        assert load(transport) == (0, 1)


async def test_interim_replies_are_skipped(connect: Connect) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    async with WireUpstream(interim + reply(201, body=b"ok")) as upstream:
        transport = connect(upstream.url)
        assert await call(transport, post(b"x")) == (201, [(b"content-length", b"2")], b"ok")
        assert load(transport) == (0, 1)


async def test_trailers_are_dropped(connect: Connect) -> None:
    head, *chunks, _ = chunked([b"a"])
    async with WireUpstream([head, *chunks, b"0\r\nX-Trailer: t\r\n\r\n"]) as upstream:
        transport = connect(upstream.url)
        _, headers, body = await call(transport, get())
        assert (headers, body) == ([(b"transfer-encoding", b"chunked")], b"a")
        assert load(transport) == (0, 1)


async def test_a_reply_is_the_same_wherever_it_is_cut(connect: Connect) -> None:
    whole = b"".join(step for step in chunked([b"ab", b"c" * 20], headers=[(b"X", b"y")]) if isinstance(step, bytes))
    async with WireUpstream(*[[whole[:at], whole[at:]] for at in range(1, len(whole))]) as upstream:
        transport = connect(upstream.url)
        for _ in range(1, len(whole)):
            assert (await call(transport, get()))[2] == b"ab" + b"c" * 20
    assert len(upstream.connections) == 1


async def test_a_large_body_comes_whole(connect: Connect) -> None:
    body = bytes(range(256)) * 20_000
    async with WireUpstream(
        reply(body=body), chunked([body[at : at + 9_999] for at in range(0, len(body), 9_999)])
    ) as upstream:
        transport = connect(upstream.url)
        assert (await call(transport, get()))[2] == body
        assert (await call(transport, get()))[2] == body
