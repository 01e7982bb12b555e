"""TLS: who is trusted, and that a server which is not gets no byte."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from gateway.upstream.origin import tls_context
from gateway.upstream.transport import ConnectFailed, ConnectionBroken, Timeouts, TransportTimeout
from tests.contract.transports import SHORT_S, Connect, call, get, load, post
from tests.support.wire import Reset, Stall, WireUpstream, chunked, reply

AUTHORITY = trustme.CA()


def server_context(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def trusting(tmp_path: Path) -> ssl.SSLContext:
    ca_file = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(ca_file))
    return tls_context(str(ca_file))


async def test_an_authority_from_the_file_is_trusted(connect: Connect, trusting: ssl.SSLContext) -> None:
    body = bytes(range(256)) * 4_000
    async with WireUpstream(reply(body=body), ssl_context=server_context("127.0.0.1")) as upstream:
        transport = connect(upstream.url, ssl_context=trusting)
        assert (await call(transport, get()))[2] == body
        assert (await call(transport, post(body)))[2] == body
        assert load(transport) == (0, 1)
    assert upstream.requests[1].body == body
    assert len(upstream.connections) == 1


async def test_an_unknown_authority_is_refused(connect: Connect) -> None:
    async with WireUpstream(ssl_context=server_context("127.0.0.1")) as upstream:
        transport = connect(upstream.url, ssl_context=tls_context(None))
        with pytest.raises(ConnectFailed, match="certificate"):
            await transport.send(post(b"{}"))
        assert load(transport) == (0, 0)
    assert upstream.requests == []


async def test_a_certificate_for_another_name_is_refused(connect: Connect, trusting: ssl.SSLContext) -> None:
    async with WireUpstream(ssl_context=server_context("other.test")) as upstream:
        transport = connect(upstream.url, ssl_context=trusting)
        with pytest.raises(ConnectFailed, match="certificate"):
            await transport.send(post(b"{}"))
        assert load(transport) == (0, 0)
    assert upstream.requests == []


async def test_a_server_without_tls_is_a_failure_to_connect(connect: Connect, trusting: ssl.SSLContext) -> None:
    async with WireUpstream(greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as upstream:
        transport = connect(upstream.url.replace("http:", "https:"), ssl_context=trusting)
        with pytest.raises(ConnectFailed):
            await transport.send(get())
        assert load(transport) == (0, 0)


async def test_a_handshake_that_stalls_is_a_timeout_of_connect(connect: Connect, trusting: ssl.SSLContext) -> None:
    async with WireUpstream() as silent:  # waits for a request's head, which no handshake holds
        transport = connect(
            f"https://127.0.0.1:{silent.port}", ssl_context=trusting, timeouts=Timeouts(SHORT_S, 9, 9, 9)
        )
        with pytest.raises(TransportTimeout) as caught:
            await transport.send(get())
        assert caught.value.phase == "connect"
        assert load(transport) == (0, 0)
        await silent.closed(1, within_s=1)


async def test_a_cancelled_handshake_leaves_no_connection(connect: Connect, trusting: ssl.SSLContext) -> None:
    async with WireUpstream() as silent:
        transport = connect(f"https://127.0.0.1:{silent.port}", ssl_context=trusting)
        task = asyncio.create_task(transport.send(get()))
        await silent.accepted(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert load(transport) == (0, 0)
        await silent.closed(1, within_s=1)


async def test_leaving_and_breaking_are_seen_over_tls_too(connect: Connect, trusting: ssl.SSLContext) -> None:
    head, piece = chunked([b"a"], end=False)
    async with WireUpstream(
        [head, piece, Stall()], [head, piece, Reset()], ssl_context=server_context("127.0.0.1")
    ) as upstream:
        transport = connect(upstream.url, ssl_context=trusting)
        stream = await transport.send(get())
        assert await stream.read() == b"a"
        stream.close()
        await upstream.closed(1, within_s=1)
        with pytest.raises(ConnectionBroken):
            await call(transport, get())
        assert load(transport) == (0, 0)
