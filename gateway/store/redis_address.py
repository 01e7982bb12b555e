"""What a `redis.url` names: one server, a master that sentinels know, or a cluster; and a client for it.

The client is for what needs no particular node: messages between gateways, and a look whether Redis is there. redis-py
is imported late: it takes longer to load than all of a gateway that has no Redis needs to start.
"""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from redis.asyncio import Connection, Redis

_TRUE = ("1", "true", "yes")
Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """`options` are redis-py's (user, password, database, TLS), `ssl` among them means TLS. `service`: of sentinels."""

    kind: Literal["sentinel", "cluster"]
    hosts: tuple[Host, ...]
    service: str
    options: dict[str, Any]


def parse(url: str) -> RedisAddress | None:
    """None: one server, of whose URL redis-py makes everything itself.

    `redis+sentinel://host:port,host:port/service/db`, `redis+cluster://host:port,host:port`; `rediss+...` is the same
    with TLS everywhere. Raises ValueError for a scheme that is none of these.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if not kind:
        return None
    options = _options(parts.netloc, parts.query, is_tls=scheme == "rediss")
    if kind == "cluster":
        return RedisAddress("cluster", _hosts(parts.netloc, 6379), "", options)
    if kind == "sentinel":
        service, _, db = parts.path.strip("/").partition("/")
        return RedisAddress("sentinel", _hosts(parts.netloc, 26_379), unquote(service), {**options, "db": int(db or 0)})
    raise ValueError("a Redis is found by sentinels or as a cluster")


def client(url: str, timeout_s: float) -> "Redis":
    """A client that tries nothing twice. Each time that it connects it asks the sentinels anew, or takes the next node
    of a cluster.
    """
    from redis.asyncio import ConnectionPool, Redis  # noqa: PLC0415

    own = own_options(timeout_s)
    address = parse(url)
    if address is None:
        return Redis.from_url(url, **own)
    options = {name: value for name, value in address.options.items() if name != "ssl"}
    return Redis.from_pool(ConnectionPool(connection_class=_roaming(address, own), **options, **own))


def own_options(timeout_s: float) -> dict[str, Any]:
    """How a gateway uses redis-py: soon an answer, or none."""
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    return {
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
    }


async def find_master(address: RedisAddress, own: dict[str, Any]) -> Host:
    """Whom the sentinels take for the master now. Raises redis-py's errors."""
    from redis.asyncio import Sentinel  # noqa: PLC0415

    # User and password are the servers' alone.
    tls = {name: value for name, value in address.options.items() if name.startswith("ssl")}
    sentinel = Sentinel(list(address.hosts), sentinel_kwargs={**tls, **own})  # type: ignore[no-untyped-call]
    try:
        host: Host = await sentinel.discover_master(address.service)
    finally:
        await sentinel.aclose()
    return host


def _roaming(address: RedisAddress, own: dict[str, Any]) -> "type[Connection]":
    from redis.asyncio import Connection, SSLConnection  # noqa: PLC0415

    hosts = itertools.cycle(address.hosts)
    kind: type[Connection] = SSLConnection if address.options.get("ssl") else Connection

    class Roaming(kind):  # type: ignore[valid-type, misc]
        async def _connect(self) -> None:
            is_cluster = address.kind == "cluster"
            self.host, self.port = next(hosts) if is_cluster else await find_master(address, own)
            await super()._connect()

    return Roaming


def _hosts(netloc: str, default_port: int) -> tuple[Host, ...]:
    addresses = [urlsplit("//" + address) for address in netloc.rpartition("@")[2].split(",")]
    return tuple((address.hostname or "", address.port or default_port) for address in addresses)


def _options(netloc: str, query: str, *, is_tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {name: values[0] for name, values in parse_qs(query).items()}
    user, _, password = netloc.rpartition("@")[0].partition(":")
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() in _TRUE
    if is_tls:
        options["ssl"] = True
    return options
