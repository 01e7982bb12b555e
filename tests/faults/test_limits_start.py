"""Gateways that start while Redis is away: together they admit what is allowed, as far as they know of each other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from gateway.limits.connection import opened
from gateway.limits.nodes import Nodes
from gateway.limits.redis import RedisLimiter
from gateway.limits.rules import Charge, Demand, Rule
from tests.faults.face import CHAT, ask, post
from tests.faults.process import serving
from tests.limits.household import new_id
from tests.limits.servers import Server
from tests.support.gateway import running_gateway
from tests.support.ports import free_port
from tests.support.wire import WireUpstream, reply

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
REQUESTS = Rule("team_1/requests/hour", "requests", "team", "hour", 30)
GATEWAYS = 3


@asynccontextmanager
async def gateways(url: str, folder: Path) -> AsyncIterator[list[RedisLimiter]]:
    """Each with a folder of its own."""
    async with AsyncExitStack() as stack:
        limiters = [RedisLimiter(opened(url), nodes=Nodes(folder / str(number))) for number in range(GATEWAYS)]
        for limiter in limiters:
            stack.push_async_callback(limiter.close)
        yield limiters


async def admitted(limiter: RedisLimiter) -> int:
    """Of a crowd that calls."""
    charges = (Charge(REQUESTS, 1),)
    decisions = [await limiter.admit(Demand(new_id(), "team_1", charges)) for _ in range(2 * REQUESTS.limit)]
    return sum(decision.admitted for decision in decisions)


async def test_gateways_that_were_many_share_the_limit_after_a_restart_without_redis(tmp_path: Path) -> None:
    server = Server()
    server.start()
    async with gateways(server.url, tmp_path) as before:
        for limiter in (*before, *before):  # who has counted once knows only of those that came before
            await limiter._nodes.count(limiter._server, limiter.node)
    server.kill()
    async with gateways(server.url, tmp_path) as after:
        assert [await admitted(limiter) for limiter in after] == [10, 10, 10]
    server.close()


async def test_a_gateway_that_starts_without_redis_admits_its_share_of_the_number_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "limits.nodes").write_text("3")
    limits, url = {"each_key": {"requests_per_hour": 30}}, f"redis://127.0.0.1:{free_port()}"
    async with WireUpstream(OK) as upstream:
        server = {"state_dir": str(tmp_path)}
        with running_gateway(f"{upstream.url}/v1", limits=limits, redis={"url": url}, server=server) as gateway:
            answers = [(await ask(gateway.port, post(CHAT, {}))).status for _ in range(40)]
    assert (answers.count(200), answers.count(429)) == (10, 30)


async def test_workers_that_start_without_redis_admit_the_limit_together() -> None:
    url, limits = f"redis://127.0.0.1:{free_port()}", '{"requests_per_hour": 30}'
    async with serving(
        OK, arguments=("--workers", "2"), GATEWAY_REDIS_URL=url, GATEWAY_LIMITS_EACH_KEY=limits
    ) as gateway:
        answers = await asyncio.gather(*(ask(gateway.port, post(CHAT, {})) for _ in range(100)))
        statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429}
    assert 15 <= statuses.count(200) <= 30
