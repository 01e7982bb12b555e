"""The promise of rates, checked without knowing how it is kept: whatever calls do, no interval is given too much.

Lists what was admitted and when, each call with what it has reserved until it tells what it took, and adds it up over
every interval. Knows no bucket. Subclass `PromiseMachine` and say what it runs on, as with `LimiterMachine`.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gateway.limits.rules import PERIOD_S, Demand, Rule
from tests.limits.household import MINUTE, SECOND, Bench, Household, ask

T = TypeVar("T")


class History:
    """What one rate admitted: for each call the microsecond, and units as they are known by now."""

    def __init__(self, rule: Rule) -> None:
        assert rule.period is not None
        self._rule = rule
        self._period_us = PERIOD_S[rule.period] * SECOND
        self._admitted: dict[str, tuple[int, int]] = {}

    def admitted(self, call_id: str, at_us: int, amount: int) -> None:
        self._admitted[call_id] = at_us, amount

    def came_to(self, call_id: str, amount: int) -> None:
        at_us, _ = self._admitted[call_id]
        self._admitted[call_id] = at_us, amount

    def check(self) -> None:
        """Every interval that ends with the last admission; those that end before it were looked at before."""
        total, most = 0, self._rule.burst
        last_us, _ = list(self._admitted.values())[-1]
        for at_us, amount in reversed(self._admitted.values()):
            total, most = total + amount, max(most, amount)
            time_us = last_us - at_us
            promised = most + self._rule.limit * time_us / self._period_us
            assert (total - most) * self._period_us <= self._rule.limit * time_us, (
                f"{self._rule.id} admitted {total} in {time_us / SECOND} s, and promised {promised}: {self._admitted}"
            )


class PromiseMachine(RuleBasedStateMachine):
    """Calls that last, overlap and take less than they have reserved."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = self.make_bench()
        self.house = house = Household(self.bench)
        self.histories = {
            rate: History(rate)
            for rate in (
                house.rate(1_001, "tokens", burst=300),
                house.rate(7, burst=3),
                house.rate(997, "tokens", whose="endpoint"),
            )
        }
        self.under_way: list[Demand] = []

    def make_bench(self) -> Bench:
        """What it runs on."""
        raise NotImplementedError

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something of the limiter's on its event loop."""
        raise NotImplementedError

    @rule(tokens=st.sampled_from([100, 300, 997]) | st.integers(1, 400), named=st.sampled_from([1, 1, 2, 4, 5, 7]))
    def call(self, tokens: int, named: int) -> None:
        chosen = [rate for number, rate in enumerate(self.histories) if named >> number & 1]
        self.ask({rate: 1 if rate.dimension == "requests" else tokens for rate in chosen})

    @rule(number=st.integers(0, 2))
    def take_all_that_is_left(self, number: int) -> None:
        rate = list(self.histories)[number]
        (left,) = self.run(self.house.left(rate))
        for _ in range(left if rate.dimension == "requests" else min(left, 1)):
            self.ask({rate: 1 if rate.dimension == "requests" else left})

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 50), percent=st.sampled_from([0, 0, 0, 1, 40, 100]))
    def settle(self, which: int, percent: int) -> None:
        demand = self.under_way.pop(which % len(self.under_way))
        actual = {
            charge.rule: charge.amount * percent // 100
            for charge in (*demand.charges, *demand.endpoint)
            if charge.rule.dimension == "tokens"
        }
        self.run(self.house.settle(demand, actual))
        for rate, amount in actual.items():
            self.histories[rate].came_to(demand.call_id, amount)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 50))
    def cancel(self, which: int) -> None:
        demand = self.under_way.pop(which % len(self.under_way))
        self.run(self.house.cancel(demand))
        for charge in (*demand.charges, *demand.endpoint):
            self.histories[charge.rule].came_to(demand.call_id, 0)

    @rule(us=st.sampled_from([1, 6 * SECOND, 18 * SECOND]) | st.integers(1, MINUTE))
    def time_passes(self, us: int) -> None:
        self.run(self.bench.advance(us))

    def ask(self, amounts: dict[Rule, int]) -> None:
        team = {rate: amount for rate, amount in amounts.items() if rate.whose != "endpoint"}
        endpoint = {rate: amount for rate, amount in amounts.items() if rate.whose == "endpoint"}
        demand = self.house.call(team, endpoint)
        if self.run(ask(self.bench.limiter, demand)).admitted:
            self.under_way.append(demand)
            for rate, amount in amounts.items():
                self.histories[rate].admitted(demand.call_id, self.bench.now_us(), amount)
                self.histories[rate].check()

    def teardown(self) -> None:
        for demand in self.under_way:
            self.bench.limiter.cancel(demand)
        self.run(self.bench.arrived())
