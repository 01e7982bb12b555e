"""The transport on httpx2's core: through outbound proxies, and what `native` is compared with.

Knows how httpcore2 (the layer under httpx2 that sends exactly what it is
given) is led to keep the promises of `Transport`: one clock for all phases,
dropping without waiting, strict heads, no left-over bytes. Knows nothing of
keys, routes or ASGI.

Differs from `native` in one byte order: h11 writes Host before the other
headers, wherever it stood in the list (RFC 9110, section 7.2, asks for that).
"""

import asyncio
import os
import re
import ssl
from collections.abc import Coroutine
from typing import Any
from urllib.parse import unquote, urlsplit

import h11
import httpcore2

from gateway.upstream.httpx2_clock import Clock
from gateway.upstream.httpx2_pool import Call, WatchedPool
from gateway.upstream.httpx2_socket import SocketBackend
from gateway.upstream.origin import Origin
from gateway.upstream.transport import (
    ConnectFailed,
    ConnectionBroken,
    Phase,
    PoolExhausted,
    ProtocolViolation,
    RawHeaders,
    Sink,
    Timeouts,
    TransportError,
    UpstreamReply,
    UpstreamRequest,
)

IDLE_CLOSE_S = 60.0
"""An idle connection is not used after this time: common servers close theirs after 75 s."""

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_CORE_ERRORS = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
)


class Httpx2Transport:
    """A `Transport` on httpcore2, HTTP/1.1.

    `proxy` is the URL of an outbound HTTP proxy, credentials and all; plain calls go to it in absolute form,
    TLS calls through CONNECT. `proxy_ssl_context` is for a proxy that is itself reached over https.
    """

    def __init__(
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        max_connections: int,
        ssl_context: ssl.SSLContext | None,
        proxy: str | None = None,
    ) -> None:
        self._origin = origin
        self._where = f"{origin.scheme}://{origin.authority}"
        self._timeouts = timeouts
        self._max_connections = max_connections
        self._closed = False
        self._pool = WatchedPool(
            ssl_context=ssl_context,
            proxy=None if proxy is None else _proxy(proxy, ssl_context),
            max_connections=max_connections,
            keepalive_expiry=IDLE_CLOSE_S,
            network_backend=SocketBackend(),
        )

    def __repr__(self) -> str:
        return f"<Httpx2Transport {self._where}: {self.in_use} in use, {self.idle} idle>"

    @property
    def in_use(self) -> int:
        """Connections that carry a call or are being made for one."""
        return sum(not (each.is_idle() or each.is_closed()) for each in self._pool.connections)

    @property
    def idle(self) -> int:
        """Connections that wait for a call."""
        return sum(each.is_idle() and not each.has_expired() for each in self._pool.connections)

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """As `Transport.send`; ValueError when the request itself is no legal HTTP/1.1."""
        clock = Clock(self._timeouts)
        call = Call(clock)
        try:
            return await self._attempt(request, call)
        except TransportError as error:
            if not _may_go_again(request, call, error):
                raise
        await self._drop_idle()
        return await self._attempt(request, Call(clock))

    async def close(self) -> None:
        """As `Transport.close`; calls under way fail with ConnectionBroken, later ones with ConnectFailed."""
        self._closed = True
        await self._pool.aclose()

    async def _attempt(self, request: UpstreamRequest, call: Call) -> UpstreamReply:
        if self._closed:
            raise ConnectFailed("the transport is closed")
        core_request = self._core_request(request, call)
        try:
            async with call.clock.running("connect"):
                response = await self._pool.handle_async_request(core_request)
        except (httpcore2.LocalProtocolError, h11.LocalProtocolError):
            raise ValueError("the request is not legal HTTP/1.1") from None
        except httpcore2.PoolTimeout:
            raise PoolExhausted(f"all {self._max_connections} connections to {self._where} are in use") from None
        except (OSError, UnicodeError, *_CORE_ERRORS) as error:
            if not call.asked:
                raise _connect_failed(self._where, error) from None
            raise call.failure(error) from None
        reply = _Reply(response, call)
        reply.check_head()
        return reply

    def _core_request(self, request: UpstreamRequest, call: Call) -> httpcore2.Request:
        headers, body = request.headers, request.body
        if not isinstance(body, bytes):
            body = call.until_answered(body)
            if not _is_framed(headers):
                headers = [*headers, (b"Transfer-Encoding", b"chunked")]
        return httpcore2.Request(
            request.method,
            self._url(request.target),
            headers=headers,
            content=body,
            extensions={"timeout": {"pool": 0}, "trace": call.trace, "call": call},
        )

    def _url(self, target: bytes) -> httpcore2.URL:
        origin = self._origin
        return httpcore2.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target)

    async def _drop_idle(self) -> None:
        # What made the first try fail has likely ended every other idle connection too.
        for connection in self._pool.connections:
            if connection.is_idle():
                await connection.aclose()


def _is_framed(headers: RawHeaders) -> bool:
    return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)


