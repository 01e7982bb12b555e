"""Which connection a call gets, what is sent twice, and what is left of cancelled calls."""

import asyncio
import contextlib
import random

import pytest

from gateway.upstream.native import NativeTransport
from gateway.upstream.transport import (
    ConnectFailed,
    ConnectionBroken,
    PoolExhausted,
    ProtocolViolation,
    TransportError,
    UpstreamRequest,
)
from tests.support.wire import Fin, Reset, Script, Stall, Wait, WireRequest, WireUpstream, chunk, chunked, reply
from tests.upstream.calls import HOST, SECRET, Connect, Source, body_of, call, get, post, until, upload

# The pool.


async def test_the_connection_used_last_is_used_first(connect: Connect) -> None:
    async with WireUpstream() as upstream:
        transport = connect(upstream.url)
        go = asyncio.Event()
        held: Script = [Wait(go), reply()]
        upstream.scripts = [held, held, held, reply()]
        calls = [asyncio.create_task(call(transport, get())) for _ in range(3)]
        await upstream.received(3)
        go.set()
        await asyncio.gather(*calls)
        for _ in range(4):
            await call(transport, get())
        assert len({request.connection.number for request in upstream.requests[3:]}) == 1
        assert (transport.pool.in_use, transport.pool.idle) == (0, 3)


async def test_an_idle_connection_that_upstream_closes_is_dropped_and_a_post_is_safe(connect: Connect) -> None:
    async with WireUpstream(reply(body=b"ok")) as upstream:
        transport = connect(upstream.url)
        for _ in range(3):
            assert await call(transport, post()) == b"ok"
            upstream.drop_all()
            await until(lambda: transport.pool.idle == 0)
        assert len(upstream.requests) == 3


async def test_unasked_bytes_drop_an_idle_connection_and_do_not_answer_the_next_call(connect: Connect) -> None:
    go = asyncio.Event()
    script: Script = [reply(body=b"first"), Wait(go), reply(body=b"smuggled"), Stall()]
    async with WireUpstream(script, reply(body=b"second")) as upstream:
        transport = connect(upstream.url)
        assert await call(transport, get()) == b"first"
        assert transport.pool.idle == 1
        go.set()
        await until(lambda: transport.pool.idle == 0)
        await upstream.closed(1)
        assert await call(transport, post()) == b"second"


async def test_an_idle_connection_is_closed_after_its_time(connect: Connect) -> None:
    async with WireUpstream(reply()) as upstream:
        transport = connect(upstream.url, idle_close_s=0.05)
        for count in (1, 2):
            await call(transport, get())
            await upstream.closed(count)
            assert transport.pool.idle == 0


async def test_a_connection_in_steady_use_does_not_grow_stale(connect: Connect) -> None:
    async with WireUpstream(reply()) as upstream:
        transport = connect(upstream.url, idle_close_s=0.1)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + 0.3
        while loop.time() < end_s:
            await call(transport, get())
        assert len(upstream.connections) == 1


async def test_the_connection_is_free_once_the_reply_has_come_read_or_not(connect: Connect) -> None:
    async with WireUpstream(reply(body=b"unread")) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(post())
        await until(lambda: transport.pool.idle == 1)
        assert await call(transport, post()) == b"unread"
        assert await stream.read() == b"unread"
        assert (await stream.read(), await stream.read()) == (b"", b"")
        stream.close()
        other = await transport.send(post())
        await until(lambda: transport.pool.idle == 1)
        other.close()
        other.close()
        with pytest.raises(ConnectionBroken):
            await other.read()
        assert len(upstream.connections) == 1


async def test_one_call_over_the_cap_is_refused_and_a_second_try_stays_under_it(connect: Connect) -> None:
    go = asyncio.Event()
    scripts: list[Script] = [[Wait(go), reply()], [Wait(go), reply()], [Fin()], reply(body=b"again")]
    async with WireUpstream(*scripts) as upstream:
        transport = connect(upstream.url, max_connections=2)
        pair = [asyncio.create_task(call(transport, get())) for _ in range(2)]
        await upstream.received(2)
        with pytest.raises(PoolExhausted, match=r"all 2 connections to 127\.0\.0\.1:"):
            await transport.send(get())
        go.set()
        await asyncio.gather(*pair)
        assert await call(transport, get()) == b"again"
        await upstream.closed(1)
        assert (len(upstream.connections), transport.pool.idle) == (3, 2)


# What may be sent twice.


@pytest.mark.parametrize("ending", [Fin(), Reset()])
async def test_a_post_on_a_connection_that_closes_is_never_sent_twice(connect: Connect, ending: Fin | Reset) -> None:
    async with WireUpstream(reply(), [ending], reply()) as upstream:
        transport = connect(upstream.url)
        await call(transport, post())
        with pytest.raises(ConnectionBroken):
            await transport.send(post())
        assert len(upstream.requests) == 2
        assert transport.pool.in_use == 0


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("ending", [Fin(), Reset()])
async def test_a_get_on_a_kept_connection_that_closes_is_sent_once_more_on_a_fresh_one(
    connect: Connect, method: bytes, ending: Fin | Reset
) -> None:
    async with WireUpstream(reply(), [ending], reply()) as upstream:
        transport = connect(upstream.url)
        await call(transport, get())
        await call(transport, UpstreamRequest(method, b"/", HOST))
        assert [request.connection.number for request in upstream.requests] == [0, 0, 1]


