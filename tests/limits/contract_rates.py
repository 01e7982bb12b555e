"""What every limiter promises of rates, of several rules at once, and of what it tells."""

import random

import pytest

from gateway.limits.rules import PERIOD_S, Dimension, Period, Whose
from tests.limits.household import HOUR, MINUTE, SECOND, Bench, Household, ask
from tests.limits.oracle import worst_excess


class RateContract:
    """A part of `tests.limits.contract.LimiterContract`."""

    @pytest.fixture
    def house(self, bench: Bench) -> Household:
        return Household(bench)

    # Rates

    @pytest.mark.parametrize("limit", [1, 3, 7, 60, 61])
    async def test_a_burst_is_admitted_whole_and_not_one_more(self, house: Household, limit: int) -> None:
        rule = house.rate(limit)
        for _ in range(limit):
            await house.admit({rule: 1})
        await house.refuse({rule: 1})

    async def test_a_burst_may_be_smaller_or_larger_than_the_limit(self, house: Household) -> None:
        small, large = house.rate(60, burst=2), house.rate(60, burst=90)
        for rule in (small, large):
            for _ in range(rule.burst):
                await house.admit({rule: 1})
            assert (await house.refuse({rule: 1})).retry_after_us == SECOND

    @pytest.mark.parametrize(("dimension", "limit", "amount"), [("requests", 7, 1), ("tokens", 1_001, 12)])
    async def test_after_the_time_that_was_told_and_not_sooner_the_same_call_is_admitted(
        self, house: Household, dimension: Dimension, limit: int, amount: int
    ) -> None:
        rule = house.rate(limit, dimension)
        for _ in range(limit // amount):
            await house.admit({rule: amount})
        wait_us = (await house.refuse({rule: amount})).retry_after_us
        await house.bench.advance(wait_us - 1)
        assert (await house.refuse({rule: amount})).retry_after_us == 1
        await house.bench.advance(1)
        await house.admit({rule: amount})
        await house.refuse({rule: amount})

    @pytest.mark.parametrize("period", ["minute", "hour", "day"])
    async def test_a_rate_comes_back_evenly(self, house: Household, period: Period) -> None:
        rule = house.rate(4, period=period)
        for _ in range(4):
            await house.admit({rule: 1})
        for _ in range(3):
            await house.bench.advance(PERIOD_S[period] * SECOND // 4)
            await house.admit({rule: 1})
            await house.refuse({rule: 1})

    async def test_time_that_was_not_used_is_not_saved_up(self, house: Household) -> None:
        rule = house.rate(5)
        await house.bench.advance(HOUR)
        for _ in range(5):
            await house.admit({rule: 1})
        await house.refuse({rule: 1})

    async def test_a_limit_below_one_estimate_admits_the_first_call_and_then_waits_for_its_debt(
        self, house: Household
    ) -> None:
        rule = house.rate(100, "tokens")
        await house.admit({rule: 250})
        decision = await house.refuse({rule: 250})
        assert decision.retry_after_us == 150 * SECOND
        await house.bench.advance(decision.retry_after_us - 1)
        await house.refuse({rule: 250})
        await house.bench.advance(1)
        await house.admit({rule: 250})

    async def test_amounts_in_the_billions_keep_every_microsecond(self, house: Household) -> None:
        rule = house.rate(86_400_000_000, "tokens", period="day", burst=1_000_000)
        await house.admit({rule: 999_999})
        wait_us = (await house.refuse({rule: 1_000_000})).retry_after_us
        assert wait_us == 999_999
        await house.bench.advance(wait_us)
        await house.admit({rule: 1_000_000})
        assert await house.left(rule) == [0]

    # All or nothing

    @pytest.mark.parametrize("binding", ["key", "team", "model", "endpoint"])
    async def test_a_refused_call_changes_no_counter(self, house: Household, binding: Whose) -> None:
        rules = {whose: house.rate(1 if whose == binding else 5, whose=whose) for whose in ("key", "team", "model")}
        others = [house.slots(9), house.budget(1_000), house.rate(500, "tokens", whose="team")]
        endpoint = [house.rate(1 if binding == "endpoint" else 5, whose="endpoint"), house.slots(9, whose="endpoint")]
        charges = dict.fromkeys([*rules.values(), *others], 1)
        await house.admit(charges, dict.fromkeys(endpoint, 1))
        before = await house.limiter.standings([*charges, *endpoint])
        for _ in range(20):
            decision = await house.refuse(charges, dict.fromkeys(endpoint, 1))
            assert decision.binding is not None
            assert decision.binding.whose == binding
        assert await house.limiter.standings([*charges, *endpoint]) == before

    @pytest.mark.parametrize("last", [0, 1, 2, 3])
    async def test_whichever_rule_comes_last_all_is_undone(self, house: Household, last: int) -> None:
        rules = [house.rate(9), house.rate(900, "tokens"), house.slots(9), house.budget(900)]
        narrow = [house.rate(1), house.rate(10, "tokens"), house.slots(1), house.budget(10)][last]
        charges = {**dict.fromkeys(rules, 1), narrow: 10 if last in {1, 3} else 1}
        await house.admit(charges)
        before = await house.limiter.standings([*rules, narrow])
        await house.refuse(charges)
        assert await house.limiter.standings([*rules, narrow]) == before

    async def test_the_rule_that_keeps_the_call_waiting_longest_is_named(self, house: Household) -> None:
        minute, hour = house.rate(1), house.rate(1, period="hour", whose="team")
        await house.admit({minute: 1, hour: 1})
        decision = await house.refuse({minute: 1, hour: 1})
        assert decision.binding == hour
        assert decision.retry_after_us == HOUR

    async def test_of_an_endpoint_that_keeps_the_call_waiting_longer_than_its_key_that_time_is_told(
        self, house: Household
    ) -> None:
        minute, hour = house.rate(1), house.rate(1, period="hour", whose="endpoint")
        await house.admit({minute: 1}, {hour: 1})
        decision = await house.refuse({minute: 1}, {hour: 1})
        assert decision.binding == hour
        assert decision.retry_after_us == HOUR
        assert [standing.rule for standing in decision.standings] == [minute, hour]
        await house.bench.advance(HOUR)
        await house.admit({minute: 1}, {hour: 1})

    async def test_of_an_endpoint_that_has_room_again_before_the_key_nothing_is_told(self, house: Household) -> None:
        hour, minute = house.rate(1, period="hour"), house.rate(1, whose="endpoint")
        await house.admit({hour: 1}, {minute: 1})
        decision = await house.refuse({hour: 1}, {minute: 1})
        assert decision.binding == hour
        assert [standing.rule for standing in decision.standings] == [hour]

    async def test_the_endpoint_is_not_told_of_where_the_team_alone_refuses(self, house: Household) -> None:
        rule, endpoint = house.rate(1), house.rate(9, whose="endpoint")
        await house.admit({rule: 1}, {endpoint: 1})
        decision = await house.refuse({rule: 1}, {endpoint: 1})
        assert [standing.rule for standing in decision.standings] == [rule]

    async def test_teams_share_an_endpoint_and_nothing_else(self, bench: Bench) -> None:
        one, other = Household(bench), Household(bench)
        mine, theirs, endpoint = one.rate(2), other.rate(2), one.rate(3, whose="endpoint")
        await one.admit({mine: 1}, {endpoint: 1})
        await one.admit({mine: 1}, {endpoint: 1})
        await other.admit({theirs: 1}, {endpoint: 1})
        assert (await other.refuse({theirs: 1}, {endpoint: 1})).binding == endpoint
        assert await one.left(mine, theirs, endpoint) == [0, 1, 0]

    # What is told

    async def test_a_decision_tells_how_every_rule_stands_after_the_charge(self, house: Household) -> None:
        rules = [house.rate(60), house.rate(600, "tokens"), house.slots(3), house.budget(100)]
        endpoint = house.rate(30, whose="endpoint")
        decision = await ask(house.limiter, house.call(dict(zip(rules, (1, 70, 1, 40), strict=True)), {endpoint: 1}))
        assert [standing.rule for standing in decision.standings] == [*rules, endpoint]
        assert [standing.remaining for standing in decision.standings] == [59, 530, 2, 60, 29]
        resets_us = [standing.reset_us for standing in decision.standings]
        until_us = (rules[3].resets_at_s or 0) * SECOND - house.bench.now_us()
        assert resets_us == [SECOND, 7 * SECOND, 0, until_us, 2 * SECOND]

    async def test_a_refusal_tells_how_the_rules_stand_without_it(self, house: Household) -> None:
        rule, other = house.rate(60, burst=1), house.rate(60)
        await house.admit({rule: 1, other: 1})
        decision = await house.refuse({rule: 1, other: 1})
        assert [standing.remaining for standing in decision.standings] == [0, 59]

    async def test_what_was_never_used_stands_full(self, house: Household) -> None:
        rules = [house.rate(7), house.rate(999, "tokens", burst=7), house.slots(3), house.budget(100)]
        standings = await house.limiter.standings(rules)
        assert [standing.rule for standing in standings] == rules
        assert [standing.remaining for standing in standings] == [7, 7, 3, 100]
        assert [standing.reset_us for standing in standings[:3]] == [0, 0, 0]

    async def test_as_much_as_is_said_to_remain_is_admitted_and_not_one_more(self, house: Household) -> None:
        rule = house.rate(997, "tokens", burst=100)
        await house.admit({rule: 77})
        await house.bench.advance(123_457)
        (remaining,) = await house.left(rule)
        await house.refuse({rule: remaining + 1})
        await house.admit({rule: remaining})

    async def test_all_is_there_again_after_the_time_that_was_told(self, house: Household) -> None:
        rule = house.rate(997, "tokens", burst=100)
        await house.admit({rule: 77})
        (standing,) = await house.limiter.standings([rule])
        await house.bench.advance(standing.reset_us - 1)
        assert (await house.limiter.standings([rule]))[0].reset_us == 1
        await house.bench.advance(1)
        assert await house.left(rule) == [100]

    # Every interval

    async def test_what_has_drained_is_not_given_back_however_many_calls_end_late(self, house: Household) -> None:
        rule = house.rate(60_000, "tokens")
        under_way = []
        for _ in range(10):
            under_way.append(await house.admit({rule: 60_000}))
            await house.bench.advance(MINUTE)
        await house.admit({rule: 60_000})
        for late in under_way:
            await house.settle(late, {rule: 0})
            await house.refuse({rule: 1})

    @pytest.mark.parametrize("lasted_s", [0, 10, 19])
    async def test_what_has_not_drained_is_given_back_in_full(self, house: Household, lasted_s: int) -> None:
        rule, truth = house.rate(600, "tokens"), house.rate(600, "tokens")
        demand = await house.admit({rule: 400})
        await house.admit({truth: 200})
        await house.bench.advance(lasted_s * SECOND)
        await house.settle(demand, {rule: 200})
        one, other = await house.limiter.standings([rule, truth])
        assert (one.remaining, one.reset_us) == (other.remaining, other.reset_us)

    async def test_calls_that_overlap_and_end_as_they_came_are_charged_what_they_took(self, house: Household) -> None:
        rule = house.rate(6_000, "tokens")
        under_way = [await house.admit({rule: 1_000}) for _ in range(6)]
        await house.refuse({rule: 1_000})
        for demand in under_way:
            await house.settle(demand, {rule: 100})
        assert await house.left(rule) == [5_400]

    async def test_short_calls_behind_a_long_one_take_nothing_of_what_it_gets_back(self, house: Household) -> None:
        rule = house.rate(600_000, "tokens", period="day")
        long = await house.admit({rule: 100_000})
        for _ in range(300):
            await house.settle(await house.admit({rule: 1_000}), {rule: 100})
        assert await house.left(rule) == [470_000]
        await house.settle(long, {rule: 10_000})
        assert await house.left(rule) == [560_000]

    async def test_a_call_that_ends_late_gives_nothing_to_those_that_came_since(self, house: Household) -> None:
        rule = house.rate(600, "tokens")
        late = await house.admit({rule: 600})
        await house.bench.advance(10 * MINUTE)
        await house.admit({rule: 200})
        await house.settle(late, {rule: 0})
        assert await house.left(rule) == [400]

    async def test_what_others_got_back_from_under_a_call_is_not_given_to_it_as_well(self, house: Household) -> None:
        rule = house.rate(600, "tokens")
        first, second = await house.admit({rule: 300}), await house.admit({rule: 300})
        await house.settle(first, {rule: 0})
        await house.bench.advance(10 * SECOND)
        await house.admit({rule: 300})
        await house.settle(second, {rule: 0})
        assert await house.left(rule) == [300]

    async def test_what_a_reset_forgave_is_not_given_to_those_that_came_since(self, house: Household) -> None:
        rule = house.rate(600, "tokens")
        before = await house.admit({rule: 300})
        await house.limiter.reset([rule])
        await house.admit({rule: 300})
        await house.settle(before, {rule: 0})
        assert await house.left(rule) == [300]

    @pytest.mark.parametrize(("dimension", "limit", "burst"), [("requests", 97, 97), ("tokens", 6_007, 1_500)])
    async def test_in_no_interval_is_more_admitted_than_promised_and_hardly_less(
        self, house: Household, dimension: Dimension, limit: int, burst: int
    ) -> None:
        dice, seconds = random.Random(limit), 300
        rule = house.rate(limit, dimension, burst=burst)
        amounts = [1] if dimension == "requests" else [1, 5, 20, 60]
        load_a_s = 2 * limit / 60 * len(amounts) / sum(amounts)
        begun_us = house.bench.now_us()
        admitted: list[tuple[int, int]] = []
        while house.bench.now_us() < begun_us + seconds * SECOND:
            await house.bench.advance(round(dice.expovariate(load_a_s) * SECOND))
            amount = dice.choice(amounts)
            demand = house.call({rule: amount})
            if (await ask(house.limiter, demand)).admitted:
                admitted.append((house.bench.now_us(), amount))
                house.limiter.settle(demand, {})
        assert worst_excess(rule, admitted) <= 0
        allowed = burst + limit * (house.bench.now_us() - begun_us) / MINUTE
        assert sum(amount for _, amount in admitted) >= 0.99 * allowed - max(amounts)
