"""Clients that read slowly: what is held for each is bounded, and upstream is made to wait."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from tests.faults.face import CHAT, RESPONSES, TRANSPORTS, Client, connected, post
from tests.faults.process import serving
from tests.support.gateway import running_gateway
from tests.support.missing import is_missing
from tests.support.wire import Fin, Stall, Step, Wait, WireRequest, WireUpstream, chunk

HEADS = {
    "stream": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    "plain": b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n",
}
EVENT = b"data: " + b"x" * 16_000 + b"\n\n"
ENDLESS_BYTES = 1 << 30
LARGE_BYTES = 6 << 20


def held_bytes() -> int:
    """What may lie in the gateway, and in the buffers of the sockets of its two sides, which the kernel lets grow."""
    gateway_bytes, socket_bytes = 1 << 20, 4 << 20
    if sys.platform == "linux":
        limits = [Path(f"/proc/sys/net/ipv4/tcp_{name}").read_text(encoding="ascii") for name in ("rmem", "wmem")]
        socket_bytes = sum(int(limit.split()[2]) for limit in limits)
    return gateway_bytes + 2 * socket_bytes


class Endless:
    """A reply of 1 GiB; `sent_bytes` is how much of it went out by now, over all calls."""

    def __init__(self, kind: str) -> None:
        self._head = HEADS[kind]
        self.sent_bytes = 0

    async def __call__(
        self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: WireRequest
    ) -> None:
        writer.write(self._head)
        piece = chunk(EVENT)
        for _ in range(ENDLESS_BYTES // len(EVENT)):
            writer.write(piece)
            await writer.drain()
            self.sent_bytes += len(EVENT)

    async def stands_still(self, *, within_s: float = 10.0) -> int:
        """How much has gone out, once no more does."""
        before = -1
        async with asyncio.timeout(within_s):
            while before != self.sent_bytes:
                before = self.sent_bytes
                await asyncio.sleep(0.2)
        return before


@asynccontextmanager
async def unread(port: int, count: int, path: str = CHAT) -> AsyncIterator[list[Client]]:
    """So many clients that asked for the reply and do not read it."""
    clients = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        client = Client(reader, writer)
        client.send(post(path, {"stream": True}))
        clients.append(client)
    try:
        yield clients
    finally:
        for client in clients:
            client.leave()
        await asyncio.gather(*(client.writer.wait_closed() for client in clients), return_exceptions=True)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", HEADS)
async def test_a_client_that_does_not_read_makes_upstream_wait(kind: str, transport: str) -> None:
    endless = Endless(kind)
    async with WireUpstream(endless) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            async with unread(gateway.port, 1):
                await upstream.received(1)
                held = await endless.stands_still()
            await upstream.closed(1)
    assert 0 < held < held_bytes()


async def test_a_slow_reader_gets_every_byte_at_its_own_pace() -> None:
    endless = Endless("stream")
    async with WireUpstream(endless) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port, limit_bytes=1024) as client:
                client.send(post(CHAT, {"stream": True}))
                await client.head()
                received = b""
                while len(received) < 20 * len(EVENT):
                    received += await client.chunk()
    assert received == EVENT * (len(received) // len(EVENT))
    assert endless.sent_bytes < len(received) + held_bytes()


async def test_a_slow_reader_of_a_stream_that_broke_off_is_told_so_when_it_reads_on() -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * LARGE_BYTES + b'"}}]}\n\n'
    async with WireUpstream([HEADS["stream"], chunk(event), Fin()]) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with unread(gateway.port, 1) as (client,):
                assert [record.outcome for record in await gateway.recorded(1)] == ["cut"]
                client.reader._transport.resume_reading()  # type: ignore[attr-defined]
                answer = await client.answer(within_s=10)
    assert answer.end == "complete"
    assert answer.body.startswith(event)
    assert b'"error"' in answer.body[len(event) :]


LAST = {
    "responses": b'data: {"type":"response.completed","response":{"id":"resp_1","status":"completed"}}\n\n',
    "chat": b'data: {"choices":[]}\n\ndata: [DONE]\n\n',
    "chat that goes on": b'data: {"choices":[]}\n\n',
}


@pytest.mark.parametrize("kind", LAST)
async def test_a_slow_reader_gets_at_the_drain_deadline_what_came_by_then(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_slow, waits, is_cut = watched(monkeypatch)
    monkeypatch.setattr("gateway.http.server._CUT_GRACE_S", 10.0)
    go, large, last = asyncio.Event(), b'data: {"type":"x","x":"' + b"x" * LARGE_BYTES + b'"}\n\n', LAST[kind]
    script: list[Step] = [HEADS["stream"], chunk(large), Wait(go), chunk(last), Stall()]
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1", server={"drain_s": 0.5}) as gateway:
            async with unread(gateway.port, 1, RESPONSES if kind == "responses" else CHAT) as (client,):
                assert await asyncio.to_thread(is_slow.wait, 5)
                go.set()
                assert await asyncio.to_thread(waits.wait, 5)
                gateway.stop()
                assert await asyncio.to_thread(is_cut.wait, 5)
                client.reader._transport.resume_reading()  # type: ignore[attr-defined]
                answer = await client.answer(within_s=10)
            (record,) = await gateway.recorded(1)
    assert answer.end == "complete"
    assert answer.body.startswith(large + last)
    rest = answer.body[len(large + last) :]
    if kind == "chat that goes on":
        assert b'"code":"draining"' in rest
        assert record.outcome == "drained"
    else:
        assert (rest, record.outcome) == (b"", "done")


def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event, threading.Event]:
    """Set when a client is too slow, when a call waits for it, and when that is ended from outside."""
    is_slow, waits, is_cut = threading.Event(), threading.Event(), threading.Event()
    pause_writing, drain = FlowControl.pause_writing, FlowControl.drain

    def telling_pause(flow: FlowControl) -> None:
        pause_writing(flow)
        is_slow.set()

    async def telling_drain(flow: FlowControl) -> None:
        waits.set()
        try:
            await drain(flow)
        except asyncio.CancelledError:
            is_cut.set()
            raise

    monkeypatch.setattr(FlowControl, "pause_writing", telling_pause)
    monkeypatch.setattr(FlowControl, "drain", telling_drain)
    return is_slow, waits, is_cut


async def test_many_unread_streams_cost_the_process_little_memory_each(is_long: bool) -> None:
    if sys.platform != "linux":
        is_missing("memory is read from /proc, which this system does not have")
    count, endless = (100 if is_long else 25), Endless("stream")
    async with serving(endless) as running:
        async with unread(running.port, 2):
            await endless.stands_still()
        before = rss_bytes(running.pid)
        async with unread(running.port, count):
            await endless.stands_still(within_s=60)
            grown = rss_bytes(running.pid) - before
    assert grown / count < 1 << 20


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
