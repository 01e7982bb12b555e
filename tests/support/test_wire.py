"""The scripted upstream and the faulty link do what their steps and faults say."""

import asyncio

import pytest

from tests.support.link import Faults, FaultyLink
from tests.support.wire import Fin, Reset, Script, Stall, Wait, WireRequest, WireUpstream, chunked, reply, sse

GET = b"GET /v1/models?a=%2F HTTP/1.1\r\nHost: x\r\n\r\n"


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def test_a_request_is_recorded_raw_and_parsed() -> None:
    async with WireUpstream(reply(200, [(b"A", b"b")], b"ok")) as upstream:
        assert await exchange(upstream.port, GET) == b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nok"
        await upstream.closed(1)
    request = upstream.requests[0]
    assert (request.head, request.method, request.target) == (GET, b"GET", b"/v1/models?a=%2F")
    assert request.header(b"host") == b"x"


async def test_a_chunked_body_is_kept_raw_and_decoded() -> None:
    body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with WireUpstream() as upstream:
        await exchange(upstream.port, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert (upstream.requests[0].raw_body, upstream.requests[0].body) == (body, b"abcde")


async def test_a_connection_is_kept_alive_and_scripts_go_by_request() -> None:
    async with WireUpstream(reply(200, body=b"1"), reply(404, body=b"2")) as upstream:
        raw = await exchange(upstream.port, GET + GET + GET)
    assert [raw.count(b" 200 "), raw.count(b" 404 ")] == [1, 2]
    assert len(upstream.connections) == 1


async def test_steps_are_sent_in_order_and_wait_waits() -> None:
    go = asyncio.Event()
    async with WireUpstream([b"a", Wait(go), b"b", Fin()]) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(GET)
        assert await reader.readexactly(1) == b"a"
        go.set()
        assert await reader.read() == b"b"
        writer.close()


async def test_a_reset_comes_after_what_was_sent() -> None:
    async with WireUpstream([b"ab", Reset()]) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(GET)
        assert await reader.readexactly(2) == b"ab"
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


async def test_a_client_that_leaves_a_stall_is_seen() -> None:
    async with WireUpstream([Stall()]) as upstream:
        _, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(GET)
        await upstream.received(1)
        assert upstream.open_connections == 1
        writer.close()
        await upstream.closed(1, within_s=1)


async def test_a_handler_that_fails_is_reported() -> None:
    async def fail(_: asyncio.StreamReader, __: asyncio.StreamWriter, request: WireRequest) -> None:
        raise ValueError(request.method)

    with pytest.raises(ValueError, match="GET"):
        async with WireUpstream(fail) as upstream:
            assert await exchange(upstream.port, GET) == b""


def test_events_are_framed_and_chunked() -> None:
    steps = sse([{"a": 1}, "[DONE]", b": raw\r\n\r\n"])
    assert steps[1:] == [
        b'10\r\ndata: {"a": 1}\n\n\r\n',
        b"e\r\ndata: [DONE]\n\n\r\n",
        b"9\r\n: raw\r\n\r\n\r\n",
        b"0\r\n\r\n",
    ]
    assert chunked([], end=False) == [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]


WHOLE = reply(200, body=b"0123456789")


@pytest.mark.parametrize(
    ("faults", "script", "expected"),
    [
        (Faults(), WHOLE, WHOLE),
        (Faults(fin_after=40), WHOLE, WHOLE[:40]),
        (Faults(truncate_after=7), [WHOLE, Fin()], WHOLE[:7]),
        (Faults(bytes_per_s=4000, delay_s=0.001), WHOLE, WHOLE),
        (Faults(fin_after=0), WHOLE, b""),
    ],
)
async def test_a_link_passes_exactly_so_many_bytes(faults: Faults, script: Script, expected: bytes) -> None:
    async with WireUpstream(script) as upstream, FaultyLink("127.0.0.1", upstream.port, down=faults) as link:
        assert await exchange(link.port, GET) == expected


async def test_a_link_resets_at_a_byte() -> None:
    async with (
        WireUpstream(WHOLE) as upstream,
        FaultyLink("127.0.0.1", upstream.port, down=Faults(reset_after=5)) as link,
    ):
        with pytest.raises(ConnectionResetError):
            await exchange(link.port, GET)
        await upstream.closed(1)


async def test_a_stalled_link_holds_the_rest_back_until_the_client_leaves() -> None:
    async with (
        WireUpstream(WHOLE) as upstream,
        FaultyLink("127.0.0.1", upstream.port, down=Faults(stall_after=5)) as link,
    ):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        writer.write(GET)
        assert await reader.readexactly(5) == WHOLE[:5]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        writer.close()
        await upstream.closed(1, within_s=1)