def _may_go_again(request: UpstreamRequest, call: Call, error: TransportError) -> bool:
    if not call.asked:
        return call.found_closed
    repeatable = request.method == b"GET" and isinstance(request.body, bytes)
    stale = call.is_reuse and isinstance(error, ConnectionBroken) and not call.stream.reply_begun
    return repeatable and stale


def _proxy(url: str, ssl_context: ssl.SSLContext | None) -> httpcore2.Proxy:
    parts = urlsplit(url)
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username).encode(), unquote(parts.password or "").encode())
    location = httpcore2.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=b"/")
    return httpcore2.Proxy(location, auth=auth, ssl_context=ssl_context if parts.scheme == "https" else None)


def _connect_failed(where: str, error: Exception) -> ConnectFailed:
    match error:
        case ssl.SSLCertVerificationError():
            reason = f"certificate refused: {error.verify_message}"
        case ssl.SSLError():
            reason = f"TLS handshake failed: {error.reason}"
        case httpcore2.ProxyError():
            reason = f"the proxy answered {str(error)[:3]}"  # what follows is the proxy's own text
        case OSError():
            reason = _describe(error)
        case _:
            reason = "the connection broke while it was made"
    return ConnectFailed(f"no connection to {where}: {reason}")


def _describe(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__  # a resolver's error has a number of its own


def _fault(status: int, version: bytes, headers: RawHeaders) -> str | None:
    """What is illegal about a head that h11 has taken (RFC 9110, 5.5 and 15.2.2; RFC 9112, 2.3)."""
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        return "the reply is not HTTP/1.0 or HTTP/1.1"
    if status < 200:
        return "upstream switched protocols unasked"
    if any(_CONTROL.search(value) for _, value in headers):
        return "a control character in a header"
    return _framing_fault(version, dict(headers))


def _framing_fault(version: bytes, fields: dict[bytes, bytes]) -> str | None:
    """As `_fault`, for where the body ends (RFC 9112, 6.1 and 6.3)."""
    if int(fields.get(b"content-length", b"0")) >= 1 << 64:
        return "a Content-Length over 64 bits"
    if b"transfer-encoding" not in fields:
        return None
    if b"content-length" in fields:
        return "the reply has both Content-Length and Transfer-Encoding"
    return None if version == b"HTTP/1.1" else "chunks in another version than HTTP/1.1"


class _Reply:
    """The reply on one connection; owns the connection until its end or its closing."""

    def __init__(self, response: httpcore2.Response, call: Call) -> None:
        self.status = response.status
        self.headers: RawHeaders = [(name.lower(), value) for name, value in response.headers]
        self._response = response
        self._pieces = response.aiter_stream()
        self._call = call
        self._phase: Phase = "first_byte"
        self._outcome: TransportError | None = None
        self._ended = self._released = self._reading = False

    def __repr__(self) -> str:
        return f"<_Reply {self.status}{', ended' * self._ended}{', released' * self._released}>"

    def check_head(self) -> None:
        """Raise ProtocolViolation for what h11 lets pass and the interface does not."""
        self._call.stream.end_head()
        fault = _fault(self.status, self._response.extensions["http_version"], self.headers)
        if fault is not None:
            self.close()
            raise ProtocolViolation(fault)

    async def read(self) -> bytes:
        """As `UpstreamReply.read`; after a failure, or after `close` before the end, it fails again."""
        if self._ended:
            return b""
        if self._outcome is not None:
            raise self._outcome
        self._reading = True
        try:
            return await self._next_piece()
        except TransportError as error:
            self._outcome = error
            raise
        finally:
            self._reading = False
            if self._outcome is not None or self._ended:
                self._release()

    def whole(self) -> None:
        """As `UpstreamReply.whole`: it is not known what has come."""

    async def pump(self, sink: Sink) -> None:
        """As `UpstreamReply.pump`."""
        while (piece := await self.read()) and sink(piece):
            pass

    async def _next_piece(self) -> bytes:
        try:
            async with self._call.clock.running(self._phase):
                piece = await anext(self._pieces, b"")
        except _CORE_ERRORS as error:
            raise self._call.failure(error) from None
        except BaseException:
            self._outcome = ConnectionBroken("the reply was dropped")
            raise
        self._phase = "stream"
        self._ended = not piece
        return piece

    def close(self) -> None:
        """As `UpstreamReply.close`."""
        if self._ended or self._released:
            return
        self._outcome = self._outcome or ConnectionBroken("the reply was closed")
        self._call.stream.abort()
        if not self._reading:
            self._release()

    def _release(self) -> None:
        if not self._released:
            self._released = True
            _finish(self._give_back())

    async def _give_back(self) -> None:
        await self._pieces.aclose()
        await self._response.aclose()


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run at once what has nothing to wait for, since `SocketStream` closes without waiting."""
    if asyncio.current_task() is None:  # in a callback of the loop; httpcore2's locks need a task
        asyncio.get_running_loop().create_task(work)
        return
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("giving a connection back had to wait")
