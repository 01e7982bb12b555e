"""The limiter of a single process: the suite, and what concerns its memory alone."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import msgspec
import pytest

from gateway.errors import StoreUnavailable
from gateway.limits.memory import MemoryLimiter, steady_clock
from gateway.limits.rules import Charge, Demand, Rule, Rules, Standing
from tests.limits.contract import LimiterContract
from tests.limits.household import HOUR, MINUTE, SECOND, Bench, Household, with_limit
from tests.limits.memory_bench import MemoryBench

DAY = 24 * HOUR
MOST_US_A_CALL = 25.0
"""Five times what it takes on a quiet machine."""


class TestMemoryLimiter(LimiterContract):
    @pytest.fixture
    def bench(self) -> Bench:
        return MemoryBench()


class Ledger:
    """What was spent before, kept elsewhere; it can be away, and it can make its readers wait."""

    def __init__(self, spent: Mapping[str, int]) -> None:
        self.spent = dict(spent)
        self.asked: list[str] = []
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, rules: Sequence[Rule]) -> Mapping[str, int]:
        self.asked += [rule.id for rule in rules]
        await self.gate.wait()
        if self.is_away:
            raise StoreUnavailable("away")
        return {rule.id: self.spent[rule.id] for rule in rules if rule.id in self.spent}


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


@pytest.fixture
def house(bench: MemoryBench) -> Household:
    return Household(bench)


def with_ledger(rules: Sequence[Rule], spent: int) -> tuple[Ledger, MemoryBench]:
    ledger = Ledger(dict.fromkeys((rule.id for rule in rules), spent))
    return ledger, MemoryBench(ledger.load)


# Room


async def test_what_no_longer_matters_is_forgotten(bench: MemoryBench, house: Household) -> None:
    charges = {house.rate(5): 1, house.rate(5, "tokens", period="day"): 3, house.slots(2): 1, house.budget(9): 1}
    await house.settle(await house.admit(charges))
    await bench.advance(3 * DAY)
    await bench.limiter.sweep()
    assert repr(bench.limiter) == "MemoryLimiter(0 counters, 0 calls)"


async def test_what_still_matters_is_kept(bench: MemoryBench, house: Household) -> None:
    bucket, debt, slots = house.rate(5, period="day"), house.rate(5, "tokens", period="day"), house.slots(2)
    month, total = house.budget(9, resets_in_s=3 * 86_400), house.budget(9, resets_in_s=None)
    await house.settle(await house.admit({bucket: 5, debt: 5, month: 9, total: 9}), {debt: 15})
    await bench.advance(DAY)
    await house.admit({slots: 1})
    before = await bench.limiter.standings([bucket, debt, slots, month, total])
    await bench.limiter.sweep()
    assert await bench.limiter.standings([bucket, debt, slots, month, total]) == before


async def test_a_bucket_that_gave_something_back_is_kept_for_a_day(bench: MemoryBench, house: Household) -> None:
    rule = house.rate(5, "tokens")
    first, second = await house.admit({rule: 1}), await house.admit({rule: 2})
    await house.settle(first, {rule: 0})
    await house.settle(second)
    for hours, left in ((23, 1), (2, 0)):
        await bench.advance(hours * HOUR)
        await bench.limiter.sweep()
        assert repr(bench.limiter) == f"MemoryLimiter({left} counters, 0 calls)"


async def test_a_call_may_end_after_its_counters_were_forgotten(bench: MemoryBench, house: Household) -> None:
    tokens, slots, budget = house.rate(60, "tokens"), house.slots(1), house.budget(9)
    demand = await house.admit({tokens: 10, slots: 1, budget: 5})
    await bench.advance(2 * DAY)
    await bench.limiter.sweep()
    await house.settle(demand, {tokens: 30, budget: 7})
    assert await house.left(tokens, slots) == [40, 1]


async def test_a_sweep_lets_others_run(bench: MemoryBench) -> None:
    for _ in range(5_000):
        house = Household(bench)
        await house.settle(await house.admit({house.rate(5): 1}))
    await bench.advance(2 * HOUR)
    sweep, turns = asyncio.create_task(bench.limiter.sweep()), 0
    while not sweep.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 5
    assert repr(bench.limiter) == "MemoryLimiter(0 counters, 0 calls)"


async def test_refusals_leave_nothing_behind(bench: MemoryBench, house: Household) -> None:
    rule = house.rate(1, period="day")
    await house.settle(await house.admit({rule: 1}))
    for _ in range(1_000):
        await house.refuse({rule: 1})
    assert repr(bench.limiter) == "MemoryLimiter(1 counters, 0 calls)"


async def test_calls_that_ask_the_same_count_on_after_their_counters_were_forgotten(
    bench: MemoryBench, house: Household
) -> None:
    rate, slots = house.rate(5), house.slots(5)
    first = house.call({rate: 1, slots: 1})
    for number in range(3):
        await house.settle(await ask_once_more(bench, first, number))
        await bench.advance(2 * HOUR)
        await bench.limiter.sweep()
    await ask_once_more(bench, first, 3)
    assert await house.left(rate, slots) == [4, 4]


async def test_calls_that_ask_the_same_keep_to_their_limits_when_others_know_other_ones(
    bench: MemoryBench, house: Household
) -> None:
    rate, slots = house.rate(5), house.slots(5)
    first = house.call({rate: 1, slots: 1})
    await ask_once_more(bench, first, 0)
    await house.admit({with_limit(rate, 50): 1, with_limit(slots, 50): 1})
    await ask_once_more(bench, first, 1)
    assert await bench.limiter.standings([rate, slots]) == [
        Standing(rate, 2, 2 * MINUTE // 5 + MINUTE // 50),
        Standing(slots, 2, 0),
    ]
    await house.admit({with_limit(rate, 50): 1, with_limit(slots, 50): 1})
    await ask_once_more(bench, first, 2)
    refused = bench.limiter.admit_now(msgspec.structs.replace(first, call_id="too many"))
    assert refused is not None
    assert refused.binding in {rate, slots}


async def ask_once_more(bench: MemoryBench, demand: Demand, number: int) -> Demand:
    """Another call that asks what `demand` does."""
    demand = msgspec.structs.replace(demand, call_id=f"{demand.call_id}-{number}")
    decision = bench.limiter.admit_now(demand)
    assert decision is not None
    assert decision.admitted
    return demand


# Upkeep


async def test_it_starts_and_closes_once_however_often_it_is_told() -> None:
    limiter = MemoryLimiter()
    before = asyncio.all_tasks()
    limiter.start()
    limiter.start()
    assert len(asyncio.all_tasks() - before) == 1
    await limiter.close()
    await limiter.close()
    assert asyncio.all_tasks() == before


async def test_it_renews_by_itself_what_its_calls_hold() -> None:
    bench = MemoryBench(renew_every_s=0)
    house = Household(bench)
    rule = house.slots(1)
    await house.admit({rule: 1})
    await bench.advance(29 * SECOND)
    bench.limiter.start()
    for _ in range(3):
        await asyncio.sleep(0)
    await bench.limiter.close()
    await bench.advance(29 * SECOND)
    await house.refuse({rule: 1})


def test_the_clock_is_the_wall_clock_and_never_goes_back() -> None:
    clock = steady_clock()
    assert abs(clock() - time.time_ns() // 1_000) < SECOND
    times_us = [clock() for _ in range(10_000)]
    assert times_us == sorted(times_us)


# What was spent before


async def test_a_budget_begins_with_what_was_spent_before() -> None:
    rule = Household(MemoryBench()).budget(100)
    ledger, bench = with_ledger([rule], 90)
    house = Household(bench)
    assert bench.limiter.admit_now(house.call({rule: 10})) is None
    await house.refuse({rule: 11})
    await house.admit({rule: 10})
    assert ledger.asked == [rule.id]


async def test_a_call_that_waits_for_a_budget_has_charged_nothing() -> None:
    rule = Household(MemoryBench()).budget(100)
    _, bench = with_ledger([rule], 0)
    house = Household(bench)
    rate, slots = house.rate(5), house.slots(5)
    assert bench.limiter.admit_now(house.call({rate: 1, slots: 1, rule: 10})) is None
    assert await house.left(rate, slots) == [5, 5]


async def test_many_calls_that_come_together_read_a_budget_once() -> None:
    rule = Household(MemoryBench()).budget(100)
    ledger, bench = with_ledger([rule], 90)
    house = Household(bench)
    decisions = await asyncio.gather(*(bench.limiter.admit(house.call({rule: 1})) for _ in range(50)))
    assert sum(decision.admitted for decision in decisions) == 10
    assert ledger.asked == [rule.id]


async def test_standings_of_a_budget_tell_what_was_spent_before() -> None:
    rule = Household(MemoryBench()).budget(100)
    _, bench = with_ledger([rule], 90)
    assert await Household(bench).left(rule) == [10]


async def test_where_it_cannot_be_read_calls_go_on_and_it_is_read_later() -> None:
    rule = Household(MemoryBench()).budget(100)
    ledger, bench = with_ledger([rule], 90)
    ledger.is_away = True
    house = Household(bench)
    await house.admit({rule: 5})
    await house.admit({rule: 6})
    assert len(ledger.asked) == 1
    ledger.is_away = False
    await bench.advance(5 * SECOND)
    await house.refuse({rule: 11})
    await house.admit({rule: 10})
    assert len(ledger.asked) == 2


async def test_only_one_call_waits_while_it_is_read_again() -> None:
    rule = Household(MemoryBench()).budget(100)
    ledger, bench = with_ledger([rule], 90)
    ledger.is_away = True
    house = Household(bench)
    await house.admit({rule: 5})
    await bench.advance(5 * SECOND)
    ledger.gate.clear()
    waiting = asyncio.create_task(bench.limiter.admit(house.call({rule: 5})))
    await asyncio.sleep(0)
    assert bench.limiter.admit_now(house.call({rule: 5})) is not None
    ledger.gate.set()
    assert (await waiting).admitted
    assert len(ledger.asked) == 2


async def test_a_budget_that_was_reset_is_not_read_again() -> None:
    rule = Household(MemoryBench()).budget(100)
    ledger, bench = with_ledger([rule], 90)
    await bench.limiter.reset([rule])
    await Household(bench).admit({rule: 100})
    assert ledger.asked == []


# Cost


def test_admitting_and_settling_costs_microseconds() -> None:
    house = Household(MemoryBench())
    key, team = house.rate(10**9), house.rate(10**9, whose="team")
    tokens, team_tokens = house.rate(10**12, "tokens"), house.rate(10**12, "tokens", whose="team")
    amounts = {key: 1, tokens: 900, team: 1, team_tokens: 900, house.slots(10**6): 1}
    charges = tuple(Charge(rule, amount) for rule, amount in amounts.items())
    rules = Rules(list(amounts))
    demands = [Demand(f"call_{number}", house.team, charges, (), rules) for number in range(500)]
    actual, limiter = {tokens.id: 500, team_tokens.id: 500}, MemoryLimiter()
    best_s = min(_round_s(limiter, demands, actual) for _ in range(20))
    assert best_s / len(demands) * 1e6 < MOST_US_A_CALL


def _round_s(limiter: MemoryLimiter, demands: Sequence[Demand], actual: Mapping[str, int]) -> float:
    begun_s = time.perf_counter()
    for demand in demands:
        limiter.admit_now(demand)
        limiter.settle(demand, actual)
    return time.perf_counter() - begun_s
