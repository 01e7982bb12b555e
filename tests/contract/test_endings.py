"""Calls that end badly: who is told what, what is tried again, and that nothing is left behind."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.upstream.transport import (
    ConnectFailed,
    ConnectionBroken,
    ProtocolViolation,
    Transport,
    UpstreamRequest,
)
from tests.contract.transports import Connect, call, get, load, post
from tests.support.link import Faults, FaultyLink
from tests.support.ports import free_port
from tests.support.wire import (
    Fin,
    Reset,
    Script,
    Stall,
    Wait,
    WireRequest,
    WireUpstream,
    chunk,
    chunked,
    reply,
    reset,
)

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


async def test_a_refused_connection_is_a_failure_to_connect(connect: Connect) -> None:
    transport = connect(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConnectFailed, match=r"refused|Connect call failed"):
        await transport.send(post(b"{}"))
    assert load(transport) == (0, 0)


async def test_a_name_that_does_not_exist_is_a_failure_to_connect(connect: Connect) -> None:
    transport = connect("http://does-not-exist.invalid")
    with pytest.raises(ConnectFailed):
        await transport.send(get())
    assert load(transport) == (0, 0)


@pytest.mark.parametrize(
    "script",
    [
        [Fin()],
        [Reset()],
        [b"HTTP/1.1 2", Fin()],
        [b"HTTP/1.1 200 OK\r\nX: y\r\n", Fin()],
        [b"HTTP/1.1 200 OK\r\nX: y\r\n", Reset()],
        [LONG, Fin()],
        [LONG + b"some", Fin()],
        [LONG + b"some", Reset()],
        [HEAD, Fin()],
        [HEAD, chunk(b"some"), Fin()],
        [HEAD, b"5\r\nso", Fin()],
        [HEAD, chunk(b"some"), Reset()],
        [HEAD, chunk(b"some"), b"0\r\n", Fin()],
        [HEAD, chunk(b"some"), b"0\r\nX-Trailer: t\r\n", Fin()],
        [b"HTTP/1.1 200 OK\r\n\r\nno end", Reset()],
    ],
)
async def test_a_reply_that_breaks_off_is_broken_and_asked_for_once(connect: Connect, script: Script) -> None:
    async with WireUpstream(script) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ConnectionBroken):
            await call(transport, post(b"{}"))
        assert load(transport) == (0, 0)
        await upstream.closed(1)
        assert len(upstream.requests) == 1


async def test_what_came_before_a_break_is_handed_out_and_the_failure_stays(connect: Connect) -> None:
    go = asyncio.Event()
    async with WireUpstream([HEAD, chunk(b"some"), Wait(go), Reset()]) as upstream:
        stream = await connect(upstream.url).send(get())
        assert await stream.read() == b"some"
        go.set()
        for _ in range(2):
            with pytest.raises(ConnectionBroken):
                await stream.read()
        stream.close()
        stream.close()


async def test_a_reset_at_any_byte_gives_an_exact_prefix_and_never_an_end(connect: Connect) -> None:
    script = chunked([b"alpha", b"beta"])
    whole_bytes = sum(len(step) for step in script if isinstance(step, bytes))
    async with WireUpstream(script) as upstream, FaultyLink("127.0.0.1", upstream.port) as link:
        transport = connect(link.url)
        for at in range(whole_bytes):
            link.down = Faults(reset_after=at)
            assert b"alphabeta".startswith(await prefix_until_broken(transport))
        assert load(transport) == (0, 0)
        assert len(upstream.requests) == whole_bytes


async def prefix_until_broken(transport: Transport) -> bytes:
    body = b""
    try:
        stream = await transport.send(post(b"{}"))
        while piece := await stream.read():
            body += piece
    except ConnectionBroken:
        return body
    return pytest.fail("the reply looked complete")


# Retries


async def warm(transport: Transport) -> None:
    await call(transport, get())
    assert load(transport) == (0, 1)


async def closes_on_next(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: WireRequest) -> None:
    """Answer, then close the moment the next request's first byte is there."""
    writer.write(reply(body=b"warm"))
    await reader.read(1)
    reset(writer)


