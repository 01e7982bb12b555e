"""The upstream of the benchmark: answers at once out of memory, and paces streams.

Knows how to find the end of a request and which answer its `x-bench` header
asks for. Checks nothing else: what a proxy forwards is the tests' business.
Prints the ports it took (plain, TLS) as one line of JSON, and serves until
its standard input ends.
"""

import asyncio
import gc
import json
import ssl
import sys
import time
from functools import cache
from typing import cast

import uvloop

from bench.traffic import (
    BENCH_HEADER,
    StreamKind,
    as_http_chunk,
    plain_reply_body,
    reply_head,
    stream_events,
    wants_usage,
)

_LAST_CHUNK = b"0\r\n\r\n"
_LARGEST_KEPT_BODY = 64 * 1024


class Pacer:
    """Writes one event at a time to each stream, spread evenly over the period in steps of 1 ms."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wheels: dict[int, Wheel] = {}

    def add(self, transport: asyncio.Transport, chunks: list[bytes], rate_hz: int) -> None:
        period_ms = 1000 // rate_hz
        wheel = self._wheels.get(period_ms)
        if wheel is None or not wheel.running:
            wheel = self._wheels[period_ms] = Wheel(self._loop, period_ms)
        wheel.add(transport, chunks)


class Wheel:
    """All streams of one rate: a list of streams for each millisecond of the period."""

    def __init__(self, loop: asyncio.AbstractEventLoop, period_ms: int) -> None:
        self.running = True
        self._loop = loop
        self._slots: list[list[tuple[asyncio.Transport, list[bytes]]]] = [[] for _ in range(period_ms)]
        self._done_ms = _now_ms()
        loop.call_later(0.001, self._turn)

    def add(self, transport: asyncio.Transport, chunks: list[bytes]) -> None:
        min(self._slots, key=len).append((transport, chunks[::-1]))

    def _turn(self) -> None:
        now_ms = _now_ms()
        for tick in range(max(self._done_ms, now_ms - len(self._slots)) + 1, now_ms + 1):
            self._write_slot(tick % len(self._slots))
        self._done_ms = now_ms
        self.running = any(self._slots)
        if self.running:
            self._loop.call_later(0.001, self._turn)

    def _write_slot(self, index: int) -> None:
        finished = False
        for transport, chunks in self._slots[index]:
            if transport.is_closing():
                chunks.clear()
            else:
                transport.write(chunks.pop())
            finished = finished or not chunks
        if finished:
            self._slots[index] = [stream for stream in self._slots[index] if stream[1]]


class UpstreamProtocol(asyncio.Protocol):
    """One connection: requests in, one after the other, answers out."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._buffer = b""
        self._unread = 0
        self._bench = b""
        self._body = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        while data:
            data = self._read_body(data) if self._unread else self._read_head(data)

    def _read_head(self, data: bytes) -> bytes:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return b""
        self._buffer = b""
        head = head.lower() + b"\r\n"
        self._unread = int(_header(head, b"\r\ncontent-length: ") or b"0")
        self._bench = _header(head, BENCH_HEADER)
        if not self._unread:
            self._answer()
        return rest

    def _read_body(self, data: bytes) -> bytes:
        piece = data[: self._unread]
        if len(self._body) < _LARGEST_KEPT_BODY:
            self._body += piece
        self._unread -= len(piece)
        if not self._unread:
            self._answer()
        return data[len(piece) :]

    def _answer(self) -> None:
        body, self._body = self._body, b""
        kind, *numbers = self._bench.split()
        if kind == b"plain":
            self._transport.write(_plain_reply())
        elif kind == b"idle":
            self._transport.write(_idle_reply())
        else:
            self._start_stream(_kind(kind), int(numbers[0]), int(numbers[1]), with_usage=wants_usage(body))

    def _start_stream(self, kind: StreamKind, events: int, rate_hz: int, *, with_usage: bool) -> None:
        self._transport.write(_stream_head())
        self._pacer.add(self._transport, _stream_chunks(kind, events, with_usage=with_usage), rate_hz)


def _header(head: bytes, name: bytes) -> bytes:
    start = head.find(name)
    return head[start + len(name) : head.find(b"\r\n", start + 2)] if start >= 0 else b""


def _kind(name: bytes) -> StreamKind:
    return "responses" if name == b"responses" else "chat"


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


@cache
def _plain_reply() -> bytes:
    body = plain_reply_body()
    return reply_head("application/json", len(body)) + body


@cache
def _stream_head() -> bytes:
    return reply_head("text/event-stream; charset=utf-8", None)


@cache
def _idle_reply() -> bytes:
    return _stream_head() + as_http_chunk(stream_events("chat", 1, with_usage=False)[0])


@cache
def _stream_chunks(kind: StreamKind, events: int, *, with_usage: bool) -> list[bytes]:
    chunks = [as_http_chunk(event) for event in stream_events(kind, events, with_usage=with_usage)]
    chunks[-1] += _LAST_CHUNK
    return chunks


async def _serve(certificate: str, key: str) -> None:
    loop = asyncio.get_running_loop()
    pacer = Pacer(loop)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    ports = []
    for tls in (None, context):
        server = await loop.create_server(lambda: UpstreamProtocol(pacer), "127.0.0.1", 0, ssl=tls, backlog=4096)
        ports.append(server.sockets[0].getsockname()[1])
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    gc.freeze()
    gc.disable()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], sys.argv[2]))
