"""Calls that are dropped or not read: upstream notices, and nothing is left behind."""

import asyncio

import pytest

from gateway.upstream.transport import ConnectFailed, ConnectionBroken, Timeouts, TransportError
from tests.contract.transports import Connect, call, get, load, post, read_all
from tests.support.wire import Script, Stall, WireRequest, WireUpstream, chunk, reply

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: WireRequest) -> None:
    writer.write(HEAD)
    piece = chunk(b"x" * 16_384)
    while not request.connection.ended.is_set():
        writer.write(piece)
        await writer.drain()
        request.connection.sent_bytes += len(piece)


@pytest.mark.parametrize(
    "script", [[Stall()], [HEAD[:20], Stall()], [HEAD, Stall()], [HEAD, chunk(b"a"), Stall()], endless]
)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_call_is_seen_upstream_and_leaves_the_pool_idle(
    connect: Connect, script: Script, times: int
) -> None:
    async with WireUpstream(script) as upstream:
        transport = connect(upstream.url)
        task = asyncio.create_task(call(transport, post(b"{}")))
        await upstream.received(1)
        await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert load(transport) == (0, 0)
        await upstream.closed(1, within_s=1)


async def test_a_call_cancelled_at_any_step_leaves_nothing(connect: Connect) -> None:
    async with WireUpstream([Stall()]) as upstream:
        transport = connect(upstream.url)
        for steps in range(40):
            task = asyncio.create_task(call(transport, post(b"{}")))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert load(transport) == (0, 0)


async def test_a_call_cancelled_while_it_sends_leaves_nothing(connect: Connect) -> None:
    async with WireUpstream([Stall()], body_first=False) as upstream:
        transport = connect(upstream.url)
        task = asyncio.create_task(call(transport, post(bytes(20_000_000))))
        await upstream.received(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert load(transport) == (0, 0)


async def test_two_thousand_cancelled_calls_leave_the_pool_whole(connect: Connect) -> None:
    async with WireUpstream(reply(body=b"ok")) as upstream:
        transport = connect(upstream.url, max_connections=10)
        for turn in range(200):
            tasks = [asyncio.create_task(call(transport, get())) for _ in range(10)]
            for step in range(turn % 7):
                await asyncio.sleep(0 if step else 0.0003)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert load(transport)[0] == 0
        for _ in range(10):
            outcomes = await asyncio.gather(*(call(transport, get()) for _ in range(10)))
            assert [body for _, _, body in outcomes] == [b"ok"] * 10


@pytest.mark.parametrize("script", [[HEAD, Stall()], [HEAD, chunk(b"a"), Stall()], endless])
@pytest.mark.parametrize("reads", [0, 1])
async def test_a_closed_reply_is_seen_upstream_and_does_not_look_complete(
    connect: Connect, script: Script, reads: int
) -> None:
    async with WireUpstream(script) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(9, 0.05, 9, 9))
        stream = await transport.send(get())
        if reads and script != [HEAD, Stall()]:
            assert await stream.read()
        stream.close()
        assert load(transport) == (0, 0)
        await upstream.closed(1, within_s=1)
        with pytest.raises(TransportError):
            await read_all(stream)


async def test_closing_a_reply_wakes_the_one_who_reads(connect: Connect) -> None:
    async with WireUpstream([HEAD, Stall()]) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(get())
        reader = asyncio.create_task(read_all(stream))
        await asyncio.sleep(0)
        stream.close()
        with pytest.raises(ConnectionBroken):
            await reader
        assert load(transport) == (0, 0)


async def test_a_reply_may_be_closed_from_a_callback_of_the_loop(connect: Connect) -> None:
    async with WireUpstream([HEAD, Stall()]) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(get())
        asyncio.get_running_loop().call_soon(stream.close)
        await upstream.closed(1, within_s=1)
        assert load(transport) == (0, 0)


async def test_closing_the_transport_drops_idle_and_busy_connections(connect: Connect) -> None:
    async with WireUpstream(reply(), [Stall()]) as upstream:
        transport = connect(upstream.url)
        await call(transport, get())
        busy = [asyncio.create_task(call(transport, post(b"{}"))) for _ in range(2)]
        await upstream.received(3)
        await transport.close()
        assert {type(error) for error in await asyncio.gather(*busy, return_exceptions=True)} == {ConnectionBroken}
        await upstream.closed(2)
        with pytest.raises(ConnectFailed):
            await transport.send(get())


async def test_a_reply_that_nobody_reads_stops_upstream_from_sending(connect: Connect) -> None:
    async with WireUpstream(endless) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(get())
        assert await stream.read()
        sent = await settled_bytes(upstream)
        assert sent < 16 * 1024 * 1024  # what two socket buffers and one connection hold
        read = 0
        while read < sent + 1_000_000:
            read += len(await stream.read())
        stream.close()


async def settled_bytes(upstream: WireUpstream) -> int:
    """Bytes that upstream got rid of, when a tenth of a second brought no more."""
    before = -1
    while before != upstream.connections[0].sent_bytes:
        before = upstream.connections[0].sent_bytes
        await asyncio.sleep(0.1)
    return before
