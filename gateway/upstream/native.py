"""The native transport: HTTP/1.1 on asyncio and httptools.

Knows how a request is written, and when a call may be tried once more. Knows
no outbound proxies and no HTTP/2: the httpx2 transport does those.
"""

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any

from gateway.upstream.connection import Connection
from gateway.upstream.deadline import Deadline
from gateway.upstream.dial import dial
from gateway.upstream.origin import Origin
from gateway.upstream.pool import Pool
from gateway.upstream.reply import Reply
from gateway.upstream.reply_parser import ReplyParser
from gateway.upstream.request_writer import ONE_WRITE_BYTES, send_request, serialise_head
from gateway.upstream.transport import (
    ConnectFailed,
    ConnectionBroken,
    Phase,
    Timeouts,
    TransportTimeout,
    UpstreamRequest,
)


class NativeTransport:
    """A `Transport` to one origin.

    `max_connections`: calls that may be in flight at once. `ssl_context`: for https, as from `tls_context`.
    `idle_close_s`: seconds after which an idle connection is closed. `max_head_bytes`: cap of a reply's head, and
    of its trailers. To be used within one event loop.
    """

    def __init__(  # noqa: PLR0913 - two say where and how long, the others are plain limits with a name
        self,
        origin: Origin,
        timeouts: Timeouts,
        *,
        max_connections: int,
        ssl_context: ssl.SSLContext | None,
        idle_close_s: float = 60.0,
        max_head_bytes: int = 64 * 1024,
    ) -> None:
        if origin.is_tls != (ssl_context is not None):
            raise ValueError("give an ssl_context for https, and only then")
        self.pool: Pool[Connection] = Pool(origin.authority, max_connections=max_connections, idle_close_s=idle_close_s)
        self._origin = origin
        self._timeouts = timeouts
        self._ssl_context = ssl_context
        self._max_head_bytes = max_head_bytes
        self._names: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"<NativeTransport {self._origin.scheme}: {self.pool!r}>"

    @property
    def in_use(self) -> int:
        """As `Transport.in_use`."""
        return self.pool.in_use

    @property
    def idle(self) -> int:
        """As `Transport.idle`."""
        return self.pool.idle

    async def send(self, request: UpstreamRequest) -> Reply:
        """As `Transport.send`. Raises ValueError for a request that cannot be written, before anything is sent."""
        head = request.head or serialise_head(request)
        connection = self.pool.take()
        if connection is None:
            started_at_s = asyncio.get_running_loop().time()
            connection = await self._open(started_at_s)
            return await self._exchange(connection, request, head, started_at_s)
        started_at_s = connection.time()
        try:
            return await self._exchange(connection, request, head, started_at_s)
        except ConnectionBroken:
            if not connection.is_unanswered or not _may_be_repeated(request):
                raise
        self.pool.reserve()
        connection = await self._open(started_at_s)
        return await self._exchange(connection, request, head, started_at_s)

    async def close(self) -> None:
        """As `Transport.close`; returns when all sockets are closed."""
        await self.pool.close()

    def _exchange(
        self, connection: Connection, request: UpstreamRequest, head: bytes, started_at_s: float
    ) -> Coroutine[Any, Any, Reply]:
        """Begin the call; what is left to wait for."""
        reply = connection.begin(started_at_s, head_only=request.method == b"HEAD")
        body = request.body
        if not isinstance(body, bytes) or len(body) > ONE_WRITE_BYTES:
            return _send_slowly(connection, reply, request, head)
        try:
            connection.write_whole(head + body)
        except BaseException:
            reply.close()
            raise
        return reply.head()

    async def _open(self, started_at_s: float) -> Connection:
        """A new connection in a slot that is taken already, and free again if this fails."""
        try:
            connection = await self._dial_in_time(started_at_s)
        except BaseException:
            self.pool.release()
            raise
        if self.pool.is_closed:
            self.pool.release()
            connection.drop()
            raise ConnectFailed("the transport is closed")
        if not connection.is_lost:
            self.pool.add(connection)
        return connection

    async def _dial_in_time(self, started_at_s: float) -> Connection:
        phase, limit_s = self._connect_limit()
        try:
            async with Deadline(started_at_s + limit_s if limit_s else None):
                return await dial(self._origin, self._ssl_context, self._new_connection)
        except TimeoutError:
            raise TransportTimeout(phase, limit_s) from None

    def _connect_limit(self) -> tuple[Phase, float]:
        connect_s, total_s = self._timeouts.connect_s, self._timeouts.total_s
        if total_s and (not connect_s or total_s < connect_s):
            return "total", total_s
        return "connect", connect_s

    def _new_connection(self) -> Connection:
        parser = ReplyParser(max_head_bytes=self._max_head_bytes, names=self._names)
        return Connection(self.pool, self._timeouts, parser)


async def _send_slowly(connection: Connection, reply: Reply, request: UpstreamRequest, head: bytes) -> Reply:
    try:
        await send_request(connection, reply, request, head)
    except BaseException:
        reply.close()
        raise
    return await reply.head()


def _may_be_repeated(request: UpstreamRequest) -> bool:
    return request.method in (b"GET", b"HEAD") and isinstance(request.body, bytes)
