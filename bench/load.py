"""The clients of the benchmark: plain calls as fast as they are answered, plain calls at a rate, open streams.

Every reply is compared, byte for byte, with the one that upstream sends; a
difference ends the run. Knows nothing of processes and of what is measured.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from itertools import cycle
from typing import TypeVar, cast

from bench.alarm import Alarm, now_ns
from bench.traffic import Call, Stream

_OK = b"HTTP/1.1 200 "
_LARGEST_HEAD = 8192
_OPEN_WITHIN_S = 30
_RANDOM_SEED = 20261122  # everyone gets the same arrivals


ClientT = TypeVar("ClientT", bound="_Client")


class WrongReplyError(Exception):
    """A client did not get what upstream sent."""


class _Client(asyncio.Protocol):
    """A connection; `failure` says what went wrong on it, if anything did."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.failure: str | None = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self.fail(f"the connection was closed by the other side ({exc!r})")

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.close()

    def close(self) -> None:
        self._closing = True
        self.transport.abort()


class PlainClient(_Client):
    """Sends one call when told to, and reports when the whole right reply is there."""

    def __init__(self, call: Call, done: Callable[["PlainClient"], None]) -> None:
        super().__init__()
        self.due_ns = 0
        self._call = call
        self._done = done
        self._reply = b""
        self._turns = cycle(call.others or (call.request,))

    def send(self) -> None:
        self.transport.write(next(self._turns))

    def data_received(self, data: bytes) -> None:
        reply = self._reply + data if self._reply else data
        body = self._call.reply_body
        if reply.endswith(body) and reply.startswith(_OK) and reply.find(b"\r\n\r\n") + 4 == len(reply) - len(body):
            self._reply = b""
            self._done(self)
        elif _may_become_whole(reply, body):
            self._reply = reply
        else:
            self.fail(f"not upstream's reply: {reply[:400]!r}")


def _may_become_whole(reply: bytes, body: bytes) -> bool:
    head, end, begun = reply.partition(b"\r\n\r\n")
    if not end:
        return _OK.startswith(head[: len(_OK)]) and len(head) < _LARGEST_HEAD
    return head.startswith(_OK) and len(begun) < len(body) and body.startswith(begun)


class ClosedLoop:
    """A number of connections, each sending its next call as soon as the last is answered."""

    def __init__(self, port: int, call: Call, connections: int) -> None:
        self.calls = 0
        self._port, self._call, self._size = port, call, connections
        self._clients: list[PlainClient] = []

    async def start(self) -> None:
        self._clients = [
            await connect(self._port, lambda: PlainClient(self._call, self._answered)) for _ in range(self._size)
        ]
        for client in self._clients:
            client.send()

    def _answered(self, client: PlainClient) -> None:
        self.calls += 1
        client.send()

    def stop(self) -> None:
        close_all(self._clients)


class OpenLoop:
    """Calls at random moments (Poisson) at a mean rate, however fast they are answered.

    Latency runs from the moment a call was due, so that a stall is charged to
    every call that it held up.
    """

    def __init__(self, port: int, call: Call, rate_hz: float, connections: int) -> None:
        self.latencies_ns: list[int] = []
        self._port, self._call, self._size = port, call, connections
        self._gap_ns = 1e9 / rate_hz
        self._random = random.Random(_RANDOM_SEED)  # noqa: S311 - arrivals, no secrets
        self._idle: deque[PlainClient] = deque()
        self._waiting: deque[int] = deque()
        self._alarm = Alarm(self._ring)
        self._due_ns = 0.0
        self._end_ns = 0

    async def run(self, seconds: float) -> None:
        """Fill `latencies_ns` with one number a call."""
        clients = [
            await connect(self._port, lambda: PlainClient(self._call, self._answered)) for _ in range(self._size)
        ]
        self._idle.extend(clients)
        self._due_ns = now_ns() + self._gap_ns
        self._end_ns = now_ns() + int(seconds * 1e9)
        self._ring()
        await asyncio.sleep(seconds + 0.2)
        self._alarm.close()
        close_all(clients)

    def _ring(self) -> None:
        now = now_ns()
        while self._due_ns <= now:
            self._send(int(self._due_ns))
            self._due_ns += self._random.expovariate(1.0) * self._gap_ns
        if self._due_ns < self._end_ns:
            self._alarm.set(int(self._due_ns))

    def _send(self, due_ns: int) -> None:
        if not self._idle:
            self._waiting.append(due_ns)
            return
        client = self._idle.pop()
        client.due_ns = due_ns
        client.send()

    def _answered(self, client: PlainClient) -> None:
        self.latencies_ns.append(now_ns() - client.due_ns)
        self._idle.append(client)
        if self._waiting:
            self._send(self._waiting.popleft())


