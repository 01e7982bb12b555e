"""Outbound proxies, which only `httpx2` goes through."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from gateway.upstream.httpx2_transport import Httpx2Transport
from gateway.upstream.origin import Origin
from gateway.upstream.transport import ConnectFailed, Timeouts
from tests.contract.transports import call, get, load, post
from tests.support.wire import Script, Stall, WireRequest, WireUpstream, reply


def through(url: str, proxy: str, ssl_context: ssl.SSLContext | None = None) -> Httpx2Transport:
    return Httpx2Transport(
        Origin.from_url(url), Timeouts(5, 5, 5, 5), max_connections=5, ssl_context=ssl_context, proxy=proxy
    )


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: WireRequest) -> None:
    """What a proxy does on CONNECT."""
    host, _, port = request.target.decode().partition(":")
    to_reader, to_writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(pipe(reader, to_writer), pipe(to_reader, writer))


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()


@asynccontextmanager
async def tls_upstream(script: Script) -> AsyncIterator[tuple[WireUpstream, ssl.SSLContext]]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    async with WireUpstream(script, ssl_context=server) as upstream:
        yield upstream, client


async def test_a_plain_call_goes_to_the_proxy_in_absolute_form_and_is_otherwise_unchanged() -> None:
    async with WireUpstream(reply(body=b"by proxy")) as proxy:
        transport = through("http://upstream.test:8000", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
        request = get(b"/v1/models/openai%2Fgpt-5.2?a", [(b"X-One", b"1")])
        assert [(await call(transport, request))[2] for _ in range(2)] == [b"by proxy"] * 2
        await transport.close()
    assert len(proxy.connections) == 1
    assert proxy.requests[0].head == (
        b"GET http://upstream.test:8000/v1/models/openai%2Fgpt-5.2?a HTTP/1.1\r\nHost: upstream.test\r\n"
        b"Proxy-Authorization: Basic " + base64.b64encode(b"me:p@ss") + b"\r\nX-One: 1\r\n\r\n"
    )


async def test_a_tls_call_goes_through_a_tunnel_and_the_proxy_sees_no_byte_of_it() -> None:
    async with tls_upstream(reply(body=b"through")) as (upstream, context), WireUpstream(tunnel) as proxy:
        transport = through(upstream.url, f"http://me:secret@127.0.0.1:{proxy.port}", context)
        assert [(await call(transport, post(b"{}")))[2] for _ in range(2)] == [b"through"] * 2
        assert load(transport) == (0, 1)
        await transport.close()
    assert [request.method for request in proxy.requests] == [b"CONNECT"]
    assert proxy.requests[0].header(b"proxy-authorization") == b"Basic " + base64.b64encode(b"me:secret")
    assert upstream.requests[0].head == (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: upstream.test\r\nContent-Length: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    "script",
    [
        reply(407, reason=b"sk-canary"),
        reply(502),
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nnot TLS at all",
        b"",
    ],
)
async def test_a_proxy_that_makes_no_tunnel_is_a_failure_to_connect_and_keeps_no_slot(script: bytes) -> None:
    async with WireUpstream(script, body_first=False) as proxy:
        transport = through("https://upstream.test", f"http://127.0.0.1:{proxy.port}", ssl.create_default_context())
        for _ in range(6):
            with pytest.raises(ConnectFailed) as caught:
                await transport.send(post(b"{}"))
            assert "canary" not in str(caught.value)
        assert load(transport) == (0, 0)
        await transport.close()


async def test_an_unknown_authority_behind_a_tunnel_is_refused_and_keeps_no_slot() -> None:
    async with tls_upstream(reply()) as (upstream, _), WireUpstream(tunnel) as proxy:
        transport = through(upstream.url, f"http://127.0.0.1:{proxy.port}", ssl.create_default_context())
        for _ in range(6):
            with pytest.raises(ConnectFailed, match="certificate"):
                await transport.send(post(b"{}"))
        assert load(transport) == (0, 0)
        await transport.close()
    assert upstream.requests == []


async def test_a_call_cancelled_in_the_tunnel_is_seen_upstream() -> None:
    async with tls_upstream([Stall()]) as (upstream, context), WireUpstream(tunnel) as proxy:
        transport = through(upstream.url, f"http://127.0.0.1:{proxy.port}", context)
        task = asyncio.create_task(transport.send(post(b"{}")))
        await upstream.received(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.closed(1, within_s=1)
        assert load(transport) == (0, 0)
        await transport.close()


async def test_a_proxy_that_is_not_there_is_a_failure_to_connect() -> None:
    transport = through("http://upstream.test", "http://user:hunter2@127.0.0.1:1")
    with pytest.raises(ConnectFailed) as caught:
        await transport.send(get())
    assert "hunter2" not in f"{caught.value} {transport!r}"
    await transport.close()
