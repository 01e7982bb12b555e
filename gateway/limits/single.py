"""One connection to one Redis server, found by its address or by sentinels.

Knows connections, and scripts that a server has forgotten. Nothing is tried again but on a connection that turns out to
have been closed while it was idle; scripts can be run twice. redis-py is imported late: it takes longer to load than
all of a gateway that has no Redis needs to start.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from gateway.limits.patience import Patience
from gateway.limits.server import Argument, Away, Script
from gateway.store.redis_address import RedisAddress, find_master, own_options

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection, Connection

_CONNECT_TIMEOUT_S = 1.0
"""To connect and log in: longer than a command may take, for TLS over a distance. Calls do not wait for it."""


class Way(Protocol):
    """How to reach a server."""

    async def connect(self) -> "AbstractConnection":
        """A connection that is logged in. Raises one of `failures`."""


class Single:
    """One connection, one command at a time; what comes meanwhile waits for its turn."""

    is_cluster = False

    def __init__(self, way: Way) -> None:
        self._way = way
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[AbstractConnection] | None = None
        self._turn = asyncio.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"Single(connected={self._connection is not None}, busy={self.is_busy})"

    @property
    def is_busy(self) -> bool:
        return self._turn.locked()

    async def run(self, script: Script, keys: list[str], *arguments: Argument, patience: Patience) -> Any:
        """As `Server.run`."""
        try:
            async with patience:
                return await self.evaluate(script, (len(keys), *keys, *arguments))
        except TimeoutError:
            raise Away("no answer in time") from None
        except failures() as error:
            raise Away(type(error).__name__) from error

    async def evaluate(self, script: Script, arguments: tuple[Argument, ...], *, is_asking: bool = False) -> Any:
        """Run a script, `arguments` as EVALSHA takes them. Raises one of `failures`; takes as long as it takes."""
        from redis.exceptions import ConnectionError as Lost  # noqa: PLC0415

        async with self._turn:
            if self._connection is not None:
                with contextlib.suppress(Lost):
                    return await self._evaluate(self._connection, script, arguments, is_asking)
            return await self._evaluate(await self._connected(), script, arguments, is_asking)

    async def command(self, *words: Argument) -> Any:
        """Any one command. Raises one of `failures`."""
        async with self._turn:
            connection = self._connection or await self._connected()
            try:
                return await _ask(connection, *words)
            except BaseException:
                await self._drop()
                raise

    async def close(self) -> None:
        """Close the connection, for good."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        await self._drop()

    async def _evaluate(
        self, connection: "AbstractConnection", script: Script, arguments: tuple[Argument, ...], is_asking: bool
    ) -> Any:
        from redis.exceptions import NoScriptError  # noqa: PLC0415

        try:
            if is_asking:
                await _ask(connection, "ASKING")
            try:
                return await _ask(connection, "EVALSHA", script.sha, *arguments)
            except NoScriptError:
                if is_asking:
                    await _ask(connection, "ASKING")
                return await _ask(connection, "EVAL", script.text, *arguments)
        except BaseException:
            # A reply that comes later would be taken for that of the next command; and what refuses to do something
            # may not be the master any more.
            await self._drop()
            raise

    async def _connected(self) -> "AbstractConnection":
        if self._is_closed:
            raise Away("closed")
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._way.connect())
            self._connecting.add_done_callback(self._take)
        return await asyncio.shield(self._connecting)

    def _take(self, connecting: "asyncio.Task[AbstractConnection]") -> None:
        self._connecting = None
        if not connecting.cancelled() and connecting.exception() is None:
            self._connection = connecting.result()
            # `run` keeps the time itself; redis-py would start a task for every command.
            self._connection.socket_timeout = None

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*failures()):
                await connection.disconnect(nowait=True)


class ByUrl:
    """`redis://`, `rediss://` or `unix://`, as redis-py reads them."""

    def __init__(self, url: str) -> None:
        from redis.asyncio import ConnectionPool  # noqa: PLC0415

        self._pool = ConnectionPool.from_url(url, **own_options(_CONNECT_TIMEOUT_S))

    async def connect(self) -> "AbstractConnection":
        return await _connected(self._pool.make_connection())  # type: ignore[no-untyped-call]


class ByAddress:
    """`options` are redis-py's; `ssl` among them means TLS."""

    def __init__(self, host: str, port: int, options: dict[str, Any]) -> None:
        self._host = host
        self._port = port
        self._options = options

    async def connect(self) -> "AbstractConnection":
        return await _connected(made(self._host, self._port, self._options))


class BySentinels:
    """The master, whichever that is when it connects."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address

    async def connect(self) -> "AbstractConnection":
        host, port = await find_master(self._address, own_options(_CONNECT_TIMEOUT_S))
        return await _connected(made(host, port, self._address.options))


def made(host: str, port: int, options: dict[str, Any]) -> "Connection":
    """A connection that is not connected yet."""
    from redis.asyncio import Connection, SSLConnection  # noqa: PLC0415

    rest = {name: value for name, value in options.items() if name != "ssl"}
    kind = SSLConnection if options.get("ssl") else Connection
    return kind(host=host, port=port, **rest, **own_options(_CONNECT_TIMEOUT_S))


def failures() -> tuple[type[Exception], ...]:
    """What goes wrong with a server."""
    from redis.exceptions import RedisError  # noqa: PLC0415

    return (RedisError, OSError)


async def _connected(connection: "AbstractConnection") -> "AbstractConnection":
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def _ask(connection: "AbstractConnection", *command: Argument) -> Any:
    try:
        await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    except AttributeError as error:  # asyncio's own loop, before Python 3.13.6: github.com/python/cpython/issues/136234
        raise ConnectionResetError("the connection broke off as it was written to") from error
    return await connection.read_response(disable_decoding=True)
