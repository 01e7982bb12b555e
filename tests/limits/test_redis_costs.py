"""What a limiter in Redis asks of it, and what it remembers so as not to ask."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.limits.batch import HASH_S
from gateway.limits.connection import opened
from gateway.limits.limiter import Limiter
from gateway.limits.patience import Patience
from gateway.limits.redis import RedisLimiter
from gateway.limits.redis_keys import MAX_US, Cell, hash_key
from gateway.limits.redis_options import Timing
from gateway.limits.rules import Charge, Demand, Rule
from gateway.limits.server import Argument, Script
from tests.limits.household import HOUR, SECOND, Household, ask, new_id
from tests.limits.redis_bench import Clock, RedisBench
from tests.limits.servers import Server, shared_cluster, shared_server


@pytest.fixture
async def bench() -> AsyncIterator[RedisBench]:
    bench = RedisBench(shared_server("valkey").url)
    yield bench
    await bench.limiter.close()


@pytest.fixture
def house(bench: RedisBench) -> Household:
    return Household(bench)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    server.start()
    yield server
    server.close()


# Round trips


def demands(team: str, count: int) -> list[Demand]:
    """Calls of one key, with six rules."""
    rules = [
        Rule(f"{team}/key_1/requests/minute", "requests", "key", "minute", 1_000_000),
        Rule(f"{team}/key_1/tokens/minute", "tokens", "key", "minute", 1_000_000_000),
        Rule(f"{team}/requests/minute", "requests", "team", "minute", 1_000_000),
        Rule(f"{team}/key_1/parallel", "parallel", "key", None, 1_000),
        Rule(f"{team}/budget/total", "budget", "team", "total", 1_000_000_000),
    ]
    endpoint = Charge(Rule("endpoint/1/requests/minute", "requests", "endpoint", "minute", 1_000_000), 1)
    charges = tuple(Charge(rule, 1) for rule in rules)
    return [Demand(f"call_{new_id()}", team, charges, (endpoint,)) for _ in range(count)]


async def go(limiter: Limiter, calls: list[Demand]) -> None:
    for demand in calls:
        assert (await ask(limiter, demand)).admitted
        limiter.settle(demand, {})


async def test_calls_one_after_the_other_take_one_command_each(server: Server) -> None:
    limiter = RedisLimiter(opened(server.url), timing=Timing(budget_s=5))
    await go(limiter, demands("team_1", 1))
    await limiter.flush()
    before = server.evaluations()
    await go(limiter, demands("team_1", 100))
    # All ends but the last ride with the call that follows.
    assert server.evaluations() - before <= 101
    await limiter.close()


async def test_calls_of_many_teams_that_come_together_share_commands(server: Server) -> None:
    limiter = RedisLimiter(opened(server.url), timing=Timing(budget_s=5))
    await asyncio.gather(*(go(limiter, demands(f"team_{number % 8}", 20)) for number in range(64)))
    await limiter.flush()
    assert server.evaluations() <= 64 * 20 / 10
    await limiter.close()


async def test_on_a_cluster_teams_and_endpoints_are_steps_of_their_own_and_share_no_command() -> None:
    cluster = shared_cluster()
    limiter = RedisLimiter(opened(cluster.url), timing=Timing(budget_s=5))
    await asyncio.gather(*(go(limiter, demands(f"team_{new_id()}", 5)) for _ in range(20)))
    await limiter.flush()
    assert limiter.figures.failures == 0
    await limiter.close()


# Slots that come free on other nodes


class Freeing:
    """Has a call of another node end after so many round trips of `bench`'s, and Redis hear of it."""

    def __init__(self, bench: RedisBench, other: RedisBench, theirs: Demand, after: int) -> None:
        self.round_trips = 0
        self._run, bench.server.run = bench.server.run, self.run  # type: ignore[method-assign]
        self._other, self._theirs, self._after = other, theirs, after

    async def run(self, script: Script, keys: list[str], *arguments: Argument, patience: Patience) -> Any:
        answer = await self._run(script, keys, *arguments, patience=patience)
        self.round_trips += 1
        if self.round_trips == self._after:
            self._other.limiter.cancel(self._theirs)
            await self._other.arrived()
        return answer


@pytest.mark.parametrize(("after", "is_admitted"), [(1, True), (2, True), (3, True), (4, False)])
async def test_a_call_that_lacks_a_slot_alone_is_tried_three_times_more(
    bench: RedisBench, house: Household, after: int, is_admitted: bool
) -> None:
    other, slots = RedisBench(shared_server("valkey").url, clock=bench.clock), house.slots(1)
    theirs, ours = house.call({slots: 1}), house.call({slots: 1})
    assert (await other.limiter.admit(theirs)).admitted
    freeing = Freeing(bench, other, theirs, after)
    began_s = asyncio.get_running_loop().time()
    assert (await bench.limiter.admit(ours)).admitted == is_admitted
    assert asyncio.get_running_loop().time() - began_s < 0.5
    assert freeing.round_trips == min(after + 1, 4)
    await other.limiter.close()


