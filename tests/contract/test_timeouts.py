"""Each phase has its own limit, and says which it was."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Iterator

import pytest

from gateway.upstream.transport import Phase, Timeouts, TransportTimeout
from tests.contract.transports import SHORT_S, SLACK_S, Connect, call, get, load, post, read_all
from tests.support.patience import Stopwatch
from tests.support.wire import Script, Stall, WireRequest, WireUpstream, chunked, reply


async def expect_timeout(work: Awaitable[object], phase: Phase, limit_s: float = SHORT_S) -> None:
    watch = Stopwatch()
    with pytest.raises(TransportTimeout) as caught:
        await work
    assert (caught.value.phase, caught.value.limit_s) == (phase, limit_s)
    assert watch.took().is_between(limit_s - 0.02, limit_s + SLACK_S)


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port whose backlog is full, so that a connection is neither made nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield int(address[1])
        for filler in fillers:
            filler.close()


async def test_connecting_too_long_is_a_timeout_of_connect(connect: Connect, deaf_port: int) -> None:
    transport = connect(f"http://127.0.0.1:{deaf_port}", timeouts=Timeouts(SHORT_S, 9, 9, 9))
    await expect_timeout(transport.send(get()), "connect")
    assert load(transport) == (0, 0)


async def test_a_connection_that_was_made_while_this_process_stood_still_is_not_late(connect: Connect) -> None:
    async with WireUpstream(reply(body=b"ok")) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(SHORT_S, 9, 9, 9))
        work = asyncio.create_task(call(transport, get()))
        asyncio.get_running_loop().call_soon(time.sleep, 2 * SHORT_S)  # it dials by then
        assert (await work)[2] == b"ok"


HEAD, FIRST, *REST = chunked([b"first", b"second"])


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        ([Stall()], "headers"),
        ([b"HTTP/1.1 200 OK\r\nX-Half: ", Stall()], "headers"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", Stall()], "headers"),
        ([HEAD, Stall()], "first_byte"),
        ([HEAD, b"5\r\n", Stall()], "first_byte"),
        ([HEAD, FIRST, Stall()], "stream"),
        ([HEAD, FIRST, b"6\r\nsec", Stall()], "stream"),
        ([HEAD, *REST[:1], b"0\r\nX-Trailer: ", Stall()], "stream"),
    ],
)
async def test_a_stall_is_a_timeout_of_its_phase(connect: Connect, script: Script, phase: Phase) -> None:
    async with WireUpstream(script) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(9, SHORT_S, SHORT_S, 9))
        await expect_timeout(call(transport, get()), phase)
        assert load(transport) == (0, 0)
        await upstream.closed(1, within_s=1)


async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: WireRequest) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not request.connection.ended.is_set():
        writer.write(b"x")
        await asyncio.sleep(SHORT_S / 10)


async def test_a_steady_trickle_ends_with_the_total(connect: Connect) -> None:
    async with WireUpstream(trickle) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(9, 9, SHORT_S, 2 * SHORT_S))
        await expect_timeout(call(transport, get()), "total", 2 * SHORT_S)
        await upstream.closed(1, within_s=1)


@pytest.mark.parametrize("script", [[Stall()], [HEAD, Stall()], [HEAD, FIRST, Stall()]])
async def test_the_total_holds_in_every_phase(connect: Connect, script: Script) -> None:
    async with WireUpstream(script) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(0, 0, 0, SHORT_S))
        await expect_timeout(call(transport, get()), "total")


async def test_zero_is_no_limit(connect: Connect) -> None:
    async with WireUpstream(trickle, [Stall()]) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(0, 0, 0, 0))
        stream = await transport.send(get())
        assert await stream.read()
        assert await stream.read()
        stream.close()


async def test_a_reply_in_time_leaves_no_timer_that_hits_the_next(connect: Connect) -> None:
    async with WireUpstream(reply(body=b"ok")) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(9, SHORT_S, SHORT_S, SHORT_S))
        await call(transport, get())
        await asyncio.sleep(1.5 * SHORT_S)  # the time itself is what is tested
        assert (await call(transport, get()))[2] == b"ok"
    assert len(upstream.connections) == 1


async def test_a_slow_reader_does_not_count_as_a_stall(connect: Connect) -> None:
    body = b"x" * 3_000_000
    async with WireUpstream(reply(body=body)) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(9, 9, SHORT_S, 9))
        stream = await transport.send(get())
        first = await stream.read()
        await asyncio.sleep(2 * SHORT_S)  # the client's slowness, longer than the limit
        assert first + await read_all(stream) == body
        stream.close()


async def slowly() -> AsyncIterator[bytes]:
    yield b"a"
    await asyncio.sleep(2 * SHORT_S)
    yield b"b"


async def test_first_byte_counts_from_the_end_of_the_request(connect: Connect) -> None:
    async with WireUpstream(reply(body=b"ok")) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(9, SHORT_S, 9, 9))
        assert (await call(transport, post(slowly())))[2] == b"ok"


async def test_an_upstream_that_does_not_take_the_request_is_waited_for_as_for_its_head(connect: Connect) -> None:
    async with WireUpstream([Stall()], body_first=False) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(9, SHORT_S, 9, 9))
        await expect_timeout(transport.send(post(bytes(20_000_000))), "headers")
        assert load(transport) == (0, 0)