class StreamClient(_Client):
    """Reads one stream; counts HTTP chunks and events as they come."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.chunks = 0
        self.events = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first_event: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream = stream
        self._unread = b""
        self._body: list[bytes] = []
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(self._stream.request)

    def data_received(self, data: bytes) -> None:
        self._unread = self._unread + data if self._unread else data
        if not self._in_body:
            self._read_head()
        if self._in_body and not self.failure:
            self._read_chunks()

    def _read_head(self) -> None:
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        if end:
            self._check_head(head)
            self._in_body, self._unread = True, rest

    def _check_head(self, head: bytes) -> None:
        if not head.startswith(_OK) or b"transfer-encoding: chunked" not in head.lower():
            self.fail(f"not upstream's reply: {self._unread[:400]!r}")

    def _read_chunks(self) -> None:
        data, position = self._unread, 0
        while (line_end := data.find(b"\r\n", position)) >= 0:
            start = line_end + 2
            end = start + int(data[position:line_end], 16)
            if end + 2 > len(data):
                break
            self._take(data[start:end])
            position = end + 2
        self._unread = data[position:]

    def _take(self, piece: bytes) -> None:
        if not piece:
            return self._finish()
        self.chunks += 1
        self.events += piece.count(b"\n\n")
        self._body.append(piece)
        if not self.first_event.done():
            self.first_event.set_result(None)
        return None

    def _finish(self) -> None:
        self.close()
        if b"".join(self._body) != self._stream.reply_body:
            self.failure = _difference(b"".join(self._body), self._stream.reply_body)
        self.finished.set_result(None)

    def fail(self, reason: str) -> None:
        super().fail(reason)
        for waited in (self.first_event, self.finished):
            if not waited.done():
                waited.set_result(None)


def _difference(got: bytes, sent: bytes) -> str:
    at = next((i for i, (a, b) in enumerate(zip(got, sent, strict=False)) if a != b), min(len(got), len(sent)))
    return f"byte {at} differs: upstream sent {sent[at - 20 : at + 60]!r}, the client got {got[at - 20 : at + 60]!r}"


async def connect(port: int, make: Callable[[], ClientT]) -> ClientT:
    _, client = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
    return client


async def open_streams(port: int, stream: Stream, count: int) -> list[StreamClient]:
    """Open `count` streams, 50 at a time, and wait for the first event of each."""
    clients: list[StreamClient] = []
    for start in range(0, count, 50):
        batch = [await connect(port, lambda: StreamClient(stream)) for _ in range(start, min(start + 50, count))]
        await asyncio.wait_for(asyncio.gather(*(client.first_event for client in batch)), _OPEN_WITHIN_S)
        clients += batch
    return clients


def close_all(clients: list[PlainClient] | list[StreamClient]) -> None:
    """Hang up, and raise if any client got something else than upstream sent."""
    for client in clients:
        client.close()
    if failures := [client.failure for client in clients if client.failure]:
        raise WrongReplyError(f"{len(failures)} of {len(clients)} clients: {failures[0]}")
