"""SIGTERM: not ready at once, open calls finish, stuck ones are cut in-band at the deadline, exit status 0."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.faults.face import (
    CHAT,
    RESPONSES,
    TRANSPORTS,
    Answer,
    Client,
    ask,
    connected,
    pool_load,
    post,
    request,
)
from tests.faults.process import serving
from tests.limits.servers import shared_server
from tests.support.gateway import running_gateway
from tests.support.wire import Stall, Step, WireRequest, WireUpstream, reply, sse

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)
READY = request("GET", "/readyz")


@asynccontextmanager
async def opened(port: int, count: int) -> AsyncIterator[list[Client]]:
    """So many chat streams, each of which has sent its first event."""
    async with _many(port, count) as clients:
        for client in clients:
            client.send(post(CHAT, {"stream": True}))
        for client in clients:
            await client.head()
            assert await client.chunk() == b'data: {"n": 1}\n\n'
        yield clients


@asynccontextmanager
async def _many(port: int, count: int) -> AsyncIterator[list[Client]]:
    if count == 0:
        yield []
        return
    async with connected(port) as first, _many(port, count - 1) as rest:
        yield [first, *rest]


async def rest_of(client: Client) -> bytes:
    pieces = []
    async with asyncio.timeout(5):
        while piece := await client.chunk():
            pieces.append(piece)
    return b"".join(pieces)


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def until_refused(port: int) -> Answer:
    """The answer of /readyz once it is no longer 200."""
    async with asyncio.timeout(1):
        while (answer := await ask(port, READY)).status == 200:
            pass
    return answer


def ends_when(go: asyncio.Event) -> Any:
    """A script: one event, and when `go` is set, the end."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        steps = [step for step in sse([{"n": 1}, "[DONE]"]) if isinstance(step, bytes)]
        writer.write(b"".join(steps[:2]))
        await go.wait()
        writer.write(b"".join(steps[2:]))

    return script


@BOTH
async def test_open_streams_finish_while_readiness_and_new_calls_are_503(transport: str) -> None:
    go = asyncio.Event()
    async with WireUpstream(ends_when(go)) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            async with opened(gateway.port, 30) as clients:
                assert (await ask(gateway.port, READY)).status == 200
                gateway.stop()
                not_ready = await until_refused(gateway.port)
                assert (not_ready.status, not_ready.error["code"]) == (503, "draining")
                refused = await ask(gateway.port, post(CHAT, {}))
                assert (refused.status, refused.error["code"]) == (503, "draining")
                assert refused.header("retry-after") == "1"
                assert (await ask(gateway.port, request("GET", "/healthz"))).status == 200
                go.set()
                assert [await rest_of(client) for client in clients] == [b"data: [DONE]\n\n"] * 30
            records = await gateway.recorded(31)
    assert sorted({record.outcome for record in records}) == ["done", "drained"]
    assert len(upstream.requests) == 30


@BOTH
async def test_stuck_calls_are_cut_at_the_deadline_with_an_honest_error(transport: str) -> None:
    stuck = [*sse([{"n": 1}], end=False), Stall()]
    plain: list[Step] = [reply(200, [(b"Content-Length", b"9")], b"half"), Stall()]
    async with WireUpstream(stuck, stuck, plain, [Stall()]) as upstream:
        section = {"server": {"drain_s": 0.5}, "upstream": {"transport": transport}}
        with running_gateway(f"{upstream.url}/v1", **section) as gateway:
            async with _many(gateway.port, 4) as (chat, responses, half, waiting):
                for number, (client, path) in enumerate(
                    ((chat, CHAT), (responses, RESPONSES), (half, CHAT), (waiting, CHAT)), 1
                ):
                    client.send(post(path, {"stream": True}))
                    await upstream.received(number)
                for client in (chat, responses):
                    await client.head()
                    await client.chunk()
                await half.head()
                began_s = now_s()
                gateway.stop()
                in_band = await rest_of(chat)
                assert 0.4 < now_s() - began_s < 1.5
                assert in_band.startswith(b'data: {"error":{"message":')
                assert b'"code":"draining"' in in_band
                assert b"[DONE]" not in in_band
                assert (await rest_of(responses)).startswith(b'event: error\ndata: {"type":"error","code":"draining"')
                assert (await half.ended()) == b"half"
                refused = await waiting.answer()
                assert (refused.status, refused.error["code"]) == (503, "draining")
            records = await gateway.recorded(4)
            await upstream.closed(4)
    assert {record.outcome for record in records} == {"drained"}


async def test_a_kept_alive_connection_does_not_hold_the_shutdown_up() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as idle:
                idle.send(post(CHAT, {}))
                assert (await idle.answer()).status == 200
                began_s = now_s()
                gateway.stop()
                await idle.ended(within_s=2)
                assert now_s() - began_s < 1


async def test_after_the_drain_the_transport_is_closed() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            await ask(gateway.port, post(CHAT, {}))
            assert pool_load(gateway) == (0, 1)
        await upstream.closed(1)


# As a process


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_process_that_is_told_to_stop_finishes_its_streams_and_exits_with_0(workers: int) -> None:
    go = asyncio.Event()
    url = shared_server("valkey").url
    async with serving(ends_when(go), arguments=("--workers", str(workers)), GATEWAY_REDIS_URL=url) as running:
        async with opened(running.port, 12) as clients:
            running.terminate()
            refused = await _refusal(running.port)
            assert refused is None or refused.error["code"] == "draining"
            go.set()
            assert [await rest_of(client) for client in clients] == [b"data: [DONE]\n\n"] * 12
        assert await running.status() == 0


async def _refusal(port: int) -> Answer | None:
    """How a new call is refused by now; None if the process takes no more connections."""
    try:
        return await until_refused(port)
    except ConnectionError:
        return None


async def test_a_process_cuts_stuck_streams_at_the_deadline_and_exits_with_0() -> None:
    stuck = [*sse([{"n": 1}], end=False), Stall()]
    async with serving(stuck, GATEWAY_SERVER_DRAIN_S="0.5") as running:
        async with opened(running.port, 3) as clients:
            running.terminate()
            for client in clients:
                assert b'"code":"draining"' in await rest_of(client)
        assert await running.status() == 0
