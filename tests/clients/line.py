"""A line from a scripted upstream through a gateway to a client, and the ways to ask for a stream over it."""

import asyncio
from dataclasses import dataclass

import httpx2

from tests.clients.streams import CORPUS
from tests.support.gateway import BEARER, RunningGateway
from tests.support.wire import Script, WireRequest, WireUpstream, chunk

EVENT_STREAM = [(b"Content-Type", b"text/event-stream")]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Way:
    """A route by which a stream can be asked for: path, body and the body's type."""

    path: str
    body: bytes
    content_type: str = "application/json"

    @property
    def headers(self) -> dict[str, str]:
        return {**BEARER, "Content-Type": self.content_type}

    def carried(self, streams: dict[str, bytes] = CORPUS) -> dict[str, bytes]:
        """Those in which the gateway has no reason to change anything."""
        return {name: stream for name, stream in streams.items() if self is not UNASKED or b"usage" not in stream}


ASKED = Way("/chat/completions", b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}')
UNASKED = Way("/chat/completions", b'{"model":"m","stream":true}')
RESPONSES = Way("/responses", b'{"model":"m","stream":true}')
RAW = Way("/audio/transcriptions", b"--x\r\n\r\n--x--\r\n", "multipart/form-data; boundary=x")
WAYS = {"usage asked for": ASKED, "usage not asked for": UNASKED, "responses": RESPONSES, "raw": RAW}


@dataclass(frozen=True)
class Line:
    """A scripted upstream, the gateway in front of it, and a client of that."""

    upstream: WireUpstream
    gateway: RunningGateway
    http: httpx2.AsyncClient

    async def received(self, way: Way, script: Script) -> bytes:
        """What a client gets of what `script` sends."""
        self.upstream.scripts = [script]
        reply = await self.http.post(self.gateway.api + way.path, content=way.body, headers=way.headers)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream")
        return reply.content


async def turn(gateway: RunningGateway) -> None:
    """Let the gateway's loop go round twice: whatever was on its sockets before has been read then."""

    async def nothing() -> None:
        await asyncio.sleep(0)

    assert gateway.loop is not None
    for _ in range(2):
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(nothing(), gateway.loop))


def in_two(wire: Line, stream: bytes, at: int) -> Script:
    """Sends the second part only when the gateway has read the first."""

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: WireRequest) -> None:
        writer.write(HEAD + chunk(stream[:at]))
        await turn(wire.gateway)
        writer.write(chunk(stream[at:]) + END)

    return send
