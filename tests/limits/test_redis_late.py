"""A gateway whose own event loop is late, and a Redis that is not: what Redis has said in time is what counts."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from gateway.limits.connection import opened
from gateway.limits.patience import Patience
from gateway.limits.redis import RedisLimiter
from gateway.limits.rules import Charge, Demand, Rule
from gateway.limits.server import Argument, Script
from gateway.limits.server import Server as Way
from tests.limits.household import new_id
from tests.limits.servers import Server, shared_cluster, shared_server

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
LATE_S = 0.15
"""Longer than a call may wait for Redis."""
_REST_S = 0.01


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Either loop: the one reads before it looks at timers, the other afterwards."""
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.close()


class Interrupted:
    """The way to a server; as soon as something was sent there, the loop does other things for so long."""

    def __init__(self, url: str) -> None:
        self._way = opened(url)
        self.is_cluster = self._way.is_cluster
        self.for_s = 0.0

    async def run(self, script: Script, keys: list[str], *arguments: Argument, patience: Patience) -> Any:
        asyncio.get_running_loop().call_soon(time.sleep, self.for_s)
        return await self._way.run(script, keys, *arguments, patience=patience)

    async def close(self) -> None:
        await self._way.close()


@asynccontextmanager
async def limiting(way: Way) -> AsyncIterator[RedisLimiter]:
    """A limiter that is connected, to a server that knows the script."""
    limiter = RedisLimiter(way)
    try:
        while not limiter.figures.round_trips:
            await limiter.standings([Rule("team_late/parallel", "parallel", "team", None, 1)])
        limiter.figures.failures = limiter.figures.without = 0
        yield limiter
    finally:
        await limiter.close()


def demands(count: int) -> list[Demand]:
    """Calls of a team of which ten may run at once."""
    ten = Rule(f"team_late/{new_id()}/parallel", "parallel", "team", None, 10)
    return [Demand(new_id(), "team_late", (Charge(ten, 1),)) for _ in range(count)]


async def admitted(limiter: RedisLimiter, calls: list[Demand]) -> int:
    """How many of those that ask together are."""
    return sum([decision.admitted for decision in await asyncio.gather(*map(limiter.admit, calls))])


@asynccontextmanager
async def busy(turn_s: float) -> AsyncIterator[None]:
    """Each turn of the loop takes so long."""
    loop, is_over = asyncio.get_running_loop(), False

    def work() -> None:
        if not is_over:
            until_s = time.monotonic() + turn_s
            while time.monotonic() < until_s:
                pass
            loop.call_soon(work)

    loop.call_soon(work)
    yield
    is_over = True


@pytest.mark.parametrize("shared", [lambda: shared_server("valkey"), shared_cluster], ids=["single", "cluster"])
def test_what_redis_said_in_time_counts_though_the_loop_was_late_to_read_it(
    runner: asyncio.Runner, shared: Callable[[], Server]
) -> None:
    async def test() -> None:
        way = Interrupted(shared().url)
        async with limiting(way) as limiter:
            way.for_s = LATE_S
            assert await admitted(limiter, demands(20)) == 10
            assert (limiter.figures.failures, limiter.figures.without) == (0, 0)

    runner.run(test())


@pytest.mark.parametrize("turn_s", [0.01, 0.04, LATE_S])
def test_of_250_calls_on_a_loop_that_is_always_late_redis_decides_all(runner: asyncio.Runner, turn_s: float) -> None:
    async def test() -> None:
        async with limiting(opened(shared_server("valkey").url)) as limiter, busy(turn_s):
            assert await admitted(limiter, demands(250)) == 10
            assert (limiter.figures.failures, limiter.figures.without) == (0, 0)

    runner.run(test())


@asynccontextmanager
async def counted_rests() -> AsyncIterator[Callable[[], float]]:
    """For how long the loop could have rested in the block, in seconds.

    Counted are short rests. They end as late as all that waits on the loop, whoever else has the processor, so this
    tells what waits once from what waits for each of many.
    """
    count = 0

    async def rest() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(_REST_S)
            count += 1

    task = asyncio.create_task(rest())
    yield lambda: count * _REST_S
    task.cancel()


@pytest.mark.parametrize("turn_s", [0.0, 0.02])
def test_a_redis_that_hangs_is_done_without_soon_however_late_the_loop_is(
    runner: asyncio.Runner, server: Server, turn_s: float
) -> None:
    async def test() -> None:
        async with limiting(opened(server.url)) as limiter:
            with server.frozen():
                async with busy(turn_s), counted_rests() as rested_s:
                    assert await admitted(limiter, demands(64)) == 10
                    assert 0 < rested_s() <= LATE_S
                assert limiter.figures.without == 64

    runner.run(test())
