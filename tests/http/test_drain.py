"""SIGTERM: not ready and not listening at once, open calls finish, stuck ones are cut in-band at the deadline.

Nobody is refused who has got through: a balancer that is told 503 hands it to its client, but one whose connection is
refused tries the next node.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest

from gateway.relay.plain import MAX_RECEIPT_BYTES
from tests.faults.face import (
    CHAT,
    RESPONSES,
    TRANSPORTS,
    Answer,
    Client,
    ask,
    connected,
    post,
    request,
    until_pool_is,
)
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.patience import Stopwatch
from tests.support.wire import Stall, Step, Wait, WireRequest, WireUpstream, reply, sse

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)
READY = request("GET", "/readyz")


@asynccontextmanager
async def opened(port: int, count: int) -> AsyncIterator[list[Client]]:
    """So many chat streams, each of which has sent its first event."""
    async with many(port, count) as clients:
        for client in clients:
            client.send(post(CHAT, {"stream": True}))
        for client in clients:
            await client.head()
            assert await client.chunk() == b'data: {"n": 1}\n\n'
        yield clients


@asynccontextmanager
async def many(port: int, count: int) -> AsyncIterator[list[Client]]:
    """So many connections."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(port)) for _ in range(count)]


async def rest_of(client: Client) -> bytes:
    pieces = []
    async with asyncio.timeout(5):
        while piece := await client.chunk():
            pieces.append(piece)
    return b"".join(pieces)


async def until_refused(port: int) -> None:
    """Look whether it listens, as a balancer does, until it does not.

    Who looks at the moment at which it stops hears nothing, and asks again a second later.
    """
    async with asyncio.timeout(4):
        while True:
            try:
                async with connected(port):
                    pass
            except (ConnectionRefusedError, ConnectionResetError):  # the latter if it stops at that moment
                return


def says_close(answer: Answer) -> bool:
    return answer.header("connection") == "close"


def ends_when(go: asyncio.Event) -> Any:
    """A script: one event, and when `go` is set, the end."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        steps = [step for step in sse([{"n": 1}, "[DONE]"]) if isinstance(step, bytes)]
        writer.write(b"".join(steps[:2]))
        await go.wait()
        writer.write(b"".join(steps[2:]))

    return script


@BOTH
async def test_open_streams_finish_while_new_connections_are_refused(transport: str) -> None:
    go = asyncio.Event()
    async with WireUpstream(ends_when(go)) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            async with opened(gateway.port, 30) as clients:
                assert (await ask(gateway.port, READY)).status == 200
                gateway.stop()
                await until_refused(gateway.port)
                go.set()
                assert [await rest_of(client) for client in clients] == [b"data: [DONE]\n\n"] * 30
            records = await gateway.recorded(30)
    assert {record.outcome for record in records} == {"done"}
    assert len(upstream.requests) == 30


async def test_idle_connections_are_closed_while_streams_go_on() -> None:
    go = asyncio.Event()
    async with WireUpstream(ends_when(go)) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with opened(gateway.port, 1) as (client,), many(gateway.port, 2) as (used, unused):
                used.send(READY)
                assert (await used.answer()).status == 200
                gateway.stop()
                assert await used.ended(within_s=1) == b""
                assert await unused.ended(within_s=1) == b""
                go.set()
                assert await rest_of(client) == b"data: [DONE]\n\n"


async def test_replies_that_have_not_begun_say_that_they_are_the_last_but_for_streams() -> None:
    go = asyncio.Event()
    events = [step for step in sse([{"n": 1}, "[DONE]"]) if isinstance(step, bytes)]
    async with WireUpstream([Wait(go), OK], [Wait(go), *events]) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with many(gateway.port, 2) as (plain, stream):
                for number, client in enumerate((plain, stream), 1):
                    client.send(post(CHAT, {"stream": client is stream}))
                    await upstream.received(number)
                gateway.stop()
                await until_refused(gateway.port)
                go.set()
                for client in (plain, stream):
                    answer = await client.answer()
                    assert (answer.status, answer.end) == (200, "complete")
                    assert says_close(answer) == (client is plain)
                    assert await client.ended(within_s=1) == b""


async def test_a_request_that_had_begun_to_come_is_served_and_told_that_the_connection_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.http.server._LAST_REQUESTS_S", 5.0)
    data = post(CHAT, {})
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with many(gateway.port, 3) as (fresh, kept, probe):
                kept.send(data)
                assert not says_close(await kept.answer())
                fresh.send(data[:50])
                kept.send(data[:50])
                probe.send(READY[:10])
                await ask(gateway.port, READY)  # by now what was sent has been read
                gateway.stop()
                await until_refused(gateway.port)
                probe.send(READY[10:])
                not_ready = await probe.answer()
                assert (not_ready.status, not_ready.error["code"], says_close(not_ready)) == (503, "draining", True)
                for client in (fresh, kept):
                    client.send(data[50:])
                    answer = await client.answer()
                    assert (answer.status, says_close(answer)) == (200, True)
                    assert await client.ended(within_s=1) == b""


async def test_a_request_that_comes_late_is_served_on_a_connection_that_is_still_there() -> None:
    async with WireUpstream([*sse([{"n": 1}], end=False), Stall()], OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with opened(gateway.port, 1) as (stream,), many(gateway.port, 2) as (late, idle):
                late.send(post(CHAT, {})[:50])
                await ask(gateway.port, READY)  # by now what was sent has been read
                gateway.stop()
                await idle.ended()
                late.send(post(CHAT, {})[50:])
                answer = await late.answer()
                assert (answer.status, says_close(answer)) == (200, True)
                stream.leave()


async def test_a_request_that_comes_after_the_deadline_is_refused() -> None:
    stuck = [*sse([{"n": 1}], end=False), Stall()]
    endless = [*sse([b"data: " + b"x" * 1024 * 1024 + b"\n\n"] * 32, end=False), Stall()]
    async with WireUpstream(stuck, endless) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"drain_s": 0.3}) as gateway:
            async with opened(gateway.port, 1) as (cut,), many(gateway.port, 2) as (slow, late):
                slow.send(post(CHAT, {"stream": True}))
                await slow.head()  # it reads no more, so it cannot be told at once that its call is cut
                late.send(post(CHAT, {})[:50])
                await ask(gateway.port, READY)  # by now what was sent has been read
                gateway.stop()
                assert b'"code":"draining"' in await rest_of(cut)
                late.send(post(CHAT, {})[50:])
                refused = await late.answer()
                assert (refused.status, refused.error["code"], says_close(refused)) == (503, "draining", True)
                assert refused.header("retry-after") == "1"
                slow.leave()
    assert len(upstream.requests) == 2


async def test_calls_that_wait_to_be_let_in_when_it_stops_listening_are_served() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway, _occupied(gateway) as go_on:
            async with many(gateway.port, 20) as clients:
                for client in clients:
                    client.send(post(CHAT, {}))
                gateway.stop()
                go_on.set()
                answers = [await client.answer() for client in clients]
    assert {(answer.status, says_close(answer)) for answer in answers} == {(200, True)}


@contextmanager
def _occupied(gateway: RunningGateway) -> Iterator[threading.Event]:
    """The gateway's loop does nothing until the event is set."""
    go_on = threading.Event()
    assert gateway.loop is not None
    gateway.loop.call_soon_threadsafe(go_on.wait, 10)
    try:
        yield go_on
    finally:
        go_on.set()


