"""A connection whose client was not told that it ends: one more request may be on its way, and is served.

An event stream never says `Connection: close`, and what has begun cannot. nginx puts such a connection back into its
pool, and does not send a POST again that meets the end of one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.faults.face import CHAT, TRANSPORTS, Client, connected, post
from tests.http.test_drain import OK, ends_when, rest_of, says_close, until_refused
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.patience import Stopwatch
from tests.support.wire import Handler, Script, Stall, WireRequest, WireUpstream, reply, sse

STREAM = post(CHAT, {"stream": True})
DONE = b"data: [DONE]\n\n"
STUCK: Script = [*sse([{"n": 1}], end=False), Stall()]


@pytest.fixture
def is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    _be_patient(monkeypatch)


def _be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have gateways wait for one more request for as long as a busy machine may take to send it."""
    monkeypatch.setattr("gateway.http.server._LAST_REQUESTS_S", 5.0)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_that_meets_the_end_of_a_stream_is_served_and_told_that_the_connection_ends(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = asyncio.Event()
    async with WireUpstream(ends_when(go), OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            async with _streaming(gateway) as stream, connected(gateway.port) as idle:
                gateway.stop()
                await idle.ended()
                _be_patient(monkeypatch)
                go.set()
                assert await rest_of(stream) == DONE
                stream.send(post(CHAT, {}))
                answer = await stream.answer()
                assert (answer.status, says_close(answer)) == (200, True)
                assert await stream.ended(within_s=1) == b""


@pytest.mark.usefixtures("is_patient")
async def test_a_call_that_meets_the_end_of_a_reply_that_had_begun_is_served() -> None:
    go = asyncio.Event()
    async with WireUpstream(_in_two_parts(go), OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {}))
                await client.head()
                gateway.stop()
                await until_refused(gateway.port)
                go.set()
                assert await client.reader.readexactly(2 * _HALF_BYTES) == b"x" * 2 * _HALF_BYTES
                client.send(post(CHAT, {}))
                answer = await client.answer()
                assert (answer.status, says_close(answer)) == (200, True)


_HALF_BYTES = 4 * 1024 * 1024
"""More than the gateway holds of a reply before it lets any of it go."""


def _in_two_parts(go: asyncio.Event) -> Handler:
    """A script: half of a reply, and when `go` is set, the other."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        length = (b"Content-Length", str(2 * _HALF_BYTES).encode())
        writer.write(reply(200, [(b"Content-Type", b"application/json"), length], b"x" * _HALF_BYTES))
        await go.wait()
        writer.write(b"x" * _HALF_BYTES)

    return script


@pytest.mark.usefixtures("is_patient")
async def test_a_connection_that_only_carries_streams_ends_with_the_one_after_next() -> None:
    go = asyncio.Event()
    async with WireUpstream(ends_when(go)) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with _streaming(gateway) as stream:
                gateway.stop()
                await until_refused(gateway.port)
                go.set()
                assert await rest_of(stream) == DONE
                stream.send(STREAM)
                answer = await stream.answer()
                assert (answer.status, answer.end, says_close(answer)) == (200, "complete", False)
                watch = Stopwatch()
                assert await stream.ended() == b""
                assert watch.took().running_s < 1


async def test_a_connection_through_which_no_more_comes_is_closed_soon_though_other_streams_go_on() -> None:
    go = asyncio.Event()
    async with WireUpstream(ends_when(go), STUCK) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"drain_s": 5}) as gateway:
            async with _streaming(gateway) as short, _streaming(gateway) as long:
                gateway.stop()
                await until_refused(gateway.port)
                go.set()
                assert await rest_of(short) == DONE
                assert await short.ended(within_s=2) == b""
                long.leave()


async def test_a_stop_waits_no_longer_for_one_more_request_than_that_may_take() -> None:
    go = asyncio.Event()
    async with AsyncExitStack() as stack, WireUpstream(ends_when(go)) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            stream = await stack.enter_async_context(_streaming(gateway))
            gateway.stop()
            await until_refused(gateway.port)
            go.set()
            assert await rest_of(stream) == DONE
            watch = Stopwatch()
        assert watch.took().running_s < 2


@asynccontextmanager
async def _streaming(gateway: RunningGateway) -> AsyncIterator[Client]:
    """A chat stream that has sent its first event."""
    async with connected(gateway.port) as client:
        client.send(STREAM)
        await client.head()
        assert await client.chunk() == b'data: {"n": 1}\n\n'
        yield client
