"""What becomes known of a call only after its end is charged whether it fits or not, wherever limits are counted."""

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from gateway.limits.fallback import LocalShare
from gateway.limits.rules import Rule
from tests.limits.household import SECOND, Bench, Household
from tests.limits.memory_bench import MemoryBench
from tests.limits.redis_bench import RedisBench
from tests.limits.servers import shared_cluster, shared_server


class ChargeContract:
    """The suite."""

    @pytest.fixture
    def house(self, bench: Bench) -> Household:
        return Household(bench)

    async def charge(
        self, house: Household, charges: Mapping[Rule, int], endpoint: Mapping[Rule, int] | None = None
    ) -> None:
        house.limiter.charge(house.call(charges, endpoint))
        await house.bench.arrived()

    async def test_it_leaves_as_much_as_if_a_call_had_taken_it(self, house: Household) -> None:
        tokens, budget = house.rate(600, "tokens"), house.budget(600)
        endpoint = house.rate(600, "tokens", whose="endpoint")
        await house.admit({tokens: 1, budget: 1}, {endpoint: 1})
        await self.charge(house, {tokens: 100, budget: 200}, {endpoint: 300})
        assert await house.left(tokens, budget, endpoint) == [499, 399, 299]

    async def test_more_than_there_is_becomes_debt(self, house: Household) -> None:
        tokens, budget = house.rate(600, "tokens"), house.budget(600)
        await house.admit({tokens: 1, budget: 1})
        await self.charge(house, {tokens: 1_199, budget: 6_000})
        assert await house.left(tokens, budget) == [0, 0]
        assert (await house.refuse({tokens: 1})).retry_after_us == 60 * SECOND + 100_000
        await house.refuse({budget: 1})

    async def test_a_rate_that_was_idle_is_charged_from_now_on(self, house: Household) -> None:
        tokens = house.rate(600, "tokens")
        await house.admit({tokens: 600})
        await house.bench.advance(3_600 * SECOND)
        await self.charge(house, {tokens: 500})
        assert await house.left(tokens) == [100]

    async def test_a_budget_gets_back_what_was_reserved_too_much_and_never_more_than_was_spent(
        self, house: Household
    ) -> None:
        budget = house.budget(600)
        await house.admit({budget: 500})
        await self.charge(house, {budget: -200})
        assert await house.left(budget) == [300]
        await house.admit({budget: 300})
        await house.limiter.reset([budget])
        await self.charge(house, {budget: -200})
        assert await house.left(budget) == [600]

    async def test_it_holds_no_slot_and_is_no_call(self, house: Household) -> None:
        tokens, slots = house.rate(600, "tokens"), house.slots(1)
        late = house.call({tokens: 100})
        house.limiter.charge(late)
        await house.bench.arrived()
        house.limiter.settle(late, {tokens.id: 0})
        await house.bench.arrived()
        assert await house.left(tokens, slots) == [500, 1]


class TestMemory(ChargeContract):
    @pytest.fixture
    def bench(self) -> Bench:
        return MemoryBench()


class TestRedis(ChargeContract):
    @pytest.fixture(params=["redis", "cluster"])
    async def bench(self, request: pytest.FixtureRequest) -> AsyncIterator[RedisBench]:
        url = shared_cluster().url if request.param == "cluster" else shared_server(request.param).url
        bench = RedisBench(url)
        yield bench
        await bench.limiter.close()


class Ledger:
    """What was spent, kept elsewhere."""

    def __init__(self) -> None:
        self.microusd = 0

    async def load(self, rules: Sequence[Rule]) -> Mapping[str, int]:
        return {rule.id: self.microusd for rule in rules}


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_a_budget_that_has_not_been_read_yet_holds_it_once_it_is(where: str) -> None:
    ledger = Ledger()
    bench: MemoryBench | RedisBench = (
        MemoryBench(ledger.load) if where == "memory" else RedisBench(shared_server("redis").url, ledger.load)
    )
    house = Household(bench)
    budget = house.budget(600)
    ledger.microusd = 250  # the late charge, which is written down first
    house.limiter.charge(house.call({budget: 250}))
    await bench.arrived()
    await house.admit({budget: 50})
    assert await house.left(budget) == [300]
    await bench.limiter.close()


async def test_while_redis_is_away_this_nodes_share_holds_it() -> None:
    bench = MemoryBench()
    house, share = Household(bench), LocalShare()
    tokens, budget = house.rate(600, "tokens"), house.budget(600)
    share.charge(house.call({tokens: 100}))  # Redis is there, and is told
    share.enter([], {}, nodes=2)
    share.charge(house.call({tokens: 100, budget: 50}))
    assert [each.remaining for each in await share.standings([tokens, budget])] == [200, 250]
