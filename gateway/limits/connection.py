"""Run a script on Redis or Valkey within a time: on one server, behind sentinels, or on a cluster.

Knows URLs, connections and scripts that a server has forgotten; knows nothing of limits. What fails is `Away`, whatever
the reason was: nobody waits for a server that has none to give. Nothing is tried again but on a connection that turns
out to have been closed while it was idle; scripts can be run twice.
"""

import asyncio
import contextlib
import functools
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

_CONNECT_TIMEOUT_S = 1.0
"""To connect and log in: longer than a command may take, for TLS over a distance. Calls do not wait for it."""


Argument = str | bytes | int


class Away(Exception):
    """The server did not do what it was asked, or not in time. The text names no address and no password."""


class Script:
    """Some Lua."""

    __slots__ = ("sha", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()


@functools.cache
def script(file_name: str) -> Script:
    """A file beside this module."""
    return Script((files(__package__) / file_name).read_bytes())


class Server(Protocol):
    """Where scripts run. `is_cluster`: the keys of one run must share a hash tag."""

    is_cluster: bool

    async def run(self, script: Script, keys: list[str], *arguments: str | bytes | int, timeout_s: float) -> Any:
        """Run `script`. Raises Away; it may have been run all the same, and even later."""

    async def close(self) -> None: ...


def opened(url: str) -> Server:
    """The server that a `redis.url` names; it connects when it is first used.

    `redis://`, `rediss://`, `unix://` as redis-py reads them; `redis+sentinel://host:port,host:port/service/db`;
    `redis+cluster://host:port,host:port`. `rediss+...` is the same with TLS everywhere.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if kind == "cluster":
        return _Cluster(_hosts(parts.netloc, 6379), _options(url, scheme))
    if kind == "sentinel":
        service, _, db = parts.path.strip("/").partition("/")
        options = {**_options(url, scheme), "db": int(db or 0)}
        return _Single(_BehindSentinels(_hosts(parts.netloc, 26_379), unquote(service), options))
    return _Single(_Direct(url))


class _Single:
    """One connection, one command at a time."""

    is_cluster = False

    def __init__(self, way: "_Way") -> None:
        self._way = way
        self._connection: AbstractConnection | None = None
        self._connecting: asyncio.Task[AbstractConnection] | None = None
        self._turn = asyncio.Lock()

    async def run(self, script: Script, keys: list[str], *arguments: str | bytes | int, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                return await self._run(script, (len(keys), *keys, *arguments))
        except TimeoutError:
            raise Away("no answer in time") from None
        except _failures() as error:
            raise Away(type(error).__name__) from error

    async def _run(self, script: Script, arguments: tuple[Argument, ...]) -> Any:
        from redis.exceptions import ConnectionError as Lost  # noqa: PLC0415  # late, as in `_failures`

        if self._connection is not None:
            with contextlib.suppress(Lost):
                return await self._evaluate(self._connection, script, arguments)
        return await self._evaluate(await self._connected(), script, arguments)

    async def _evaluate(self, connection: "AbstractConnection", script: Script, arguments: tuple[Argument, ...]) -> Any:
        from redis.exceptions import NoScriptError, ResponseError  # noqa: PLC0415

        try:
            try:
                return await _ask(connection, "EVALSHA", script.sha, *arguments)
            except NoScriptError:
                return await _ask(connection, "EVAL", script.text, *arguments)
        except ResponseError:
            # Most of all READONLY: a server that was the master may not be it any more.
            await self._drop()
            raise
        except BaseException:
            # A reply that comes now would be taken for that of the next command.
            await self._drop()
            raise

    async def _connected(self) -> "AbstractConnection":
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
            with contextlib.suppress(*_failures()):
                await connection.disconnect(nowait=True)

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        await self._drop()
        await self._way.close()


class _Way(Protocol):
    async def connect(self) -> "AbstractConnection":
        """A connection that is logged in. Raises one of `_failures`."""

    async def close(self) -> None: ...


class _Direct:
    def __init__(self, url: str) -> None:
        from redis.asyncio import ConnectionPool  # noqa: PLC0415  # late: it takes longer to load than the gateway

        self._pool = ConnectionPool.from_url(url, **_limits_of_time())

    async def connect(self) -> "AbstractConnection":
        return await _connected(self._pool.make_connection())  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self._pool.disconnect()


class _BehindSentinels:
    def __init__(self, hosts: list[tuple[str, int]], service: str, options: dict[str, Any]) -> None:
        from redis.asyncio import Sentinel  # noqa: PLC0415

        tls = {name: value for name, value in options.items() if name.startswith("ssl")}
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]
            hosts, sentinel_kwargs={**tls, **_limits_of_time()}
        )
        self._service = service
        self._options = {**options, **_limits_of_time()}

    async def connect(self) -> "AbstractConnection":
        from redis.asyncio import Connection, SSLConnection  # noqa: PLC0415

        host, port = await self._sentinel.discover_master(self._service)
        options = dict(self._options)
        kind: type[Connection] = SSLConnection if options.pop("ssl", False) else Connection
        return await _connected(kind(host=host, port=port, **options))

    async def close(self) -> None:
        await self._sentinel.aclose()


class _Cluster:
    """As many connections as there are lanes at work; the client knows which node has which slot."""

    is_cluster = True

    def __init__(self, hosts: list[tuple[str, int]], options: dict[str, Any]) -> None:
        from redis.asyncio.cluster import ClusterNode, RedisCluster  # noqa: PLC0415

        self._client: RedisCluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in hosts],
            require_full_coverage=False,
            max_connections=1_000,
            **options,
            **_limits_of_time(),
        )
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, script: Script, keys: list[str], *arguments: str | bytes | int, timeout_s: float) -> Any:
        # Not cancelled when the time is over: the client may be learning anew who has which slot.
        task = asyncio.create_task(self._run(script, (len(keys), *keys, *arguments)))
        self._running.add(task)
        task.add_done_callback(self._forget)
        done, _ = await asyncio.wait((task,), timeout=timeout_s)
        if not done:
            raise Away("no answer in time")
        try:
            return task.result()
        except _failures() as error:
            raise Away(type(error).__name__) from error

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # it was told, or nobody waits for it any more

    async def _run(self, script: Script, arguments: tuple[Argument, ...]) -> Any:
        from redis.exceptions import NoScriptError  # noqa: PLC0415

        try:
            return await self._client.execute_command("EVALSHA", script.sha, *arguments)
        except NoScriptError:
            return await self._client.execute_command("EVAL", script.text, *arguments)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        with contextlib.suppress(*_failures()):
            await self._client.aclose()


async def _connected(connection: "AbstractConnection") -> "AbstractConnection":
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def _ask(connection: "AbstractConnection", *command: Argument) -> Any:  # as above
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    return await connection.read_response(disable_decoding=True)


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for address in netloc.rpartition("@")[2].split(","):
        parts = urlsplit("//" + address)
        hosts.append((parts.hostname or "", parts.port or default_port))
    return hosts


def _options(url: str, scheme: str) -> dict[str, Any]:
    """User, password and TLS, as arguments of redis-py."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    user, _, password = login.partition(":")
    options: dict[str, Any] = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() in ("1", "true", "yes")
    if scheme == "rediss":
        options["ssl"] = True
    return options


def _limits_of_time() -> dict[str, Any]:
    from redis.asyncio.retry import Retry  # noqa: PLC0415  # as above
    from redis.backoff import NoBackoff  # noqa: PLC0415

    return {
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        "socket_timeout": _CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
    }


def _failures() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError  # noqa: PLC0415

    return (RedisError, OSError)
