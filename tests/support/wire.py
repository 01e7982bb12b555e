"""A scripted upstream on a raw TCP socket: sends exactly the bytes it is told to.

Knows enough HTTP/1.1 to tell where a request ends and keeps what came. Knows
nothing of what a legal reply is: that is what the scripts are for.

    async with WireUpstream(reply(200, body=b"ok")) as upstream:
        ...  # call upstream.url
    assert upstream.requests[0].target == b"/v1/models"
"""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Stall:
    """Send nothing more; hold the connection until the client leaves it."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Send what is in the buffer, then RST."""


@dataclass(frozen=True, slots=True)
class Fin:
    """Send what is in the buffer, then close."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Go on when the event is set."""

    event: asyncio.Event


@dataclass(slots=True)
class WireConnection:
    """One accepted connection: `number` counts from 0, `ended` is set when the client left or we closed."""

    number: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    sent_bytes: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One request: `head` and `raw_body` as they came, the rest parsed; `body` is without chunk framing."""

    connection: WireConnection
    head: bytes
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    raw_body: bytes
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, its name in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)


Step = bytes | Stall | Reset | Fin | Wait
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, WireRequest], Awaitable[None]]
Script = bytes | Sequence[Step] | Handler


def reply(status: int = 200, headers: Headers = (), body: bytes = b"", *, reason: bytes = b"OK") -> bytes:
    """A whole reply; Content-Length is added unless the headers frame the body or the status has none."""
    names = {name.lower() for name, _ in headers}
    framed = names & {b"content-length", b"transfer-encoding"} or status < 200 or status in (204, 304)
    length = () if framed else ((b"Content-Length", str(len(body)).encode()),)
    return _head(status, (*headers, *length), reason) + body


def chunked(pieces: Iterable[bytes], status: int = 200, headers: Headers = (), *, end: bool = True) -> list[Step]:
    """A chunked reply as steps: the head, a chunk a piece, and the end unless `end` is false."""
    head = _head(status, (*headers, (b"Transfer-Encoding", b"chunked")), b"OK")
    return [head, *(chunk(piece) for piece in pieces), *([b"0\r\n\r\n"] if end else [])]


def chunk(piece: bytes) -> bytes:
    """One chunk in its framing."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def sse(events: Iterable[bytes | str | dict[str, Any]], *, end: bool = True) -> list[Step]:
    """An event stream as steps; an event is its data, or raw bytes with all their line ends."""
    return chunked(map(_event, events), headers=[(b"Content-Type", b"text/event-stream")], end=end)


def _event(event: bytes | str | dict[str, Any]) -> bytes:
    if isinstance(event, bytes):
        return event
    text = event if isinstance(event, str) else json.dumps(event)
    return f"data: {text}\n\n".encode()


