"""What every limiter promises, as one suite: subclass it and give a fixture `bench`.

    class TestMemoryLimiter(LimiterContract):
        @pytest.fixture
        def bench(self) -> Bench: ...

Rules and calls have ids of their own in every test, so that a server may be shared by all of them.
"""

import asyncio

import pytest

from gateway.limits.limiter import Limiter
from tests.limits.contract_rates import RateContract
from tests.limits.household import HOUR, MINUTE, SECOND, Bench, Household, ask, with_limit


class LimiterContract(RateContract):
    """The suite."""

    def test_it_is_a_limiter(self, bench: Bench) -> None:
        assert isinstance(bench.limiter, Limiter)

    async def test_a_call_without_limits_is_admitted(self, house: Household) -> None:
        assert (await ask(house.limiter, house.call({}))).admitted

    # Settling

    @pytest.mark.parametrize("actual", [0, 10, 100, 500])
    async def test_after_settling_the_balance_is_exact(self, house: Household, actual: int) -> None:
        rule, same = house.rate(600, "tokens"), house.rate(600, "tokens", whose="team")
        demand = await house.admit({rule: 100})
        await house.admit({same: actual})
        await house.bench.advance(SECOND)
        await house.settle(demand, {rule: actual})
        one, other = await house.limiter.standings([rule, same])
        assert (one.remaining, one.reset_us) == (other.remaining, other.reset_us)

    async def test_more_than_was_reserved_becomes_debt_which_time_repays(self, house: Household) -> None:
        rule = house.rate(600, "tokens")
        await house.settle(await house.admit({rule: 100}), {rule: 1_000})
        assert await house.left(rule) == [0]
        wait_us = (await house.refuse({rule: 1})).retry_after_us
        assert wait_us == 40 * SECOND + 100_000
        await house.bench.advance(wait_us)
        await house.admit({rule: 1})

    async def test_what_is_given_back_can_be_used_at_once(self, house: Household) -> None:
        rule = house.rate(600, "tokens")
        demand = await house.admit({rule: 600})
        await house.refuse({rule: 500})
        await house.settle(demand, {rule: 100})
        await house.admit({rule: 500})
        await house.refuse({rule: 1})

    async def test_rules_that_are_not_named_keep_their_charge(self, house: Household) -> None:
        requests, tokens, budget = house.rate(10), house.rate(100, "tokens"), house.budget(100)
        endpoint = house.rate(100, "tokens", whose="endpoint")
        demand = await house.admit({requests: 1, tokens: 50, budget: 50}, {endpoint: 50})
        await house.settle(demand, {tokens: 20})
        assert await house.left(requests, tokens, budget, endpoint) == [9, 80, 50, 50]

    async def test_endpoints_are_settled_too(self, house: Household) -> None:
        tokens, endpoint = house.rate(100, "tokens"), house.rate(100, "tokens", whose="endpoint")
        slot = house.slots(1, whose="endpoint")
        demand = await house.admit({tokens: 50}, {endpoint: 50, slot: 1})
        await house.settle(demand, {tokens: 20, endpoint: 30})
        assert await house.left(tokens, endpoint, slot) == [80, 70, 1]

    async def test_cancelling_gives_everything_back(self, house: Household) -> None:
        rules = [house.rate(10), house.rate(100, "tokens"), house.slots(3), house.budget(100)]
        endpoint = [house.rate(10, whose="endpoint"), house.slots(3, whose="endpoint")]
        before = await house.limiter.standings([*rules, *endpoint])
        await house.cancel(await house.admit(dict(zip(rules, (1, 50, 1, 50), strict=True)), dict.fromkeys(endpoint, 1)))
        assert await house.limiter.standings([*rules, *endpoint]) == before

    @pytest.mark.parametrize("first", ["settle", "cancel"])
    async def test_a_call_ends_once(self, house: Household, first: str) -> None:
        tokens, budget, slots = house.rate(100, "tokens"), house.budget(100), house.slots(3)
        demand = await house.admit({tokens: 50, budget: 50, slots: 1})
        await (house.settle(demand, {tokens: 70}) if first == "settle" else house.cancel(demand))
        before = await house.limiter.standings([tokens, budget, slots])
        for _ in range(3):
            await house.settle(demand, {tokens: 10, budget: 90})
            await house.cancel(demand)
        assert await house.limiter.standings([tokens, budget, slots]) == before

    async def test_a_call_that_was_refused_has_nothing_to_settle(self, house: Household) -> None:
        tokens, slots = house.rate(100, "tokens"), house.slots(1)
        await house.admit({tokens: 10, slots: 1})
        refused, unknown = house.call({tokens: 10, slots: 1}), house.call({tokens: 10, slots: 1})
        assert not (await ask(house.limiter, refused)).admitted
        for demand in (refused, unknown):
            await house.settle(demand, {tokens: 100})
            await house.cancel(demand)
        assert await house.left(tokens, slots) == [90, 0]

    async def test_asking_again_for_the_same_call_charges_once(self, house: Household) -> None:
        charges = {house.rate(1): 1, house.rate(10, "tokens"): 10, house.slots(1): 1, house.budget(10): 10}
        demand = house.call(charges, {house.rate(1, whose="endpoint"): 1})
        for _ in range(3):
            assert (await ask(house.limiter, demand)).admitted
        await house.cancel(demand)
        assert await house.left(*charges) == [1, 10, 1, 10]

    async def test_a_call_that_was_refused_may_be_asked_for_again(self, house: Household) -> None:
        rule = house.rate(1)
        await house.admit({rule: 1})
        demand = house.call({rule: 1})
        decision = await ask(house.limiter, demand)
        assert not decision.admitted
        await house.bench.advance(decision.retry_after_us)
        assert (await ask(house.limiter, demand)).admitted

    # Parallel calls

    async def test_no_more_than_so_many_calls_at_once(self, house: Household) -> None:
        rule = house.slots(3)
        demands = [await house.admit({rule: 1}) for _ in range(3)]
        decision = await house.refuse({rule: 1})
        assert decision.binding == rule
        assert decision.retry_after_us == SECOND
        await house.settle(demands[0])
        await house.admit({rule: 1})
        await house.refuse({rule: 1})

    async def test_a_lease_that_nobody_renews_ends_by_itself(self, house: Household) -> None:
        rule = house.slots(2)
        await house.admit({rule: 1})
        await house.bench.advance(10 * SECOND)
        await house.admit({rule: 1})
        await house.bench.advance(20 * SECOND - 1)
        await house.refuse({rule: 1})
        await house.bench.advance(1)
        await house.admit({rule: 1})
        await house.refuse({rule: 1})

    async def test_a_lease_that_is_renewed_holds(self, house: Household) -> None:
        rule, endpoint = house.slots(1), house.slots(1, whose="endpoint")
        demand = await house.admit({rule: 1}, {endpoint: 1})
        for _ in range(5):
            await house.bench.advance(20 * SECOND)
            await house.bench.renew()
        assert await house.left(rule, endpoint) == [0, 0]
        await house.settle(demand)
        assert await house.left(rule, endpoint) == [1, 1]

    async def test_a_call_that_ended_is_not_renewed(self, house: Household) -> None:
        rule = house.slots(2)
        ended, refused = await house.admit({rule: 1}), house.call({rule: 1, house.budget(1): 2})
        await ask(house.limiter, refused)
        await house.settle(ended)
        await house.bench.renew()
        assert await house.left(rule) == [2]

    async def test_a_call_that_ends_after_its_lease_frees_nobody_elses_slot(self, house: Household) -> None:
        rule = house.slots(1)
        late = await house.admit({rule: 1})
        await house.bench.advance(31 * SECOND)
        await house.admit({rule: 1})
        await house.settle(late)
        await house.refuse({rule: 1})

    async def test_of_many_that_ask_together_as_many_as_fit_are_admitted(self, house: Household) -> None:
        rate, tokens, slots, budget = house.rate(90), house.rate(500, "tokens"), house.slots(30), house.budget(3_000)
        demands = [house.call({rate: 1, tokens: 7, slots: 1, budget: 41}) for _ in range(200)]
        decisions = await asyncio.gather(*(ask(house.limiter, demand) for demand in demands))
        assert sum(decision.admitted for decision in decisions) == 30
        assert await house.left(rate, tokens, slots, budget) == [60, 290, 0, 1_770]
        for demand in demands:
            house.limiter.settle(demand, {tokens.id: 1, budget.id: 1})
        await house.bench.arrived()
        assert await house.left(rate, tokens, slots, budget) == [60, 470, 30, 2_970]

    async def test_the_same_call_asked_many_times_together_is_charged_once(self, house: Household) -> None:
        rate, slots = house.rate(10), house.slots(10)
        demand = house.call({rate: 1, slots: 1})
        decisions = await asyncio.gather(*(ask(house.limiter, demand) for _ in range(50)))
        assert all(decision.admitted for decision in decisions)
        assert await house.left(rate, slots) == [9, 9]

    async def test_calls_that_come_and_go_never_exceed_the_slots(self, house: Household) -> None:
        rule, under_way, most = house.slots(10), 0, 0

        async def go(times: int) -> None:
            nonlocal under_way, most
            for _ in range(times):
                demand = house.call({rule: 1})
                if (await ask(house.limiter, demand)).admitted:
                    under_way += 1
                    most = max(most, under_way)
                    await asyncio.sleep(0)
                    under_way -= 1
                    house.limiter.settle(demand, {})
                await asyncio.sleep(0)

        await asyncio.gather(*(go(10) for _ in range(50)))
        await house.bench.arrived()
        assert most == 10
        assert await house.left(rule) == [10]

    # Budgets

    async def test_a_call_that_would_go_over_the_budget_is_refused(self, house: Household) -> None:
        rule = house.budget(100)
        await house.admit({rule: 60})
        decision = await house.refuse({rule: 41})
        assert decision.binding == rule
        assert decision.retry_after_us == (rule.resets_at_s or 0) * SECOND - house.bench.now_us()
        await house.admit({rule: 40})
        await house.refuse({rule: 1})

    async def test_a_budget_below_one_estimate_admits_nothing(self, house: Household) -> None:
        await house.refuse({house.budget(100): 101})

    async def test_what_a_budget_reserved_is_settled_by_what_it_cost(self, house: Household) -> None:
        rule = house.budget(100)
        cheap, dear = await house.admit({rule: 50}), await house.admit({rule: 50})
        await house.settle(cheap, {rule: 10})
        assert await house.left(rule) == [40]
        await house.settle(dear, {rule: 95})
        assert await house.left(rule) == [0]
        await house.refuse({rule: 1})

    async def test_time_does_not_refill_a_budget(self, house: Household) -> None:
        rule = house.budget(100, resets_in_s=7_200)
        await house.admit({rule: 100})
        await house.bench.advance(HOUR)
        await house.refuse({rule: 1})

    async def test_a_budget_without_end_tells_no_time(self, house: Household) -> None:
        rule, other = house.budget(100, resets_in_s=None), house.rate(1)
        await house.admit({rule: 100, other: 1})
        decision = await house.refuse({rule: 1, other: 1})
        assert decision.binding == rule
        assert decision.retry_after_us == 0
        assert decision.standings[0].reset_us == 0

    async def test_the_next_window_begins_with_nothing_spent_whatever_the_last_settles(self, house: Household) -> None:
        this, following = house.budget(100), house.budget(100, resets_in_s=7_200)
        late = await house.admit({this: 100})
        await house.bench.advance(HOUR)
        await house.admit({following: 60})
        await house.settle(late, {this: 30})
        assert await house.left(following) == [40]

    # Shadow rules

    async def test_a_shadow_rule_counts_and_names_itself_and_refuses_nobody(self, house: Household) -> None:
        rules = [
            house.rate(1, shadow=True),
            house.rate(10, "tokens", shadow=True),
            house.slots(1, shadow=True),
            house.budget(10, shadow=True),
        ]
        charges = dict(zip(rules, (1, 10, 1, 10), strict=True))
        first = await ask(house.limiter, house.call(charges))
        second = await ask(house.limiter, house.call(charges))
        assert first.admitted
        assert first.exceeded == ()
        assert second.admitted
        assert second.binding is None
        assert set(second.exceeded) == set(rules)
        assert [standing.remaining for standing in second.standings] == [0, 0, 0, 0]

    async def test_a_shadow_rule_is_settled_like_any_other(self, house: Household) -> None:
        tokens, slots = house.rate(100, "tokens", shadow=True), house.slots(1, shadow=True)
        demands = [await house.admit({tokens: 90, slots: 1}) for _ in range(2)]
        for demand in demands:
            await house.settle(demand, {tokens: 20})
        assert await house.left(tokens, slots) == [60, 1]

    async def test_a_shadow_rule_that_is_used_up_is_not_what_refuses(self, house: Household) -> None:
        shadow, rule = house.rate(1, period="hour", shadow=True), house.rate(1)
        await house.admit({shadow: 1, rule: 1})
        decision = await house.refuse({shadow: 1, rule: 1})
        assert decision.binding == rule
        assert decision.retry_after_us == MINUTE

    async def test_a_shadow_rule_is_not_charged_where_another_refuses(self, house: Household) -> None:
        shadow, rule = house.rate(5, shadow=True), house.rate(1)
        await house.admit({shadow: 1, rule: 1})
        decision = await house.refuse({shadow: 1, rule: 1})
        assert decision.binding == rule
        assert decision.exceeded == ()
        assert await house.left(shadow) == [4]

    # Changes

    async def test_a_reset_makes_all_of_a_rule_available(self, house: Household) -> None:
        rules = [house.rate(5), house.rate(100, "tokens"), house.slots(2), house.budget(100)]
        endpoint = house.rate(5, whose="endpoint")
        await house.admit(dict(zip(rules, (1, 100, 1, 100), strict=True)), {endpoint: 1})
        await house.limiter.reset([*rules, endpoint])
        assert await house.left(*rules, endpoint) == [5, 100, 2, 100, 5]

    async def test_a_reset_leaves_other_rules_as_they_were(self, house: Household) -> None:
        rule, other = house.rate(5), house.rate(5)
        await house.admit({rule: 1, other: 1})
        await house.limiter.reset([rule])
        assert await house.left(rule, other) == [5, 4]

    async def test_what_a_reset_forgave_is_not_given_back_as_well(self, house: Household) -> None:
        tokens, budget = house.rate(100, "tokens"), house.budget(100)
        demand = await house.admit({tokens: 80, budget: 80})
        await house.limiter.reset([tokens, budget])
        await house.settle(demand, {tokens: 10, budget: 10})
        assert await house.left(tokens, budget) == [100, 90]

    async def test_after_a_reset_calls_under_way_count_in_full_against_the_budget(self, house: Household) -> None:
        budget, other = house.budget(100), house.budget(1_000, whose="team")
        calls = [await house.admit({budget: 30, other: 30}) for _ in range(3)]
        await house.limiter.reset([budget])
        await house.bench.renew()
        new = await house.admit({budget: 30, other: 30})
        assert await house.left(budget, other) == [70, 880]
        await house.settle(calls[0])
        await house.settle(calls[1], {budget: 20, other: 20})
        await house.cancel(calls[2])
        assert await house.left(budget, other) == [20, 920]
        await house.settle(new, {budget: 10, other: 10})
        assert await house.left(budget, other) == [40, 940]
        await house.refuse({budget: 41})

    async def test_calls_that_are_renewed_in_the_moment_of_a_reset_count_in_full(self, house: Household) -> None:
        budget = house.budget(100)
        calls = [await house.admit({budget: 30}) for _ in range(3)]
        await asyncio.gather(house.bench.renew(), house.limiter.reset([budget]))
        assert await house.left(budget) == [100]
        for call in calls:
            await house.settle(call)
        assert await house.left(budget) == [10]

    async def test_after_two_resets_a_call_counts_once(self, house: Household) -> None:
        budget, slots = house.budget(100), house.slots(1)
        call = await house.admit({slots: 1, budget: 30})
        for _ in range(2):
            await house.limiter.reset([budget])
        await house.settle(call, {budget: 90})
        assert await house.left(budget) == [10]

    async def test_a_call_under_way_takes_its_slot_again_after_a_reset(self, house: Household) -> None:
        rule = house.slots(1)
        demand = await house.admit({rule: 1})
        await house.limiter.reset([rule])
        await house.bench.renew()
        assert await house.left(rule) == [0]
        await house.settle(demand)
        assert await house.left(rule) == [1]

    async def test_a_refusal_is_forgotten_with_a_reset(self, house: Household) -> None:
        rule = house.rate(1)
        await house.admit({rule: 1})
        await house.refuse({rule: 1})
        await house.limiter.reset([rule])
        await house.admit({rule: 1})

    async def test_a_changed_limit_holds_at_once_for_what_was_used_before(self, house: Household) -> None:
        slots, budget, rate = house.slots(1), house.budget(10), house.rate(10)
        await house.admit({slots: 1, budget: 10, rate: 1})
        await house.refuse({slots: 1, budget: 10, rate: 1})
        wider = [with_limit(slots, 2), with_limit(budget, 20), with_limit(rate, 20)]
        await house.admit(dict(zip(wider, (1, 10, 1), strict=True)))
        assert await house.left(*wider[:2]) == [0, 0]
        await house.refuse({slots: 1, budget: 1})

    async def test_a_call_settles_at_the_pace_at_which_it_was_charged(self, house: Household) -> None:
        rule = house.rate(600, "tokens")
        demand = await house.admit({rule: 300})
        faster = with_limit(rule, 1_200)
        await house.limiter.standings([faster])
        await house.settle(demand, {rule: 0})
        assert await house.left(faster) == [1_200]
