"""The same random history for a limiter and for the oracle: they have to decide and to tell the same at every step.

Subclass `LimiterMachine` and say what it runs on; a limiter of the server kind is made once and shared, since every
history has a team of its own.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.limits.rules import Demand, Rule
from tests.limits.household import HOUR, SECOND, Bench, Household, ask, new_id
from tests.limits.oracle import Oracle

T = TypeVar("T")

_LONGEST_CALL_US = 50 * 60 * SECOND
"""Limiters may forget a call after an hour."""
_LONGEST_WAIT_US = 48 * HOUR
"""A budget's window outlasts every history: after its end a call would ask for the next one's."""
_WIDEST = {"requests": 1, "parallel": 1, "tokens": 400, "budget": 1_500}
_STEPS_US = [
    1,
    7,
    999,
    SECOND // 3,
    SECOND,
    8_571_429,
    29_999_999,
    30 * SECOND,
    61 * SECOND,
    10 * 60 * SECOND,
    5 * HOUR,
]


class LimiterMachine(RuleBasedStateMachine):
    """A team's calls, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = self.make_bench()
        self.oracle = Oracle()
        self.limits = _rules(Household(self.bench))
        self.under_way: dict[str, tuple[Demand, int]] = {}
        self.last: Demand | None = None
        self.wait_us = 0

    def make_bench(self) -> Bench:
        """What it runs on."""
        raise NotImplementedError

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something of the limiter's on its event loop."""
        raise NotImplementedError

    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.limits), max_size=6, unique_by=lambda rule: rule.id))
        charges = {
            rule: data.draw(st.integers(1, _WIDEST[rule.dimension]), label=rule.id.partition("/")[2]) for rule in chosen
        }
        team = {rule: amount for rule, amount in charges.items() if rule.whose != "endpoint"}
        endpoint = {rule: amount for rule, amount in charges.items() if rule.whose == "endpoint"}
        demand = Household(self.bench).call(team, endpoint)
        has_rules = data.draw(st.booleans(), label="it says which rules it has in common with others")
        self.ask(demand if has_rules else msgspec.structs.replace(demand, rules=None))

    @precondition(lambda self: self.last is not None)
    @rule()
    def call_of_the_same_kind(self) -> None:
        if self.last is not None:
            self.ask(msgspec.structs.replace(self.last, call_id=f"call_{new_id()}"))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        demand, _ = data.draw(st.sampled_from(list(self.under_way.values())))
        assert self.run(ask(self.bench.limiter, demand)).admitted

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), factor=st.sampled_from([0, 10, 50, 100, 200, 1_000]), share=st.integers(0, 7))
    def settle(self, data: st.DataObject, factor: int, share: int) -> None:
        demand, _ = self.under_way.pop(data.draw(st.sampled_from(list(self.under_way))))
        named = [charge for n, charge in enumerate((*demand.charges, *demand.endpoint)) if (n + share) % 8]
        self.end(
            demand, {c.rule.id: c.amount * factor // 100 for c in named if c.rule.dimension in {"tokens", "budget"}}
        )

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        demand, _ = self.under_way.pop(data.draw(st.sampled_from(list(self.under_way))))
        self.bench.limiter.cancel(demand)
        nothing = {charge.rule.id: 0 for charge in (*demand.charges, *demand.endpoint)}
        self.oracle.end(demand.call_id, nothing, self.bench.now_us())
        self.run(self.bench.arrived())

    @rule(us=st.sampled_from(_STEPS_US) | st.integers(1, 2 * 60 * SECOND))
    def time_passes(self, us: int) -> None:
        until_us = self.bench.now_us() + us
        for demand, begun_us in list(self.under_way.values()):
            if until_us - begun_us > _LONGEST_CALL_US:
                del self.under_way[demand.call_id]
                self.end(demand, {})
        self.run(self.bench.advance(us))

    @precondition(lambda self: 0 < self.wait_us <= _LONGEST_WAIT_US)
    @rule(early_us=st.integers(0, 1))
    def time_passes_until_it_fits(self, early_us: int) -> None:
        if self.wait_us > early_us:
            self.time_passes(self.wait_us - early_us)

    @rule()
    def renew(self) -> None:
        self.oracle.renew(self.bench.now_us())
        self.run(self.bench.renew())

    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self.limits))
        self.oracle.reset(chosen, self.bench.now_us())
        self.run(self.bench.limiter.reset([chosen]))

    @invariant()
    def all_rules_stand_alike(self) -> None:
        found = self.run(self.bench.limiter.standings(self.limits))
        assert tuple(found) == self.oracle.standings(self.limits, self.bench.now_us())

    def ask(self, demand: Demand) -> None:
        wanted = self.oracle.admit(demand, self.bench.now_us())
        found = self.run(ask(self.bench.limiter, demand))
        note(repr(wanted))
        assert found == wanted
        self.last, self.wait_us = demand, found.retry_after_us
        if found.admitted:
            self.under_way[demand.call_id] = (demand, self.bench.now_us())

    def end(self, demand: Demand, actual: dict[str, int]) -> None:
        self.bench.limiter.settle(demand, actual)
        self.oracle.end(demand.call_id, actual, self.bench.now_us())
        self.run(self.bench.arrived())

    def teardown(self) -> None:
        for demand, _ in list(self.under_way.values()):
            self.end(demand, {})


def _rules(house: Household) -> list[Rule]:
    """Narrow ones, whose numbers do not divide well."""
    return [
        house.rate(7),
        house.rate(1_001, "tokens", burst=300),
        house.rate(11, period="hour", whose="team"),
        house.rate(5_000, "tokens", period="day", whose="team"),
        house.rate(3, whose="model", shadow=True),
        house.rate(17, whose="endpoint"),
        house.rate(997, "tokens", whose="endpoint"),
        house.slots(2),
        house.slots(3, whose="endpoint"),
        house.slots(1, whose="model", shadow=True),
        house.budget(5_000, whose="team", resets_in_s=1_000 * 86_400),
        house.budget(3_000, resets_in_s=None),
    ]
