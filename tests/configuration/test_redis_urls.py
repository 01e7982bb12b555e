"""The forms of `redis.url` that name several servers."""

import pytest

from gateway.store.redis_address import RedisAddress, parse
from tests.configuration.conftest import Read, Refuse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "redis+sentinel://a,b:26380/mymaster",
            RedisAddress("sentinel", (("a", 26_379), ("b", 26_380)), "mymaster", {"db": 0}),
        ),
        (
            "redis+sentinel://me:p%40ss@[::1]:1/main/3",
            RedisAddress("sentinel", (("::1", 1),), "main", {"username": "me", "password": "p@ss", "db": 3}),
        ),
        ("redis+cluster://a,b:7001,c", RedisAddress("cluster", (("a", 6_379), ("b", 7_001), ("c", 6_379)), "", {})),
        (
            "rediss+cluster://:pass@a?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=no",
            RedisAddress(
                "cluster",
                (("a", 6_379),),
                "",
                {"password": "pass", "ssl_ca_certs": "/etc/ca.pem", "ssl_check_hostname": False, "ssl": True},
            ),
        ),
    ],
)
def test_several_servers_are_named_with_commas_between_them(read: Read, url: str, address: RedisAddress) -> None:
    assert read(f"redis: {{url: '{url}'}}").redis.url == url
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+sentinel://a:1,b:2", "must name what the sentinels watch"),
        ("redis+sentinel://a/main/x", "must name what the sentinels watch"),
        ("redis+sentinel://a,,b/main", "must name hosts with commas between them: redis+sentinel://a:26379,b:26379"),
        ("redis+sentinel://a:x/main", "is not a URL: its host or its port cannot be read"),
        ("redis+cluster://", "must name hosts with commas between them"),
        ("redis+cluster://a:0", "is not a URL: its port is 0"),
        ("redis+cluster://a,b/0", "must not name a database"),
        ("redis+cluster://a?db=0", "has an option that is not one of client_name, ssl_ca_certs"),
        ("redis+cluster://a?ssl_cert_reqs=none", "has an option for TLS"),
        ("redis+cluster://u:p@x@a", "holds # or a second @"),
        ("redis+ring://a", "must start with redis:// or rediss://"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(refuse: Refuse, url: str, problem: str) -> None:
    said = "\n".join(refuse(f"redis: {{url: '{url}'}}"))
    assert f"redis.url: {problem}" in said
    assert "p@x" not in said
