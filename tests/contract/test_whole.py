"""A body that is there in one piece may be had without waiting; whoever is told of one is told of all of it."""

import asyncio

import pytest

from gateway.upstream.native import NativeTransport
from gateway.upstream.transport import ConnectionBroken, Transport
from tests.contract.transports import Connect, get, post, read_all
from tests.support.wire import Fin, Script, Wait, WireUpstream, chunk, reply

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def knows(transport: Transport) -> bool:
    """Httpx2 tells of pieces alone."""
    return isinstance(transport, NativeTransport)


@pytest.mark.parametrize("script", [[HEAD + b"body"], [CHUNKED + chunk(b"body") + b"0\r\n\r\n"]])
async def test_what_came_with_its_head_is_there_and_can_be_read_all_the_same(connect: Connect, script: Script) -> None:
    async with WireUpstream(script, script) as upstream:
        transport = connect(upstream.url)
        for _ in range(2):
            answer = await transport.send(post(b"{}"))
            assert answer.whole() == answer.whole() == (b"body" if knows(transport) else None)
            assert await read_all(answer) == b"body"
            assert answer.whole() is None
            answer.close()


@pytest.mark.parametrize(
    ("first", "last"), [(HEAD + b"bo", b"dy"), (HEAD, b"body"), (CHUNKED + chunk(b"body"), b"0\r\n\r\n")]
)
async def test_what_is_still_to_come_is_not_there(connect: Connect, first: bytes, last: bytes) -> None:
    go_on = asyncio.Event()
    async with WireUpstream([first, Wait(go_on), last]) as upstream:
        answer = await connect(upstream.url).send(post(b"{}"))
        assert answer.whole() is None
        go_on.set()
        assert await read_all(answer) == b"body"
        assert answer.whole() is None


async def test_nor_is_a_body_that_broke_off(connect: Connect) -> None:
    async with WireUpstream([HEAD + b"bod", Fin()]) as upstream:
        answer = await connect(upstream.url).send(post(b"{}"))
        await asyncio.wait_for(upstream.closed(1), 5)
        assert answer.whole() is None
        with pytest.raises(ConnectionBroken):
            await read_all(answer)


async def test_nor_is_a_body_of_nothing(connect: Connect) -> None:
    async with WireUpstream(reply(204)) as upstream:
        answer = await connect(upstream.url).send(get())
        assert answer.whole() is None
        assert await read_all(answer) == b""


async def test_nothing_is_there_once_it_was_closed(connect: Connect) -> None:
    async with WireUpstream([HEAD + b"body"]) as upstream:
        answer = await connect(upstream.url).send(post(b"{}"))
        answer.close()
        assert answer.whole() is None
