"""The client leaves, in every phase of a call: upstream sees it within a second, and nothing is left open."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from gateway.call import CallRecord
from tests.faults.face import (
    AUTHORIZATION,
    CHAT,
    RESPONSES,
    TRANSPORTS,
    Client,
    ask,
    connected,
    post,
    request,
    until_pool_is,
)
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.wire import Script, Stall, Step, WireRequest, WireUpstream, chunk, reply, sse

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
LEAVE: list[Callable[[Client], None]] = [Client.leave, Client.reset]
HOW = pytest.mark.parametrize("leave", LEAVE, ids=["fin", "reset"])
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def leaving(
    transport: str, *scripts: Script, body_first: bool = True, **upstream_section: Any
) -> AsyncIterator[tuple[WireUpstream, RunningGateway, Client]]:
    """A client on the way to leave; at the end upstream has seen it within 1 s, and the pool is whole."""
    async with WireUpstream(*scripts, body_first=body_first) as upstream:
        section = {"transport": transport, **upstream_section}
        with running_gateway(f"{upstream.url}/v1", upstream=section) as gateway:
            async with connected(gateway.port) as client:
                yield upstream, gateway, client


async def assert_left(upstream: WireUpstream, gateway: RunningGateway) -> CallRecord:
    """Upstream's connection, if there was one, is closed in time, and the call is settled as left."""
    record = (await gateway.recorded(1, within_s=1))[0]
    await upstream.closed(len(upstream.connections), within_s=1)
    assert record.outcome == "client_left"
    assert record.error is None
    await until_pool_is(gateway, (0, 0))
    assert gateway.ask(lambda: len(gateway.app.proxy.open_calls)) == 0
    return record


@HOW
async def test_while_the_client_sends_its_body(transport: str, leave: Callable[[Client], None]) -> None:
    async with leaving(transport, OK) as (upstream, gateway, client):
        client.send(request("POST", CHAT, b'{"half', [AUTHORIZATION, ("Content-Length", "100")], length=False))
        await client.writer.drain()
        await _begun(gateway)
        leave(client)
        record = await assert_left(upstream, gateway)
    assert record.status == 0
    assert not upstream.requests


@HOW
async def test_while_the_client_sends_an_upload(transport: str, leave: Callable[[Client], None]) -> None:
    async with leaving(transport, [Stall()], body_first=False) as (upstream, gateway, client):
        fields = [AUTHORIZATION, ("Content-Type", "multipart/form-data; boundary=b"), ("Content-Length", "1000000")]
        client.send(request("POST", "/v1/files", headers=fields) + b"x" * 1000)
        await upstream.received(1)
        leave(client)
        await assert_left(upstream, gateway)


@HOW
@pytest.mark.parametrize("kilobytes", [100, 300, 400, 1500])
async def test_after_a_long_request_before_upstream_has_answered(
    transport: str, leave: Callable[[Client], None], kilobytes: int
) -> None:
    async with leaving(transport, [Stall()]) as (upstream, gateway, client):
        client.send(post(CHAT, {"padding": "x" * kilobytes * 1000}))
        await upstream.received(1)
        leave(client)
        assert (await assert_left(upstream, gateway)).status == 0


async def test_while_upstream_takes_nothing_of_a_large_upload(transport: str) -> None:
    async with leaving(transport, [Stall()], body_first=False) as (upstream, gateway, client):
        fields = [AUTHORIZATION, ("Content-Type", "multipart/form-data; boundary=b"), ("Content-Length", "30000000")]
        client.send(request("POST", "/v1/files", headers=fields) + bytes(20_000_000))
        await upstream.received(1)
        await _unread(gateway)
        client.reset()  # an end in order would come behind all that nobody takes
        assert (await gateway.recorded(1, within_s=1))[0].outcome == "client_left"
        await until_pool_is(gateway, (0, 0))


@HOW
async def test_behind_another_large_request(transport: str, leave: Callable[[Client], None]) -> None:
    async with leaving(transport, [Stall()]) as (upstream, gateway, client):
        client.send(post(CHAT, {}))
        await upstream.received(1)
        client.send(post(CHAT, {"padding": "x" * 150_000}))
        await _unread(gateway)
        leave(client)
        await assert_left(upstream, gateway)


async def _unread(gateway: RunningGateway) -> None:
    """Return when the gateway reads no more of its client."""
    connections = cast("set[Any]", gateway._server.server_state.connections)
    async with asyncio.timeout(5):
        while not gateway.ask(lambda: any(each.flow.read_paused for each in connections)):
            await asyncio.to_thread(gateway.ask, lambda: None)


@HOW
async def test_before_upstream_has_answered(transport: str, leave: Callable[[Client], None]) -> None:
    async with leaving(transport, [Stall()]) as (upstream, gateway, client):
        client.send(post(CHAT, {"stream": True}))
        await upstream.received(1)
        leave(client)
        assert (await assert_left(upstream, gateway)).status == 0


@HOW
async def test_after_the_head_and_before_the_first_byte(transport: str, leave: Callable[[Client], None]) -> None:
    sent = asyncio.Event()

    async def head_only(_: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: WireRequest) -> None:
        writer.write(STREAM_HEAD)
        await writer.drain()
        sent.set()
        await seen.connection.ended.wait()

    async with leaving(transport, head_only) as (upstream, gateway, client):
        client.send(post(CHAT, {"stream": True}))
        await sent.wait()
        leave(client)
        await assert_left(upstream, gateway)