async def test_a_call_that_lacks_more_than_a_slot_or_is_asked_for_again_anyway_is_refused_at_once(
    bench: RedisBench, house: Household
) -> None:
    slots, rate = house.slots(1), house.rate(1)
    await house.admit({slots: 1, rate: 1})
    before = bench.limiter.figures.round_trips
    assert not (await bench.limiter.admit(house.call({slots: 1, rate: 1}))).admitted
    assert not (await bench.limiter.admit(house.call({slots: 1}), asks_again=True)).admitted
    assert bench.limiter.figures.round_trips == before + 2


# Refusals that are remembered


async def test_a_client_that_hammers_costs_no_round_trip(house: Household, bench: RedisBench) -> None:
    rule = house.rate(1)
    await house.admit({rule: 1})
    await house.refuse({rule: 1})
    before = bench.limiter.figures.round_trips
    for _ in range(100):
        decision = bench.limiter.admit_now(house.call({rule: 1}))
        assert decision is not None
        assert not decision.admitted
        assert decision.retry_after_us == 60 * SECOND
        assert [standing.remaining for standing in decision.standings] == [0]
    assert bench.limiter.figures.round_trips == before


async def test_a_remembered_refusal_refuses_only_what_would_not_fit(house: Household, bench: RedisBench) -> None:
    rule = house.rate(60, "tokens")
    await house.admit({rule: 50})
    await house.refuse({rule: 20})
    assert bench.limiter.admit_now(house.call({rule: 10})) is None
    await house.admit({rule: 10})


async def test_after_a_remembered_refusal_the_time_told_is_true_though_others_were_admitted_here_since(
    house: Household, bench: RedisBench
) -> None:
    rule = house.rate(60, "tokens")
    await house.admit({rule: 50})
    await house.refuse({rule: 20})
    small = await house.admit({rule: 5})
    assert (await house.refuse({rule: 20})).retry_after_us == 15 * SECOND
    await house.settle(small, {rule: 30})
    told = await house.refuse({rule: 20})
    assert told.retry_after_us == 40 * SECOND
    await bench.advance(told.retry_after_us)
    await house.admit({rule: 20})