async def test_a_get_is_not_sent_a_third_time(connect: Connect) -> None:
    async with WireUpstream(reply(), [Fin()]) as upstream:
        transport = connect(upstream.url)
        await call(transport, get())
        with pytest.raises(ConnectionBroken):
            await transport.send(get())
        assert len(upstream.requests) == 3


async def test_a_get_is_not_sent_again_on_account_of_a_fresh_connection_or_a_reply_begun(connect: Connect) -> None:
    async with WireUpstream([Fin()], reply(), [b"HTTP/1.1 200", Fin()], reply()) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ConnectionBroken):
            await transport.send(get())
        await call(transport, get())
        with pytest.raises(ConnectionBroken):
            await transport.send(get())
        assert len(upstream.requests) == 3


# Cancellation.


async def test_a_cancelled_read_loses_nothing(connect: Connect) -> None:
    go = asyncio.Event()
    head, *rest = chunked([b"kept"])
    async with WireUpstream([head, Wait(go), *rest]) as upstream:
        stream = await connect(upstream.url).send(get())
        reading = asyncio.create_task(stream.read())
        await until(lambda: stream.waiter is not None)
        reading.cancel()
        go.set()
        assert await asyncio.wait_for(body_of(stream), 5) == b"kept"
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_closing_ends_a_read_that_waits(connect: Connect) -> None:
    async with WireUpstream([*chunked([], end=False), Stall()]) as upstream:
        stream = await connect(upstream.url).send(get())
        reading = asyncio.create_task(stream.read())
        await until(lambda: stream.waiter is not None)
        stream.close()
        with pytest.raises(ConnectionBroken):
            await reading
        await upstream.closed(1)


@pytest.mark.parametrize("twice", [False, True])
async def test_a_cancelled_upload_leaves_nothing(connect: Connect, twice: bool) -> None:
    source = Source(asyncio.Event())
    async with WireUpstream([Stall()], body_first=False) as upstream:
        transport = connect(upstream.url)
        sending = asyncio.create_task(transport.send(upload(source())))
        await upstream.received(1)
        sending.cancel()
        if twice:
            await asyncio.sleep(0)
            sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: source.is_closed)
        assert transport.pool.in_use == 0
        await upstream.closed(1)


async def flaky(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: WireRequest) -> None:
    """Answers in some of the ways that an upstream has, with a turn of the loop between the steps."""
    steps = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"x" * 100), chunk(b"y"), b"0\r\n\r\n"
    if request.connection.requests % 3:
        writer.write(b"".join(steps))
        return
    for step in steps:
        await asyncio.sleep(0)
        if not request.connection.ended.is_set():
            writer.write(step)


async def cancelled_call(transport: NativeTransport, chance: random.Random) -> None:
    """One call, cancelled after a few turns of the loop, once or twice."""
    body = bytes(chance.choice((2, 100_000)))
    work = asyncio.create_task(call(transport, chance.choice((get(), post(body)))))
    for _ in range(chance.choice((1, 1, 2))):
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        work.cancel()
    with contextlib.suppress(asyncio.CancelledError, TransportError):
        await work


async def test_after_thousands_of_cancelled_calls_the_pool_is_whole(connect: Connect, is_long: bool) -> None:
    calls = 20_000 if is_long else 2_000
    async with WireUpstream(flaky) as upstream, asyncio.timeout(calls / 50):
        transport = connect(upstream.url)
        for round_ in range(calls // 10):
            await asyncio.gather(*(cancelled_call(transport, random.Random(round_ * 10 + n)) for n in range(10)))
            assert transport.pool.in_use == 0, transport
        for _ in range(10):
            bodies = await asyncio.gather(*(call(transport, post()) for _ in range(10)))
            assert bodies == [b"x" * 100 + b"y"] * 10
        await until(lambda: len(transport.pool._open) == transport.pool.idle)
        await until(lambda: upstream.open_connections == transport.pool.idle)


# The end of a transport.


async def test_closing_drops_what_is_idle_in_use_and_still_connecting(connect: Connect) -> None:
    async with WireUpstream(reply(), [Stall()]) as upstream:
        transport = connect(upstream.url)
        await call(transport, get())
        waiting = [asyncio.create_task(transport.send(get())) for _ in range(2)]
        await upstream.received(3)
        connecting = asyncio.create_task(transport.send(get()))
        await asyncio.sleep(0)
        await transport.close()
        results = await asyncio.gather(*waiting, connecting, return_exceptions=True)
        assert {type(result) for result in results} <= {ConnectionBroken, ConnectFailed}
        await upstream.closed(len(upstream.connections))
        assert transport.pool.in_use == 0


async def test_nothing_that_is_shown_holds_a_secret(connect: Connect) -> None:
    leaky = reply(headers=[(b"X-Echo", SECRET)], body=SECRET * 10_000)
    async with WireUpstream(leaky, [b"HTTP/1.1 200 OK\r\nX-" + SECRET + b"\x00: a\r\n\r\n"]) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(post())
        shown = [repr(stream), repr(transport), repr(transport.pool), repr(transport.pool._open)]
        await body_of(stream)
        with pytest.raises(ProtocolViolation) as caught:
            await transport.send(post())
        shown += [repr(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__), repr(stream)]
    assert SECRET.decode() not in "".join(shown)
