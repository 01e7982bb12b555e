"""Redis has no memory left: what would take some is refused whole, by every kind of limit; what makes room is done."""

from collections.abc import AsyncIterator

import pytest

from gateway.errors import StoreUnavailable
from gateway.limits.redis_keys import hash_key
from tests.limits.household import SECOND, Household
from tests.limits.redis_bench import RedisBench
from tests.limits.servers import KINDS, Server


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    server = Server(request.param)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def bench(server: Server) -> AsyncIterator[RedisBench]:
    bench = RedisBench(server.url, on_failure="closed")
    yield bench
    await bench.limiter.close()


def fill(server: Server) -> None:
    """From now on it has more in it than it may."""
    server.command("CONFIG", "SET", "maxmemory", 1)


@pytest.mark.parametrize("kind", ["requests", "parallel", "budget"])
async def test_whichever_limit_a_call_has_it_changes_nothing_in_a_full_redis(
    server: Server, bench: RedisBench, kind: str
) -> None:
    house = Household(bench)
    rule = {"requests": house.rate(9), "parallel": house.slots(9), "budget": house.budget(9)}[kind]
    await house.admit({rule: 1})
    fill(server)
    with pytest.raises(StoreUnavailable):
        await bench.limiter.admit(house.call({rule: 1}))
    server.command("CONFIG", "SET", "maxmemory", 0)
    assert await bench.limiter._lane(house.team).recover([])
    assert await house.left(rule) == [8]


async def test_a_full_redis_is_swept_and_calls_that_are_lost_give_back_their_budgets(
    server: Server, bench: RedisBench
) -> None:
    house = Household(bench)
    budget, dead = house.budget(9), RedisBench(server.url, clock=bench.clock)
    assert (await dead.limiter.admit(house.call({budget: 9}))).admitted
    await dead.die()
    await bench.advance(121 * SECOND)
    fill(server)
    await bench.limiter._sweeper.sweep_one(house.team)
    server.command("CONFIG", "SET", "maxmemory", 0)
    assert await house.left(budget) == [9]
    assert server.command("HLEN", hash_key(house.team)) == 2  # the clock and the budget
