"""From a `redis.url` to the server that it names."""

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gateway.limits.cluster import Cluster
from gateway.limits.server import Server
from gateway.limits.single import BySentinels, ByUrl, Single

_TRUE = ("1", "true", "yes")


def opened(url: str) -> Server:
    """The server; it connects when it is first used.

    `redis://`, `rediss://`, `unix://` as redis-py reads them; `redis+sentinel://host:port,host:port/service/db`;
    `redis+cluster://host:port,host:port`. `rediss+...` is the same with TLS everywhere.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if kind == "cluster":
        return Cluster(_hosts(parts.netloc, 6379), _options(url, scheme))
    if kind == "sentinel":
        service, _, db = parts.path.strip("/").partition("/")
        options = {**_options(url, scheme), "db": int(db or 0)}
        return Single(BySentinels(_hosts(parts.netloc, 26_379), unquote(service), options))
    return Single(ByUrl(url))


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    addresses = [urlsplit("//" + address) for address in netloc.rpartition("@")[2].split(",")]
    return [(address.hostname or "", address.port or default_port) for address in addresses]


def _options(url: str, scheme: str) -> dict[str, Any]:
    """User, password and TLS, as arguments of redis-py."""
    parts = urlsplit(url)
    options: dict[str, Any] = {name: values[0] for name, values in parse_qs(parts.query).items()}
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() in _TRUE
    if scheme == "rediss":
        options["ssl"] = True
    return options