# A balancer that polls


async def test_during_the_delay_it_is_not_ready_yet_serves_and_sends_its_clients_elsewhere() -> None:
    go = asyncio.Event()
    async with WireUpstream(ends_when(go), OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"drain_delay_s": 2}) as gateway:
            async with opened(gateway.port, 1) as (stream,), many(gateway.port, 2) as (kept, idle):
                kept.send(post(CHAT, {}))
                assert not says_close(await kept.answer())
                watch = Stopwatch()
                gateway.stop()
                not_ready = await ask(gateway.port, READY)
                assert (not_ready.status, not_ready.error["code"]) == (503, "draining")
                for answer in (await _again(kept), await ask(gateway.port, post(CHAT, {}))):
                    assert (answer.status, says_close(answer)) == (200, True)
                assert await idle.ended() == b""
                assert watch.took().is_between(2, 3)
                await until_refused(gateway.port)
                go.set()
                assert await rest_of(stream) == b"data: [DONE]\n\n"


async def _again(client: Client) -> Answer:
    client.send(post(CHAT, {}))
    return await client.answer()


# The deadline


@BOTH
async def test_stuck_calls_are_cut_at_the_deadline_with_an_honest_error(transport: str) -> None:
    stuck = [*sse([{"n": 1}], end=False), Stall()]
    too_large_to_hold = str(2 * MAX_RECEIPT_BYTES).encode()
    plain: list[Step] = [reply(200, [(b"Content-Length", too_large_to_hold)], b"half"), Stall()]
    async with WireUpstream(stuck, stuck, plain, [Stall()]) as upstream:
        section = {"server": {"drain_s": 0.5}, "upstream": {"transport": transport}}
        with running_gateway(f"{upstream.url}/v1", **section) as gateway:
            async with many(gateway.port, 4) as (chat, responses, half, waiting):
                for number, (client, path) in enumerate(
                    ((chat, CHAT), (responses, RESPONSES), (half, CHAT), (waiting, CHAT)), 1
                ):
                    client.send(post(path, {"stream": True}))
                    await upstream.received(number)
                for client in (chat, responses):
                    await client.head()
                    await client.chunk()
                await half.head()
                watch = Stopwatch()
                gateway.stop()
                in_band = await rest_of(chat)
                assert watch.took().is_between(0.4, 1.5)
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
                watch = Stopwatch()
                gateway.stop()
                await idle.ended(within_s=2)
                assert watch.took().running_s < 1


async def test_after_the_drain_the_transport_is_closed() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            await ask(gateway.port, post(CHAT, {}))
            await until_pool_is(gateway, (0, 1))
        await upstream.closed(1)
