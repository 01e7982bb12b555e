"""Upstream stalls in each phase: the right timeout, in time, each under a label of its own in /metrics."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from tests.faults.face import CHAT, TRANSPORTS, Answer, Client, ask, connected, metric, post, until_pool_is
from tests.faults.process import GatewayProcess, serving
from tests.support.gateway import running_gateway
from tests.support.patience import Stopwatch, Took
from tests.support.wire import Script, Stall, Step, Wait, WireUpstream, chunked, reply, sse

LIMIT_S = 0.3
SLACK_S = 0.5
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)

PHASES: dict[str, tuple[str, list[Step], int]] = {
    "headers": ("first_byte_timeout_s", [Stall()], 504),
    "half a head": ("first_byte_timeout_s", [HEAD[:30], Stall()], 504),
    "first_byte": ("first_byte_timeout_s", [HEAD, Stall()], 504),
    "stream": ("idle_timeout_s", [*sse([{"n": 1}], end=False), Stall()], 200),
    "half an event": ("idle_timeout_s", [*sse([b'data: {"n"'], end=False), Stall()], 504),
    "total": ("total_timeout_s", [Stall()], 504),
    "total in a stream": ("total_timeout_s", [*sse([{"n": 1}], end=False), Stall()], 200),
}
LABELS = {"half a head": "headers", "half an event": "stream", "total in a stream": "total"}


async def _timed(port: int) -> tuple[Answer, Took]:
    watch = Stopwatch()
    answer = await ask(port, post(CHAT, {"stream": True}))
    return answer, watch.took()


@BOTH
@pytest.mark.parametrize("phase", PHASES)
async def test_a_stall_ends_in_time_with_the_right_error_and_label(phase: str, transport: str) -> None:
    setting, script, status = PHASES[phase]
    async with WireUpstream(script) as upstream:
        section: dict[str, Any] = {"transport": transport, setting: LIMIT_S}
        with running_gateway(f"{upstream.url}/v1", upstream=section) as gateway:
            answer, took = await _timed(gateway.port)
            label = f"timeout_{LABELS.get(phase, phase)}"
            assert await metric(gateway, "upstream_errors_total", kind=label) == 1
            record = (await gateway.recorded(1))[0]
            await upstream.closed(1)
            await until_pool_is(gateway, (0, 0))
    assert took.is_between(LIMIT_S - 0.05, LIMIT_S + SLACK_S)
    assert (answer.status, record.upstream_error) == (status, label)
    assert b'"code":"upstream_timeout"' in answer.body
    assert record.error == "upstream_timeout"
    assert len(upstream.requests) == 1


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port that takes no more connections: they neither succeed nor fail."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


@BOTH
async def test_a_connection_that_is_not_made_in_time_is_504(transport: str) -> None:
    section: dict[str, Any] = {"transport": transport, "connect_timeout_s": LIMIT_S}
    with full_backlog() as port, running_gateway(f"http://127.0.0.1:{port}/v1", upstream=section) as gateway:
        answer, took = await _timed(gateway.port)
        assert await metric(gateway, "upstream_errors_total", kind="timeout_connect") == 1
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert "safe to try again" in answer.error["message"]
    assert took.is_between(LIMIT_S - 0.05, LIMIT_S + SLACK_S)


@BOTH
async def test_a_stream_that_goes_on_is_not_cut_however_long_its_events_take(transport: str) -> None:
    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: Any) -> None:
        for step in sse([*({"n": number} for number in range(6)), "[DONE]"]):
            assert isinstance(step, bytes)
            writer.write(step)
            await writer.drain()
            await asyncio.sleep(LIMIT_S / 3)  # this is what a slow upstream does, not a wait for something

    async with WireUpstream(slow) as upstream:
        section: dict[str, Any] = {"transport": transport, "idle_timeout_s": LIMIT_S, "first_byte_timeout_s": LIMIT_S}
        with running_gateway(f"{upstream.url}/v1", upstream=section) as gateway:
            answer = await ask(gateway.port, post(CHAT, {"stream": True}))
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert answer.body.count(b"data:") == 7


@BOTH
async def test_a_short_reply_that_stalls_is_an_honest_error_in_time(transport: str) -> None:
    script = [*chunked([b"half"], end=False), Stall()]
    async with WireUpstream(script) as upstream:
        section: dict[str, Any] = {"transport": transport, "idle_timeout_s": LIMIT_S}
        with running_gateway(f"{upstream.url}/v1", upstream=section) as gateway:
            answer, took = await _timed(gateway.port)
            record = (await gateway.recorded(1))[0]
    assert (answer.status, answer.end) == (504, "complete")
    assert (record.outcome, record.upstream_error) == ("failed", "timeout_stream")
    assert took.running_s < LIMIT_S + SLACK_S


LIMITS = pytest.mark.parametrize("limits", [("FIRST_BYTE", "IDLE"), ("TOTAL",)])


@asynccontextmanager
async def one_process(
    script: Script, transport: str, limits: tuple[str, ...]
) -> AsyncIterator[tuple[GatewayProcess, Client]]:
    """A gateway whose time-outs of these kinds are a second."""
    seconds: dict[str, Any] = {f"GATEWAY_UPSTREAM_{kind}_TIMEOUT_S": "1" for kind in limits}
    async with (
        serving(script, GATEWAY_UPSTREAM_TRANSPORT=transport, **seconds) as gateway,
        connected(gateway.port) as client,
    ):
        yield gateway, client


@BOTH
@LIMITS
async def test_a_stream_that_went_on_while_the_gateway_stood_still_is_not_cut(
    limits: tuple[str, ...], transport: str
) -> None:
    go = asyncio.Event()
    head, first, *rest = sse([{"n": 1}, {"n": 2}, "[DONE]"])
    async with one_process([head, first, Wait(go), *rest], transport, limits) as (gateway, client):
        client.send(post(CHAT, {"stream": True}))
        await client.head()
        assert await client.chunk() == b'data: {"n": 1}\n\n'
        gateway.stand_still(1.3)
        go.set()
        pieces = [piece async for piece in _chunks(client)]
    assert b"".join(pieces) == b'data: {"n": 2}\n\ndata: [DONE]\n\n'


@BOTH
@LIMITS
async def test_a_reply_that_came_while_the_gateway_stood_still_is_not_late(
    limits: tuple[str, ...], transport: str
) -> None:
    go, asked = asyncio.Event(), asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: Any) -> None:
        asked.set()
        await go.wait()
        writer.write(reply(200, body=b'{"ok": true}'))

    async with one_process(answer, transport, limits) as (gateway, client):
        client.send(post(CHAT, {}))
        await asyncio.wait_for(asked.wait(), 5)
        gateway.stand_still(1.3)
        go.set()
        assert (await client.answer()).status == 200


async def _chunks(client: Client) -> AsyncIterator[bytes]:
    async with asyncio.timeout(5):
        while piece := await client.chunk():
            yield piece