async def test_a_post_that_met_a_closing_connection_is_not_sent_again(connect: Connect) -> None:
    async with WireUpstream(closes_on_next, reply(body=b"second")) as upstream:
        transport = connect(upstream.url)
        await warm(transport)
        with pytest.raises(ConnectionBroken):
            await transport.send(post(b"{}"))
        assert load(transport) == (0, 0)
        assert [request.method for request in upstream.requests] == [b"GET"]
        assert len(upstream.connections) == 1


async def test_a_get_that_met_a_closing_connection_is_sent_once_more_on_a_new_one(connect: Connect) -> None:
    async with WireUpstream(closes_on_next, reply(body=b"second")) as upstream:
        transport = connect(upstream.url)
        await warm(transport)
        assert (await call(transport, get()))[2] == b"second"
        assert len(upstream.connections) == 2


async def test_a_get_is_not_sent_again_once_its_reply_has_begun(connect: Connect) -> None:
    async with WireUpstream(reply(), [b"HTTP/1.1 200", Fin()], reply()) as upstream:
        transport = connect(upstream.url)
        await warm(transport)
        with pytest.raises(ConnectionBroken):
            await transport.send(get())
        assert len(upstream.requests) == 2


async def test_a_get_that_breaks_on_a_fresh_connection_is_not_sent_again(connect: Connect) -> None:
    async with WireUpstream([Fin()], reply()) as upstream:
        with pytest.raises(ConnectionBroken):
            await connect(upstream.url).send(get())
        assert len(upstream.connections) == 1


@pytest.mark.parametrize("request_of", [get, lambda: post(b"{}")])
async def test_a_connection_found_closed_is_replaced_before_anything_is_sent(
    connect: Connect, request_of: Callable[[], UpstreamRequest]
) -> None:
    async with WireUpstream(reply(body=b"ok")) as upstream:
        transport = connect(upstream.url)
        await warm(transport)
        upstream.drop_all()
        await upstream.closed(1)
        assert (await call(transport, request_of()))[2] == b"ok"
        assert len(upstream.requests) == 2


async def test_bytes_sent_while_idle_are_not_the_next_reply(connect: Connect) -> None:
    go = asyncio.Event()
    sent = asyncio.Event()

    async def unasked(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        writer.write(reply(body=b"asked"))
        await go.wait()
        writer.write(reply(body=b"unasked"))
        await writer.drain()
        sent.set()

    async with WireUpstream(unasked, reply(body=b"true")) as upstream:
        transport = connect(upstream.url)
        await warm(transport)
        go.set()
        await sent.wait()
        await until_no_connection_is_idle(transport)
        assert (await call(transport, post(b"{}")))[2] == b"true"
        await upstream.closed(1)


async def until_no_connection_is_idle(transport: Transport) -> None:
    async with asyncio.timeout(1):
        while load(transport)[1]:  # noqa: ASYNC110 - a transport has no event for it
            await asyncio.sleep(0)


# Request bodies that go wrong


async def fails_midway() -> AsyncIterator[bytes]:
    yield b"some"
    raise LookupError("the client left")


@pytest.mark.parametrize("framing", [[], [(b"Content-Length", b"100")]])
async def test_a_body_that_fails_raises_its_own_error_and_drops_the_connection(
    connect: Connect, framing: list[tuple[bytes, bytes]]
) -> None:
    async with WireUpstream([Stall()], body_first=False) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(LookupError):
            await transport.send(post(fails_midway(), framing))
        assert load(transport) == (0, 0)
        await upstream.closed(1, within_s=1)


async def one_piece(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


@pytest.mark.parametrize("length", [b"2", b"100"])
async def test_a_body_that_is_not_as_long_as_stated_is_refused(connect: Connect, length: bytes) -> None:
    async with WireUpstream([Stall()], body_first=False) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ValueError, match="request"):
            await transport.send(post(one_piece(b"some"), [(b"Content-Length", length)]))
        assert load(transport) == (0, 0)


@pytest.mark.parametrize(
    "headers",
    [[(b"X", b"a\r\nY: b")], [(b"X", b"a\nY: b")], [(b"X", b"a\rb")], [(b"X\r\nY", b"a")]],
)
async def test_a_header_that_would_break_the_head_is_refused(
    connect: Connect, headers: list[tuple[bytes, bytes]]
) -> None:
    async with WireUpstream() as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ValueError, match="request"):
            await transport.send(get(headers=headers))
        assert upstream.requests == []


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: WireRequest) -> None:
    writer.write(reply(413, body=b"too large", reason=b"Content Too Large"))
    await writer.drain()
    while await reader.read(65_536):
        pass


