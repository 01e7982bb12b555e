"""A limiter finds its Redis by every kind of URL, and finds it again when it has moved."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from redis.crc import key_slot

from gateway.errors import StoreUnavailable
from gateway.limits.connection import opened
from gateway.limits.redis import RedisLimiter
from gateway.limits.redis_keys import hash_key
from gateway.limits.redis_options import Timing
from gateway.limits.rules import Charge, Demand, Rule
from gateway.store.redis_address import client
from tests.limits.household import new_id
from tests.limits.servers import Cluster, Server, binary, shared_cluster
from tests.support.ports import free_port

_BACK_S = 15.0
ALLOWED = ("~gateway:*", "&gateway:*", "-@all", "+@read", "+@write", "+@scripting", "+@connection", "+@pubsub", "+time")
"""What a user needs to be allowed."""


def demand(team: str) -> Demand:
    rules = [
        Rule(f"{team}/requests/day", "requests", "team", "day", 1_000),
        Rule(f"{team}/parallel", "parallel", "team", None, 1_000),
    ]
    return Demand(f"call_{new_id()}", team, tuple(Charge(rule, 1) for rule in rules))


def limiter_of(url: str) -> RedisLimiter:
    return RedisLimiter(opened(url), on_failure="closed", timing=Timing(budget_s=5, probe_s=0.05))


async def is_at_work(url: str) -> None:
    """A call is admitted, everything in the background works, and so does the client for messages."""
    limiter = limiter_of(url)
    limiter.start()
    call = demand("team_1")
    decision = await limiter.admit(call)
    assert [standing.remaining for standing in decision.standings] == [999, 999]
    limiter.settle(call, {})
    await limiter.flush()
    await limiter._sweeper.sweep_one("team_1")
    assert [standing.remaining for standing in await limiter.standings([c.rule for c in call.charges])] == [999, 1_000]
    await limiter.close()
    messenger = client(url, 5)
    assert await messenger.ping()
    await messenger.aclose()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """With the options that the test names."""
    server = Server("valkey", *getattr(request, "param", ()))
    server.start()
    yield server
    server.close()


async def test_by_a_socket(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    server = Server("valkey", "--unixsocket", str(socket))
    server.start()
    await is_at_work(f"unix://{socket}")
    server.close()


@pytest.mark.parametrize("server", [("--user", "gate", "on", ">p@ss/word", *ALLOWED)], indirect=True)
async def test_as_a_user_that_may_do_only_what_a_gateway_needs(server: Server) -> None:
    await is_at_work(f"redis://gate:p%40ss%2Fword@127.0.0.1:{server.port}/0")


async def test_in_a_database_of_its_own(server: Server) -> None:
    await is_at_work(f"redis://127.0.0.1:{server.port}/5")
    assert server.command("DBSIZE") == 0


async def test_over_tls_and_only_where_the_certificate_is_good(tmp_path: Path) -> None:
    authority, port = trustme.CA(), free_port()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    options = {"key-file": "key.pem", "cert-file": "cert.pem", "ca-cert-file": "ca.pem"}
    files = [word for name, file in options.items() for word in (f"--tls-{name}", str(tmp_path / file))]
    # The Valkey of the development packages is built without TLS.
    server = Server("redis", "--tls-port", str(port), "--tls-auth-clients", "no", *files)
    server.start()
    await is_at_work(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")
    stranger = limiter_of(f"rediss://127.0.0.1:{port}/0")
    with pytest.raises(Exception, match="cannot check limits"):
        await stranger.admit(demand("team_1"))
    await stranger.close()
    server.close()


class Watched:
    """A master, a replica and a sentinel that watches them."""

    def __init__(self, folder: Path) -> None:
        self.master, self.replica = Server(), Server()
        file = folder / "sentinel.conf"
        file.write_text(
            f"sentinel monitor main 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
        )
        self.sentinel = Server("valkey", "--sentinel")
        # A sentinel keeps what it knows in its configuration file, which has to come first.
        self.sentinel._command = [binary("valkey"), str(file), "--sentinel"]

    def start(self) -> None:
        self.master.start()
        self.replica.start()
        self.replica.command("REPLICAOF", "127.0.0.1", self.master.port)
        self.replica.says(b"Finished with success")
        self.master.says(b"succeeded")  # the synchronisation, as it sees it
        self.sentinel.start(ready=b"+monitor master main")
        self.sentinel.says(b"+slave slave 127.0.0.1:%d" % self.replica.port)

    def close(self) -> None:
        for server in (self.sentinel, self.replica, self.master):
            server.close()


async def test_by_sentinels_and_after_a_failover_at_the_new_master_with_what_was_counted(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.start()
    url = f"redis+sentinel://127.0.0.1:{watched.sentinel.port}/main"
    await is_at_work(url)
    limiter, first, second = limiter_of(url), demand("team_2"), demand("team_2")
    assert (await limiter.admit(first)).admitted
    watched.master.command("WAIT", 1, 1_000)
    watched.master.kill()
    admitted = await _until_admitted(limiter, second)
    assert admitted == [998, 998]
    await limiter.close()
    watched.close()


async def _until_admitted(limiter: RedisLimiter, call: Demand) -> list[int]:
    deadline = time.monotonic() + _BACK_S
    while True:
        try:
            return [standing.remaining for standing in (await limiter.admit(call)).standings]
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_a_cluster_is_found_by_any_of_its_nodes() -> None:
    cluster = shared_cluster()
    for node in cluster.nodes:
        url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{node.port}"
        limiter = limiter_of(url)
        for _ in range(5):
            assert (await limiter.admit(demand(f"team_{new_id()}"))).admitted
        await limiter.close()
        messenger = client(url, 5)
        with pytest.raises(Exception, match="Error"):
            await messenger.ping()
        assert await messenger.ping()
        await messenger.aclose()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One that a test may harm."""
    cluster = Cluster()
    cluster.start()
    yield cluster
    cluster.close()


async def test_a_slot_that_has_moved_is_followed_and_a_lost_node_harms_its_own_teams_alone(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    limiter = limiter_of(cluster.url)
    at_first, at_last = _team_in(range(5_000)), _team_in(range(11_000, 16_384))
    assert (await limiter.admit(demand(at_first))).admitted
    slot, taker = key_slot(hash_key(moving := _team_in(range(5_000))).encode()), cluster.nodes[2]
    for node in cluster.nodes[::-1]:
        node.command("CLUSTER", "SETSLOT", slot, "NODE", taker.command("CLUSTER", "MYID"))  # type: ignore[arg-type]
    assert (await limiter.admit(demand(moving))).admitted
    assert taker.command("EXISTS", hash_key(moving)) == 1
    assert limiter.figures.failures == 0
    cluster.nodes[0].kill()
    assert (await limiter.admit(demand(at_last))).admitted
    with pytest.raises(Exception, match="cannot check limits"):
        await limiter.admit(demand(at_first))
    assert (await limiter.admit(demand(at_last))).admitted
    await limiter.close()


def _team_in(slots: range) -> str:
    while key_slot(hash_key(team := f"team_{os.urandom(4).hex()}").encode()) not in slots:
        pass
    return team
