"""From a `redis.url` to the server that it names."""

from gateway.limits.cluster import Cluster
from gateway.limits.server import Server
from gateway.limits.single import BySentinels, ByUrl, Single
from gateway.store.redis_address import parse


def opened(url: str) -> Server:
    """The server, by any URL that `gateway.store.redis_address` reads; it connects when it is first used."""
    address = parse(url)
    if address is None:
        return Single(ByUrl(url))
    if address.kind == "cluster":
        return Cluster(address.hosts, address.options)
    return Single(BySentinels(address))
