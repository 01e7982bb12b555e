"""Requests that are slow or large or refused early, and replies that are held, broken or illegal."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.upstream.connection import HIGH_WATER_BYTES
from gateway.upstream.transport import (
    ConnectionBroken,
    ProtocolViolation,
    Timeouts,
    TransportTimeout,
    UpstreamRequest,
)
from tests.support.wire import Fin, Reset, Stall, Step, Wait, WireRequest, WireUpstream, chunked, reply
from tests.upstream.calls import HOST, Connect, Source, body_of, call, get, post, until, upload

# Requests.


@pytest.mark.parametrize(
    "request_",
    [
        UpstreamRequest(b"GET", b"/ HTTP/1.1\r\nX: y", HOST),
        UpstreamRequest(b"GET", b"/a b", HOST),
        UpstreamRequest(b"GET /", b"/", HOST),
        UpstreamRequest(b"GET", b"/", [(b"X", b"a\r\nY: b")]),
        UpstreamRequest(b"GET", b"/", [(b"X", b"a\nY: b")]),
        UpstreamRequest(b"GET", b"/", [(b"X\r\nY", b"a")]),
        UpstreamRequest(b"GET", b"/", [(b"X", b"a\rb")]),
    ],
)
async def test_a_head_that_would_end_early_is_refused_before_anything_is_sent(
    connect: Connect, request_: UpstreamRequest
) -> None:
    async with WireUpstream() as upstream:
        with pytest.raises(ValueError, match="line break"):
            await connect(upstream.url).send(request_)
        assert upstream.connections == []


async def too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: WireRequest) -> None:
    """Refuses at once, then reads what comes all the same."""
    writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\n")
    await writer.drain()
    writer.write(b"much")
    while await reader.read(64 * 1024):
        pass


@pytest.mark.parametrize("is_slow", [False, True])
async def test_an_early_reply_stops_an_upload_and_the_connection_is_not_reused(connect: Connect, is_slow: bool) -> None:
    source = Source(asyncio.Event() if is_slow else None)
    async with WireUpstream(too_large, body_first=False) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(upload(source()))
        assert (stream.status, await body_of(stream)) == (413, b"much")
        assert source.is_closed
        assert transport.pool.idle == 0
        await upstream.closed(1)


async def test_an_early_reply_stops_a_large_body(connect: Connect) -> None:
    async with WireUpstream(too_large, body_first=False) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(post(bytes(50_000_000)))
        assert (stream.status, await body_of(stream)) == (413, b"much")
        assert transport.pool.idle == 0
        await upstream.closed(1)


async def test_an_upload_waits_for_an_upstream_that_does_not_read(connect: Connect) -> None:
    source = Source()
    async with WireUpstream([Stall()], body_first=False) as upstream:
        transport = connect(upstream.url, timeouts=Timeouts(5, 0.2, 5, 5))
        with pytest.raises(TransportTimeout) as caught:
            await transport.send(upload(source()))
        assert caught.value.phase == "headers"
        assert source.is_closed
        assert source.given < 20_000_000  # what the two sockets' buffers hold


async def read_to_the_end(upstream: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(upstream, 1_000_000):
        pass


async def test_a_request_that_is_given_up_is_reset_not_finished_in_the_background(connect: Connect) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        transport = connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
        sending = asyncio.create_task(transport.send(post(bytes(50_000_000))))
        upstream, _ = await loop.sock_accept(listener)
        with upstream:
            upstream.setblocking(False)
            await until(lambda: "sending" in repr(transport.pool._open))
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await until(lambda: not transport.pool._open)
            with pytest.raises(ConnectionResetError):
                await read_to_the_end(upstream)


class ClientLeft(Exception):
    pass


async def leaves() -> AsyncIterator[bytes]:
    yield b"a"
    raise ClientLeft


async def test_what_the_body_raises_comes_out_and_the_connection_is_dropped(connect: Connect) -> None:
    async with WireUpstream([Stall()], body_first=False) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ClientLeft):
            await transport.send(upload(leaves()))
        assert transport.pool.idle == 0
        await upstream.closed(1)


async def three() -> AsyncIterator[bytes]:
    yield b"abc"


@pytest.mark.parametrize("length", [b"2", b"4"])
async def test_a_body_that_belies_its_length_is_not_completed(connect: Connect, length: bytes) -> None:
    async with WireUpstream([Stall()], body_first=False) as upstream:
        with pytest.raises(ValueError, match="Content-Length"):
            await connect(upstream.url).send(upload(three(), (b"Content-Length", length)))
        await upstream.closed(1)


# Replies.


async def test_pieces_that_come_while_nobody_reads_are_one_piece(connect: Connect) -> None:
    async with WireUpstream(chunked([b"a", b"b", b"c"])) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(get())
        await until(lambda: transport.pool.idle == 1)
        assert await stream.read() == b"abc"


async def test_a_slow_reader_slows_upstream_and_little_is_held(connect: Connect) -> None:
    body = bytes(range(256)) * 100_000
    async with WireUpstream(reply(body=body)) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(get())
        await until(lambda: "paused" in repr(transport.pool._open))
        (connection,) = transport.pool._open
        for _ in range(200):
            await asyncio.sleep(0)  # turns in which more would come, were it asked for
        assert repr(connection) == "<Connection reading, paused>"
        assert HIGH_WATER_BYTES < connection.unread_bytes < HIGH_WATER_BYTES + 300_000
        assert upstream.connections[0].sent_bytes == 0  # the one write is not through
        assert await body_of(stream) == body
        assert repr(connection) == "<Connection idle>"
        assert await call(transport, get()) == body


async def test_a_fault_comes_after_what_was_delivered_and_stays(connect: Connect) -> None:
    good = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n"
    async with WireUpstream(good + b"zz\r\nbad") as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(get())
        assert await stream.read() == b"good"
        for _ in range(2):
            with pytest.raises(ProtocolViolation):
                await stream.read()
        assert transport.pool.in_use == 0
        await upstream.closed(1)


async def test_a_reply_before_the_request_is_a_violation(connect: Connect) -> None:
    async with WireUpstream(greeting=b"220 mail.example ready\r\n") as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ProtocolViolation):
            await transport.send(post())
        assert (transport.pool.in_use, transport.pool.idle) == (0, 0)


async def test_a_cap_of_the_head_may_be_set(connect: Connect) -> None:
    large = reply(headers=[(b"X", b"a" * 5_000)])
    async with WireUpstream(large) as upstream:
        with pytest.raises(ProtocolViolation, match="more than 4096 bytes"):
            await connect(upstream.url, max_head_bytes=4096).send(get())
        assert await call(connect(upstream.url), get()) == b""


async def test_a_large_body_behind_a_small_head_is_under_the_cap(connect: Connect) -> None:
    async with WireUpstream(reply(body=bytes(1_000_000))) as upstream:
        assert len(await call(connect(upstream.url, max_head_bytes=1024), get())) == 1_000_000


class Taker:
    """A sink that keeps what it is given, and refuses more after `count` pieces."""

    def __init__(self, count: int = 1_000_000) -> None:
        self.pieces: list[bytes] = []
        self.left = count

    def __call__(self, piece: bytes) -> bool:
        self.pieces.append(piece)
        self.left -= 1
        return self.left > 0


class Steps:
    """A script of chunks, each sent when the one before has arrived."""

    def __init__(self, *pieces: bytes) -> None:
        self.gates = [asyncio.Event() for _ in range(len(pieces) + 1)]
        head, *chunks = chunked(pieces)
        self.script: list[Step] = [head]
        for gate, piece in zip(self.gates, chunks, strict=True):
            self.script += [Wait(gate), piece]

    def let(self, count: int) -> None:
        for gate in self.gates[:count]:
            gate.set()


async def test_a_pump_gets_every_piece_as_it_comes_and_returns_at_the_end(connect: Connect) -> None:
    steps, sink = Steps(b"a", b"b", b"c"), Taker()
    async with WireUpstream(steps.script) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(get())
        pumping = asyncio.create_task(stream.pump(sink))
        for count in (1, 2, 3):
            steps.let(count)
            await until(lambda: len(sink.pieces) == count)  # noqa: B023 - awaited within the round
        assert not pumping.done()
        steps.let(4)
        await pumping
        assert (sink.pieces, await stream.read()) == ([b"a", b"b", b"c"], b"")
        assert transport.pool.idle == 1


async def test_a_sink_that_is_sated_gets_no_more_and_nothing_is_lost(connect: Connect) -> None:
    steps, sink = Steps(b"a", b"b", b"c"), Taker(1)
    async with WireUpstream(steps.script) as upstream:
        transport = connect(upstream.url)
        stream = await transport.send(get())
        pumping = asyncio.create_task(stream.pump(sink))
        await until(lambda: stream.waiter is not None)
        steps.let(1)
        await pumping
        steps.let(4)
        await until(lambda: transport.pool.idle == 1)
        assert sink.pieces == [b"a"]
        sink.left = 1
        await stream.pump(sink)
        assert (sink.pieces, await stream.read()) == ([b"a", b"bc"], b"")


async def test_what_a_sink_raises_is_raised_where_it_pumps(connect: Connect) -> None:
    steps = Steps(b"a", b"b")

    def burst(_: bytes) -> bool:
        raise ClientLeft

    async with WireUpstream(steps.script) as upstream:
        stream = await connect(upstream.url).send(get())
        pumping = asyncio.create_task(stream.pump(burst))
        await until(lambda: stream.waiter is not None)
        steps.let(1)
        with pytest.raises(ClientLeft):
            await pumping
        steps.let(3)
        assert await body_of(stream) == b"b"


async def test_a_cancelled_pump_loses_nothing(connect: Connect) -> None:
    steps, sink = Steps(b"a", b"b"), Taker()
    async with WireUpstream(steps.script) as upstream:
        stream = await connect(upstream.url).send(get())
        pumping = asyncio.create_task(stream.pump(sink))
        steps.let(1)
        await until(lambda: sink.pieces == [b"a"])
        pumping.cancel()
        steps.let(3)
        with pytest.raises(asyncio.CancelledError):
            await pumping
        assert await body_of(stream) == b"b"


@pytest.mark.parametrize("ending", [Fin(), Reset()])
async def test_a_pump_tells_of_a_break_after_what_had_come(connect: Connect, ending: Fin | Reset) -> None:
    sink = Taker()
    async with WireUpstream([*chunked([b"a"], end=False), ending]) as upstream:
        stream = await connect(upstream.url).send(get())
        with pytest.raises(ConnectionBroken):
            await stream.pump(sink)
        assert sink.pieces == [b"a"]


async def test_a_reply_may_be_closed_from_within_its_sink(connect: Connect) -> None:
    steps = Steps(b"a", b"b")
    async with WireUpstream(steps.script) as upstream:
        stream = await connect(upstream.url).send(get())

        def leave(_: bytes) -> bool:
            stream.close()
            return True

        pumping = asyncio.create_task(stream.pump(leave))
        await until(lambda: stream.waiter is not None)
        steps.let(1)
        with pytest.raises(ConnectionBroken):
            await pumping
        await upstream.closed(1)
