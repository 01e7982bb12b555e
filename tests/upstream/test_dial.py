"""Connecting: origins, TLS, names that have several addresses."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from gateway.upstream import dial as dialling
from gateway.upstream.origin import Origin, tls_context
from gateway.upstream.transport import (
    ConnectFailed,
    ConnectionBroken,
    Timeouts,
    TransportTimeout,
)
from tests.support.wire import Fin, Script, WireUpstream, reply
from tests.upstream.calls import Connect, body_of, call, get, post, until

# Connecting.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Any) -> ssl.SSLContext:
    """The context that ca_file sets up."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return tls_context(str(path))


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_tls_is_checked_spoken_in_http_1_and_without_delay(
    connect: Connect, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    async with WireUpstream(reply(body=b"ok"), ssl_context=server_context(authority, "127.0.0.1")) as upstream:
        transport = connect(upstream.url, ssl_context=trusting)
        for _ in range(2):
            assert await call(transport, post(b"x" * 300_000)) == b"ok"
        assert len(upstream.connections) == 1
        (connection,) = transport.pool._open
        assert connection._transport is not None
        session = connection._transport.get_extra_info("ssl_object")
        assert session.selected_alpn_protocol() == "http/1.1"
        assert session.version() >= "TLSv1.2"
        raw = connection._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_a_plain_connection_has_no_delay_either(connect: Connect) -> None:
    async with WireUpstream() as upstream:
        transport = connect(upstream.url)
        await call(transport, get())
        (connection,) = transport.pool._open
        assert connection._transport is not None
        raw = connection._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize(
    ("names", "trusts", "why"),
    [
        (("other.test",), True, "(?i)ip address mismatch"),
        (("127.0.0.1",), False, "unable to get local issuer certificate"),
    ],
)
async def test_a_certificate_that_does_not_hold_says_why(
    connect: Connect, authority: trustme.CA, trusting: ssl.SSLContext, names: tuple[str], trusts: bool, why: str
) -> None:
    async with WireUpstream(ssl_context=server_context(authority, *names)) as upstream:
        transport = connect(upstream.url, ssl_context=trusting if trusts else tls_context(None))
        with pytest.raises(ConnectFailed, match=why):
            await transport.send(post())
        assert upstream.requests == []
        assert transport.pool.in_use == 0


async def test_a_server_that_does_not_speak_tls_is_a_failed_connection(
    connect: Connect, trusting: ssl.SSLContext
) -> None:
    async with WireUpstream(greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as upstream:
        transport = connect(upstream.url.replace("http:", "https:"), ssl_context=trusting)
        with pytest.raises(ConnectFailed):
            await transport.send(post())


async def test_a_tls_handshake_counts_as_connecting(connect: Connect, trusting: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        transport = connect(url, ssl_context=trusting, timeouts=Timeouts(0.1, 5, 5, 5))
        with pytest.raises(TransportTimeout) as caught:
            await transport.send(post())
        assert caught.value.phase == "connect"
        sending = asyncio.create_task(transport.send(post()))
        await until(lambda: transport.pool.in_use == 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.pool.in_use == 0


@pytest.mark.parametrize(
    ("script", "is_whole"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\nall", Fin()], True),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall", Fin()], False),
    ],
)
async def test_the_end_of_a_connection_ends_only_a_body_without_another_end_over_tls_too(
    connect: Connect, authority: trustme.CA, trusting: ssl.SSLContext, script: Script, is_whole: bool
) -> None:
    async with WireUpstream(script, ssl_context=server_context(authority, "127.0.0.1")) as upstream:
        stream = await connect(upstream.url, ssl_context=trusting).send(get())
        if is_whole:
            assert await body_of(stream) == b"all"
        else:
            with pytest.raises(ConnectionBroken):
                await body_of(stream)
        stream.close()


async def test_a_refused_connection_names_the_server(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    transport = connect(f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectFailed, match=f"cannot connect to 127.0.0.1:{port}: .*[Rr]efused"):
        await transport.send(post())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".invalid"])
async def test_a_name_that_is_not_found_is_a_failed_connection(connect: Connect, host: str) -> None:
    with pytest.raises(ConnectFailed, match=host):
        await connect(f"http://{host}:9").send(post())


def answers(*addresses: str) -> Any:
    async def resolve(_: Origin) -> list[str]:
        return list(addresses)

    return resolve


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """Listens on 127.0.0.2 with a full backlog: a connection to it is neither made nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener
        for filler in fillers:
            filler.close()


async def test_a_dead_address_does_not_hold_up_a_living_one(
    connect: Connect, deaf: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = deaf.getsockname()[1]

    async def alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(body=b"alive", headers=[(b"Connection", b"close")]))
        writer.close()

    server = await asyncio.start_server(alive, "127.0.0.1", port)
    monkeypatch.setattr(dialling, "_addresses", answers("127.0.0.2", "127.0.0.1"))
    try:
        async with asyncio.timeout(2):
            assert await call(connect(f"http://two.test:{port}"), post()) == b"alive"
    finally:
        server.close()


async def test_when_every_address_refuses_all_reasons_are_told_once(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setattr(dialling, "_addresses", answers("127.0.0.1", "127.0.0.2", "127.0.0.3"))
    with pytest.raises(ConnectFailed, match=r"two\.test"):
        await connect(f"http://two.test:{port}").send(post())


async def test_a_cancelled_race_leaves_no_connection(
    connect: Connect, deaf: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "_addresses", answers("127.0.0.2", "127.0.0.2"))
    transport = connect(f"http://two.test:{deaf.getsockname()[1]}")
    sending = asyncio.create_task(transport.send(post()))
    await until(lambda: transport.pool.in_use == 1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert transport.pool.in_use == 0


async def test_localhost_is_found_on_whichever_family_listens(connect: Connect) -> None:
    async with WireUpstream(reply(body=b"ok")) as upstream:
        assert await call(connect(f"http://localhost:{upstream.port}"), post()) == b"ok"


@pytest.mark.parametrize(
    ("url", "origin", "authority_text"),
    [
        ("https://api.gmi-serving.com/v1", Origin("https", "api.gmi-serving.com", 443), "api.gmi-serving.com"),
        ("http://LocalHost:8000", Origin("http", "localhost", 8000), "localhost:8000"),
        ("https://[::1]:443/", Origin("https", "::1", 443), "[::1]"),
        ("http://[2001:db8::1]:81/x", Origin("http", "2001:db8::1", 81), "[2001:db8::1]:81"),
    ],
)
def test_an_origin_is_read_from_a_url(url: str, origin: Origin, authority_text: str) -> None:
    assert Origin.from_url(url) == origin
    assert origin.authority == authority_text


@pytest.mark.parametrize("url", ["ftp://x/", "api.test/v1", "https://", "http://:80"])
def test_another_url_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        Origin.from_url(url)