def _head(status: int, headers: Headers, reason: bytes) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, reason, lines)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST; what the kernel has not sent yet is lost."""
    raw = writer.get_extra_info("socket")
    if raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class WireUpstream:
    """Listens on a free port of 127.0.0.1 while its `async with` lasts.

    The n-th request is answered by the n-th script, all later ones by the last; connections are kept alive.
    A script is bytes, a list of steps, or `async (reader, writer, request)`. `greeting` is sent before any
    request. With `body_first=False` a script runs as soon as a head is there, and reads the body if it wants
    to; the connection ends after such a request.
    """

    def __init__(
        self,
        *scripts: Script,
        ssl_context: ssl.SSLContext | None = None,
        greeting: bytes = b"",
        body_first: bool = True,
    ) -> None:
        self.scripts: list[Script] = list(scripts) or [reply()]
        self.requests: list[WireRequest] = []
        self.connections: list[WireConnection] = []
        self.port = 0
        self._ssl_context = ssl_context
        self._greeting = greeting
        self._body_first = body_first
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._failures: list[BaseException] = []

    @property
    def url(self) -> str:
        """Scheme, host and port, without a slash at the end."""
        return f"{'https' if self._ssl_context else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, "127.0.0.1", 0, ssl=self._ssl_context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        self.drop_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failures and error is None:
            raise self._failures[0]

    def stop_listening(self) -> None:
        """Refuse new connections; open ones go on."""
        self._server.close()

    def drop_all(self) -> None:
        """Close every open connection at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    @property
    def open_connections(self) -> int:
        """How many connections have not ended."""
        return sum(not connection.ended.is_set() for connection in self.connections)

    async def received(self, count: int, *, within_s: float = 5.0) -> None:
        """Wait until so many requests have come; TimeoutError if they do not."""
        await self._until(lambda: len(self.requests) >= count, within_s)

    async def accepted(self, count: int, *, within_s: float = 5.0) -> None:
        """Wait until so many connections were accepted; TimeoutError if they are not."""
        await self._until(lambda: len(self.connections) >= count, within_s)

    async def closed(self, count: int, *, within_s: float = 1.0) -> None:
        """Wait until so many connections have ended; TimeoutError if they do not."""
        await self._until(lambda: len(self.connections) - self.open_connections >= count, within_s)

    async def _until(self, holds: Callable[[], bool], within_s: float) -> None:
        async with asyncio.timeout(within_s), self._changed:
            await self._changed.wait_for(holds)

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        connection = WireConnection(len(self.connections))
        self.connections.append(connection)
        reader = asyncio.StreamReader(limit=64 * 1024)
        return _Watched(reader, self, connection)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: WireConnection) -> None:
        self._writers.add(writer)
        self._start(self._serve(reader, writer, connection))
        self.notify()

    def notify(self) -> None:
        """Wake those who wait for requests and closes."""
        self._start(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: WireConnection
    ) -> None:
        writer.transport.set_write_buffer_limits(high=1, low=0)  # at 0 a TLS transport never resumes
        try:
            writer.write(self._greeting)
            while request := await self._read_request(reader, connection):
                self.requests.append(request)
                connection.requests += 1
                self.notify()
                await self._answer(reader, writer, request)
                if not self._body_first or writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as error:
            self._failures.append(error)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: WireRequest) -> None:
        script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
        if callable(script):
            await script(reader, writer, request)
            return
        for step in [script] if isinstance(script, bytes) else script:
            await _take(step, writer, request.connection)

    async def _read_request(self, reader: asyncio.StreamReader, connection: WireConnection) -> WireRequest | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        method, target, headers = _parse_head(head)
        raw, body = await _read_body(reader, headers) if self._body_first else (b"", b"")
        return WireRequest(connection, head, method, target, headers, raw, body)


class _Watched(asyncio.StreamReaderProtocol):
    """Tells when the client has closed, also while a script is not reading."""

    def __init__(self, reader: asyncio.StreamReader, upstream: WireUpstream, connection: WireConnection) -> None:
        super().__init__(reader, lambda r, w: upstream._accept(r, w, connection))
        self._upstream = upstream
        self._connection = connection

    def eof_received(self) -> bool | None:
        self._end()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _end(self) -> None:
        if not self._connection.ended.is_set():
            self._connection.ended.set()
            self._upstream.notify()


async def _take(step: Step, writer: asyncio.StreamWriter, connection: WireConnection) -> None:
    match step:
        case bytes():
            writer.write(step)
            await writer.drain()
            connection.sent_bytes += len(step)
        case Stall():
            await connection.ended.wait()
        case Wait():
            await step.event.wait()
        case Reset():
            reset(writer)
        case Fin():
            writer.close()


def _parse_head(head: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    first, *lines = head[:-4].split(b"\r\n")
    method, target, _ = first.split(b" ", 2)
    pairs = (line.partition(b":") for line in lines)
    return method, target, [(name, value.strip()) for name, _, value in pairs]


async def _read_body(reader: asyncio.StreamReader, headers: Headers) -> tuple[bytes, bytes]:
    framing = {name.lower(): value for name, value in headers}
    if framing.get(b"transfer-encoding", b"").lower() == b"chunked":
        return await _read_chunks(reader)
    body = await reader.readexactly(int(framing.get(b"content-length", b"0")))
    return body, body


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    raw, body = b"", b""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line, 16)
        data = await reader.readexactly(size + 2)
        raw += line + data
        body += data[:size]
        if size == 0:
            return raw, body