@HOW
async def test_in_the_middle_of_a_stream(transport: str, leave: Callable[[Client], None]) -> None:
    async with leaving(transport, [*sse([{"n": 1}], end=False), Stall()]) as (upstream, gateway, client):
        client.send(post(CHAT, {"stream": True}))
        await client.head()
        assert await client.chunk() == b'data: {"n": 1}\n\n'
        leave(client)
        record = await assert_left(upstream, gateway)
    assert record.status == 200
    assert record.streamed
    assert record.sent_bytes == 16


@HOW
async def test_in_the_middle_of_half_an_event(transport: str, leave: Callable[[Client], None]) -> None:
    async with leaving(transport, [*sse([{"n": 1}, b"data: hal"], end=False), Stall()]) as (upstream, gateway, client):
        client.send(post(CHAT, {"stream": True}))
        await client.head()
        leave(client)
        await assert_left(upstream, gateway)


@HOW
async def test_in_the_middle_of_a_plain_reply(transport: str, leave: Callable[[Client], None]) -> None:
    headers = [(b"Content-Length", b"100"), (b"Content-Type", b"audio/mpeg")]
    script: list[Step] = [reply(200, headers, b"half"), Stall()]
    async with leaving(transport, script) as (upstream, gateway, client):
        client.send(post("/v1/audio/speech", {}))
        await client.head()
        leave(client)
        assert (await assert_left(upstream, gateway)).sent_bytes == 4


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
    """A stream that goes on as long as someone takes it."""
    writer.write(STREAM_HEAD)
    event = chunk(b'data: {"x":"' + b"x" * 8000 + b'"}\n\n')
    while True:
        writer.write(event)
        await writer.drain()


@HOW
async def test_a_client_that_never_read_its_reply(transport: str, leave: Callable[[Client], None]) -> None:
    async with leaving(transport, endless) as (upstream, gateway, client):
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        client.send(post(CHAT, {"stream": True}))
        await upstream.received(1)
        await _stands_still(gateway)
        leave(client)
        await assert_left(upstream, gateway)


async def _begun(gateway: RunningGateway) -> None:
    async with asyncio.timeout(2):
        while not gateway.ask(lambda: len(gateway.app.proxy.open_calls)):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0)


async def _stands_still(gateway: RunningGateway) -> None:
    """Wait until the one open call has passed bytes on and passes no more."""

    def sent_bytes() -> int:
        return sum(call.sent_bytes for call in gateway.app.proxy.open_calls)

    before = -1
    async with asyncio.timeout(5):
        while (now := gateway.ask(sent_bytes)) != before or not now:
            before = now
            await asyncio.sleep(0.1)


# Calls that outlive their client

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


def _response_stream() -> list[bytes]:
    events = [
        {"type": "response.created", "sequence_number": 0, "response": {}},
        {"type": "response.completed", "sequence_number": 1, "response": {"usage": USAGE}},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


@HOW
@pytest.mark.parametrize("drains", [False, True], ids=["background", "drain"])
async def test_a_stream_that_outlives_its_client_is_read_to_its_end(
    transport: str, leave: Callable[[Client], None], drains: bool
) -> None:
    go, answered = asyncio.Event(), asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        first, last = _response_stream()
        writer.write(STREAM_HEAD + chunk(first))
        await go.wait()
        writer.write(chunk(last) + b"0\r\n\r\n")
        await writer.drain()
        answered.set()

    section: dict[str, Any] = {"on_client_disconnect": "drain"} if drains else {}
    async with leaving(transport, script, **section) as (upstream, gateway, client):
        client.send(post(RESPONSES, {"stream": True, "background": not drains}))
        await client.head()
        leave(client)
        await _noticed(gateway)
        go.set()
        record = (await gateway.recorded(1))[0]
        assert answered.is_set()
        await until_pool_is(gateway, (0, 1))
        assert upstream.open_connections == 1
    assert record.outcome == "client_left"
    assert record.usage is not None
    assert (record.usage.input_tokens, record.usage.output_tokens) == (11, 7)


@HOW
async def test_a_plain_background_call_is_not_cancelled_before_its_answer(
    transport: str, leave: Callable[[Client], None]
) -> None:
    go = asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        await go.wait()
        writer.write(reply(200, [(b"Content-Type", b"application/json")], json.dumps({"usage": USAGE}).encode()))

    async with leaving(transport, script) as (upstream, gateway, client):
        client.send(post(RESPONSES, {"background": True}))
        await upstream.received(1)
        leave(client)
        await _noticed(gateway)
        go.set()
        record = (await gateway.recorded(1))[0]
        await until_pool_is(gateway, (0, 1))
    assert record.usage is not None
    assert record.usage.total_tokens == 18


async def _noticed(gateway: RunningGateway) -> None:
    """Wait until the gateway knows that the client of its one call has left."""
    async with asyncio.timeout(1):
        while not gateway.ask(lambda: all(call.left for call in gateway.app.proxy.open_calls)):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_background_that_is_a_colour_is_cancelled_like_any_other(transport: str) -> None:
    async with leaving(transport, [Stall()]) as (upstream, gateway, client):
        client.send(post("/v1/images/generations", {"background": "transparent"}))
        await upstream.received(1)
        client.leave()
        await assert_left(upstream, gateway)


# After it


async def test_a_client_that_left_costs_the_next_one_nothing(transport: str) -> None:
    async with leaving(transport, [Stall()], OK) as (upstream, gateway, client):
        client.send(post(CHAT, {"stream": True}))
        await upstream.received(1)
        client.leave()
        assert (await ask(gateway.port, post(CHAT, {}))).status == 200
        await upstream.closed(1, within_s=1)