async def test_what_other_gateways_give_back_is_seen_before_long(house: Household, bench: RedisBench) -> None:
    other = RedisBench(shared_server("valkey").url, clock=bench.clock)
    tokens, budget = house.rate(60, "tokens"), house.budget(60)
    theirs = house.call({tokens: 60, budget: 60})
    assert (await other.limiter.admit(theirs)).admitted
    await house.refuse({tokens: 60})
    await house.refuse({budget: 60})
    other.limiter.cancel(theirs)
    await other.arrived()
    assert bench.limiter.admit_now(house.call({tokens: 60})) is not None
    await bench.advance(SECOND // 10)
    await house.admit({tokens: 60})
    await bench.advance(SECOND)
    await house.admit({budget: 60})
    await other.limiter.close()


async def test_slots_are_asked_for_every_time(house: Household, bench: RedisBench) -> None:
    rule = house.slots(1)
    await house.admit({rule: 1})
    await house.refuse({rule: 1})
    assert bench.limiter.admit_now(house.call({rule: 1})) is None


async def test_only_so_many_refusals_are_remembered(bench: RedisBench) -> None:
    for _ in range(250):
        house = Household(bench)
        rule = house.rate(1)
        await house.admit({rule: 1})
        await house.refuse({rule: 1})
    assert len(bench.limiter._denials) <= 100


# Time


@pytest.mark.parametrize("back_s", [1, 60, 3_600])
async def test_when_redis_clock_jumps_back_limits_go_on_as_if_it_had_not(
    house: Household, bench: RedisBench, back_s: int
) -> None:
    rate, small, slots = house.rate(60), house.rate(60, "tokens", burst=1), house.slots(1)
    for _ in range(60):
        await house.admit({rate: 1})
    await house.admit({small: 1, slots: 1})
    fresh = RedisBench(shared_server("valkey").url, clock=Clock(bench.clock.us - back_s * SECOND))
    late = Household(fresh)
    assert (await late.refuse({rate: 1})).retry_after_us == SECOND
    await fresh.advance(SECOND)
    await late.admit({rate: 1, small: 1})
    await late.refuse({rate: 1})
    await late.refuse({slots: 1})
    await fresh.advance(30 * SECOND)
    await late.admit({slots: 1})
    await fresh.limiter.close()


def test_no_number_is_larger_than_lua_can_count() -> None:
    narrow = Cell(Rule("team_1/tokens/day", "tokens", "team", "day", 1, 10**12))
    assert narrow.bound == narrow.amount(10**12) == MAX_US
    # A Unix time, the furthest that a bucket may be filled, and one more charge.
    assert 2 * 10**15 + 2 * MAX_US < 2**53
    # The mark of a call: the same without that charge, and all that was given back.
    assert 2 * 10**15 + MAX_US + 2**52 < 2**53


async def test_what_was_given_back_is_counted_round_and_round(house: Household, bench: RedisBench) -> None:
    server, rule = shared_server("valkey"), house.rate(600, "tokens")
    bucket = hash_key(house.team), f"r:{rule.id}"
    server.command("HSET", *bucket, f"{bench.now_us()}:{2**52 - 1}")
    under_way = [await house.admit({rule: 200}) for _ in range(3)]
    for demand in under_way:
        await house.settle(demand, {rule: 50})
    assert await house.left(rule) == [450]
    late = await house.admit({rule: 450})
    await bench.advance(600 * SECOND)
    await house.admit({rule: 200})
    await house.settle(late, {rule: 0})
    assert await house.left(rule) == [400]
    given = 2 * 15 * SECOND - 1  # the third stood below nobody
    assert str(server.command("HGET", *bucket)).endswith(f":{given}'")


# What nobody needs any more


async def test_a_call_whose_gateway_died_gives_back_what_it_had_reserved_of_budgets(bench: RedisBench) -> None:
    house = Household(bench)
    budget, endless, endpoint = (
        house.budget(100),
        house.budget(100, resets_in_s=None),
        house.budget(50, whose="endpoint"),
    )
    dead = RedisBench(shared_server("valkey").url, clock=bench.clock)
    assert (await dead.limiter.admit(house.call({budget: 30, endless: 30}, {endpoint: 30}))).admitted
    await dead.die()
    await house.admit({budget: 10})
    await bench.advance(100 * SECOND)
    await bench.renew()
    await bench.limiter._sweeper.sweep_one(house.team)
    assert await house.left(budget, endless, endpoint) == [60, 70, 20]
    await bench.advance(30 * SECOND)
    await bench.renew()
    await bench.limiter._sweeper.sweep_one(house.team)
    assert await house.left(budget, endless, endpoint) == [90, 100, 50]


async def test_what_a_dead_gateway_had_reserved_comes_back_to_a_team_whose_calls_are_all_refused(
    bench: RedisBench,
) -> None:
    house = Household(bench)
    budget = house.budget(100)
    dead = RedisBench(shared_server("valkey").url, clock=bench.clock)
    assert (await dead.limiter.admit(house.call({budget: 90}))).admitted
    await dead.die()
    await house.refuse({budget: 20})
    await bench.advance(121 * SECOND)
    await house.refuse({budget: 20})
    await bench.limiter.sweep()
    await bench.advance(SECOND)
    await house.admit({budget: 20})


async def test_a_team_in_use_is_kept_however_short_its_calls_and_that_costs_no_command_but_once_a_day(
    house: Household, bench: RedisBench
) -> None:
    server, rule, hash_ = shared_server("valkey"), house.rate(9, period="day"), hash_key(house.team)
    await house.settle(await house.admit({rule: 1}))
    server.command("EXPIRE", hash_, 1_000)
    await house.settle(await house.admit({rule: 1}))
    assert server.command("TTL", hash_) == pytest.approx(1_000, abs=60)
    await bench.advance(24 * HOUR)
    await house.admit({rule: 1})
    assert server.command("TTL", hash_) == pytest.approx(HASH_S, abs=60)


async def test_a_bucket_that_gave_something_back_is_kept_for_a_day(house: Household, bench: RedisBench) -> None:
    rule = house.rate(5, "tokens")
    first, second = await house.admit({rule: 1}), await house.admit({rule: 2})
    await house.settle(first, {rule: 0})
    await house.settle(second)
    for hours, is_kept in ((23, True), (2, False)):
        await bench.advance(hours * HOUR)
        await bench.limiter._sweeper.sweep_one(house.team)
        assert shared_server("valkey").command("HEXISTS", hash_key(house.team), f"r:{rule.id}") == is_kept


async def test_what_has_drained_and_what_is_over_is_swept_in_the_end(house: Household, bench: RedisBench) -> None:
    rules = [house.rate(5) for _ in range(700)]
    month, endless = house.budget(9), house.budget(9, resets_in_s=None)
    for rule in rules:
        await house.settle(await house.admit({rule: 1}))
    await house.settle(await house.admit({month: 1, endless: 1}))
    server, key = shared_server("valkey"), hash_key(house.team)
    await bench.limiter._sweeper.sweep_one(house.team)
    assert server.command("HLEN", key) == 703
    await bench.advance((3_600 + 2 * 86_400) * SECOND)
    await bench.limiter._sweeper.sweep_one(house.team)
    assert set(server.command("HKEYS", key)) == {b"@", f"b0:{endless.id}".encode()}  # type: ignore[call-overload]