async def for_ever() -> AsyncIterator[bytes]:
    while True:
        yield b"piece"
        await asyncio.sleep(0)


async def one_piece_and_no_end() -> AsyncIterator[bytes]:
    yield b"piece"
    await asyncio.Event().wait()


@pytest.mark.parametrize("body", [lambda: bytes(20_000_000), for_ever, one_piece_and_no_end])
async def test_an_early_reply_ends_the_sending_and_the_connection(
    connect: Connect, body: Callable[[], bytes | AsyncIterator[bytes]]
) -> None:
    async with WireUpstream(refuse, body_first=False) as upstream:
        transport = connect(upstream.url)
        assert (await call(transport, post(body())))[::2] == (413, b"too large")
        assert load(transport) == (0, 0)
        await upstream.closed(1, within_s=1)


async def test_an_early_reply_is_read_though_its_connection_is_broken_by_then(connect: Connect) -> None:
    is_closed = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse_and_break() -> None:
        connection, _ = listener.accept()
        connection.recv(1)
        connection.sendall(reply(413, body=b"too large", reason=b"Content Too Large"))
        connection.close()  # with more of the request unread, which is a reset
        is_closed.set()

    async def body() -> AsyncIterator[bytes]:
        yield b"piece"
        assert is_closed.wait(5), "nothing is read meanwhile, on purpose"
        yield b"piece"
        yield b"piece"

    server = threading.Thread(target=refuse_and_break)
    server.start()
    try:
        transport = connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert (await call(transport, post(body())))[::2] == (413, b"too large")
        assert load(transport) == (0, 0)
    finally:
        server.join()
        listener.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 100 Continue\r\n\r\n" * 17, b"garbage"])
async def test_an_early_reply_that_is_none_ends_the_sending_too(connect: Connect, answer: bytes) -> None:
    async with WireUpstream([answer, Stall()], body_first=False) as upstream:
        transport = connect(upstream.url)
        with pytest.raises(ProtocolViolation):
            await transport.send(post(for_ever()))
        assert load(transport) == (0, 0)
        await upstream.closed(1, within_s=1)


async def test_a_call_cancelled_while_its_body_is_awaited_leaves_nothing(connect: Connect) -> None:
    async with WireUpstream([Stall()], body_first=False) as upstream:
        transport = connect(upstream.url)
        task = asyncio.create_task(call(transport, post(one_piece_and_no_end())))
        await upstream.received(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert load(transport) == (0, 0)
        await upstream.closed(1, within_s=1)


async def test_an_interim_reply_does_not_end_the_sending(connect: Connect) -> None:
    async def continue_then_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: WireRequest) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(5_000_000)
        writer.write(reply(body=b"all"))

    async with WireUpstream(continue_then_read, body_first=False) as upstream:
        assert (await call(connect(upstream.url), post(bytes(5_000_000))))[2] == b"all"
