"""Connections at the face of the mirrored surface: what comes after what, and when a reply has ended."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.faults.face import (
    CHAT,
    connected,
    post,
    request,
)
from tests.support.gateway import running_gateway
from tests.support.wire import WireRequest, WireUpstream, chunk, reply, sse

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')


async def test_requests_on_one_connection_are_answered_in_order(upstream_section: dict[str, Any]) -> None:
    async def echo(_: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: WireRequest) -> None:
        writer.write(reply(200, body=seen.target))

    async with WireUpstream(echo) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            async with connected(gateway.port) as client:
                client.send(b"".join(request("GET", f"/v1/models/{number}") for number in range(20)))
                bodies = [(await client.answer()).body for _ in range(20)]
    assert bodies == [f"/v1/models/{number}".encode() for number in range(20)]


async def test_a_request_right_behind_a_stream_is_answered_after_it(upstream_section: dict[str, Any]) -> None:
    go = asyncio.Event()

    async def stream(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        steps = [step for step in sse([{"n": 1}, "[DONE]"]) if isinstance(step, bytes)]
        writer.write(b"".join(steps[:2]))
        await go.wait()
        writer.write(b"".join(steps[2:]))

    async with WireUpstream(stream, OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {"stream": True}))
                client.send(request("GET", "/v1/models"))
                await client.head()
                assert await client.chunk() == b'data: {"n": 1}\n\n'
                go.set()
                assert [await client.chunk(), await client.chunk()] == [b"data: [DONE]\n\n", b""]
                assert (await client.answer()).body == b'{"ok": true}'


async def test_done_ends_the_clients_body_although_upstream_keeps_its_own_open(
    upstream_section: dict[str, Any],
) -> None:
    hold = asyncio.Event()

    async def never_ends(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        writer.write(b"".join(step for step in sse([{"n": 1}, "[DONE]"], end=False) if isinstance(step, bytes)))
        await hold.wait()

    async with WireUpstream(never_ends, OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {"stream": True}))
                answer = await client.answer(within_s=0.4)
                assert answer.end == "complete"
                assert answer.body == b'data: {"n": 1}\n\ndata: [DONE]\n\n'
                await upstream.closed(1, within_s=2)
                client.send(request("GET", "/v1/models"))
                assert (await client.answer()).status == 200
            records = await gateway.recorded(2)
        hold.set()
    assert [record.outcome for record in records] == ["done", "done"]


async def _two_halves(writer: asyncio.StreamWriter, half: asyncio.Event, rest: asyncio.Event) -> None:
    whole = b"".join(step for step in sse([{"n": 1}, "[DONE]"]) if isinstance(step, bytes))
    at = whole.index(b'"n"')
    half_event = chunk(b'data: {"n"'), chunk(b": 1}\n\n"), chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"
    head = whole[: whole.index(b"\r\n\r\n") + 4]
    assert at > len(head)
    writer.write(head + chunk(b'data: {"n": 0}\n\n'))
    await half.wait()
    writer.write(half_event[0])
    await rest.wait()
    writer.write(b"".join(half_event[1:]))


async def test_comments_keep_an_idle_stream_open_between_events_only(upstream_section: dict[str, Any]) -> None:
    half, rest = asyncio.Event(), asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        await _two_halves(writer, half, rest)

    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream=upstream_section, streams={"keepalive_s": 0.05}) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {"stream": True}))
                await client.head()
                assert await client.chunk() == b'data: {"n": 0}\n\n'
                for _ in range(2):
                    assert await client.chunk() == b": keep-alive\n\n"
                half.set()
                assert await client.chunk() == b": keep-alive\n\n"
                rest.set()
                body = b"".join([piece async for piece in _chunks(client.chunk)])
    assert body.replace(b": keep-alive\n\n", b"") == b'data: {"n": 1}\n\ndata: [DONE]\n\n'


async def _chunks(read: Any) -> AsyncIterator[bytes]:
    while piece := await read():
        yield piece
