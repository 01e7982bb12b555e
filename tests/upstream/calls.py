"""Calls as the relay makes them, for the tests of the native transport."""

import asyncio
from collections.abc import AsyncIterator, Callable

from gateway.upstream.native import NativeTransport
from gateway.upstream.transport import RawHeaders, UpstreamReply, UpstreamRequest

HOST: RawHeaders = [(b"Host", b"upstream.test")]
SECRET = b"sk-canary-0123456789"


def get(target: bytes = b"/v1/models") -> UpstreamRequest:
    return UpstreamRequest(b"GET", target, HOST)


def post(body: bytes = b"{}") -> UpstreamRequest:
    headers = [*HOST, (b"Authorization", b"Bearer " + SECRET), (b"Content-Length", b"%d" % len(body))]
    return UpstreamRequest(b"POST", b"/v1/chat/completions", headers, body)


def upload(body: AsyncIterator[bytes], *headers: tuple[bytes, bytes]) -> UpstreamRequest:
    return UpstreamRequest(b"POST", b"/v1/files", [*HOST, *headers], body)


async def body_of(stream: UpstreamReply) -> bytes:
    body = b""
    while piece := await stream.read():
        body += piece
    return body


async def call(transport: NativeTransport, request: UpstreamRequest) -> bytes:
    stream = await transport.send(request)
    try:
        return await body_of(stream)
    finally:
        stream.close()


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until it holds."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - a transport's state has no event
            await asyncio.sleep(0)


class Source:
    """An endless body; `given` counts its bytes, `is_closed` tells whether its end was reached."""

    def __init__(self, pause: asyncio.Event | None = None) -> None:
        self.given = 0
        self.is_closed = False
        self._pause = pause

    async def __call__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.given += 10_000
                yield bytes(10_000)
                if self._pause is not None:
                    await self._pause.wait()
        finally:
            self.is_closed = True


Connect = Callable[..., NativeTransport]
"""Make a transport to a base URL, as the fixture `connect` does."""
