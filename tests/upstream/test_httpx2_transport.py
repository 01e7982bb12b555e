"""What the httpx2 transport promises beyond the contract of all transports."""

import asyncio
import socket

from gateway.upstream.httpx2_socket import MAX_BUFFERED_BYTES, SocketStream
from gateway.upstream.httpx2_transport import Httpx2Transport
from gateway.upstream.origin import Origin
from gateway.upstream.transport import Timeouts
from tests.contract.transports import call, get
from tests.support.wire import Stall, WireUpstream, reply


async def test_its_repr_shows_where_to_and_how_many() -> None:
    async with WireUpstream(reply()) as upstream:
        transport = Httpx2Transport(Origin.from_url(upstream.url), Timeouts(), max_connections=2, ssl_context=None)
        await call(transport, get())
        assert repr(transport) == f"<Httpx2Transport {upstream.url}: 0 in use, 1 idle>"
        await transport.close()


async def test_small_writes_are_not_held_back() -> None:
    loop = asyncio.get_running_loop()
    async with WireUpstream() as upstream:
        _, stream = await loop.create_connection(SocketStream, "127.0.0.1", upstream.port)
        assert stream.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        stream.abort()


async def test_what_nobody_reads_is_bounded() -> None:
    loop = asyncio.get_running_loop()
    async with WireUpstream([bytes(20_000_000), Stall()]) as upstream:
        _, stream = await loop.create_connection(SocketStream, "127.0.0.1", upstream.port)
        await stream.write(b"GET / HTTP/1.1\r\n\r\n")
        assert len(await stream.read(1)) == 1
        before = -1
        while before != stream.unread_bytes:
            before = stream.unread_bytes
            await asyncio.sleep(0.02)
        assert MAX_BUFFERED_BYTES < before <= MAX_BUFFERED_BYTES + 256 * 1024  # asyncio takes 256 KiB at once
        stream.abort()


async def test_the_event_loop_is_never_waited_for_when_a_reply_is_closed() -> None:
    async with WireUpstream([reply(body=b"a" * 10)[:-5], Stall()]) as upstream:
        transport = Httpx2Transport(Origin.from_url(upstream.url), Timeouts(), max_connections=2, ssl_context=None)
        stream = await transport.send(get())
        assert await stream.read() == b"a" * 5
        stream.close()
        assert (transport.in_use, transport.idle) == (0, 0)
        await upstream.closed(1)
        await transport.close()
