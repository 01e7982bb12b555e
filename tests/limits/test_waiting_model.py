"""Whatever happens to calls that wait: no more is admitted than the oracle allows, in order, and nobody starves."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.limits import outlook
from gateway.limits.memory import MemoryLimiter
from gateway.limits.rules import Decision, Demand, Rule
from gateway.limits.waiting import WaitingRoom
from tests.limits.household import SECOND, Household
from tests.limits.line import AskedLimiter, Queue
from tests.limits.memory_bench import MemoryBench
from tests.limits.oracle import Oracle

T = TypeVar("T")

_KEYS = "abc"
_LOOK_US = 250_000


class Watched(MemoryLimiter):
    """A memory limiter that has to decide as the oracle does, and is asked about no call that is under way."""

    def __init__(self, bench: MemoryBench) -> None:
        super().__init__(clock=bench.now_us)
        self.bench = bench
        self.oracle = Oracle()

    def admit_now(self, demand: Demand) -> Decision | None:
        wanted = self.oracle.admit(demand, self.bench.now_us())
        assert wanted is not None, "it was admitted before"
        found = super().admit_now(demand)
        assert found == wanted
        if not found.admitted:
            assert outlook.refusal(demand, found.standings) == found
        return found

    def cancel(self, demand: Demand) -> None:
        super().cancel(demand)
        nothing = {charge.rule.id: 0 for charge in (*demand.charges, *demand.endpoint)}
        self.oracle.end(demand.call_id, nothing, self.bench.now_us())

    def end(self, demand: Demand, actual: dict[str, int]) -> None:
        self.settle(demand, actual)
        self.oracle.end(demand.call_id, actual, self.bench.now_us())


class Call(msgspec.Struct, eq=False):
    """A call that came, and what became of it."""

    key: str
    demand: Demand
    until_us: int
    stands_in_line: bool
    task: "asyncio.Task[tuple[Decision, float]]"


class WaitingMachine(RuleBasedStateMachine):
    """Calls of three keys of a team."""

    is_asked = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.bench = MemoryBench()
        self.limiter = Watched(self.bench)
        asked = AskedLimiter(self.limiter) if self.is_asked else self.limiter
        self.room = WaitingRoom(asked, clock=self.bench.now_us)
        self.house = Household(self.bench)
        self.own = {key: [self.house.rate(30, burst=2), self.house.slots(2)] for key in _KEYS}
        self.shared = [
            self.house.rate(60, burst=3, whose="team"),
            self.house.rate(1_001, "tokens", burst=300, whose="team"),
            self.house.slots(3, whose="endpoint"),
            self.house.budget(1_000_000, whose="team"),
        ]
        self.waiting: list[Call] = []
        self.under_way: list[Demand] = []

    @rule(key=st.sampled_from(_KEYS), data=st.data(), max_wait_s=st.sampled_from([0, 1, 7, 40]))
    def come(self, key: str, data: st.DataObject, max_wait_s: int) -> None:
        charges = {
            each: data.draw(st.integers(1, 400)) if each.dimension in {"tokens", "budget"} else 1
            for each in data.draw(self.chosen(key))
        }
        self.begin(key, charges, max_wait_s)

    @rule(key=st.sampled_from(_KEYS), count=st.integers(2, 12))
    def batch(self, key: str, count: int) -> None:
        for _ in range(count):
            self.begin(key, {self.shared[0]: 1, self.shared[2]: 1}, 40)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), percent=st.sampled_from([0, 50, 100, 150]))
    def settle(self, data: st.DataObject, percent: int) -> None:
        self.end(data.draw(st.sampled_from(self.under_way)), percent)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.waiting)).task.cancel()
        self.ran()

    @precondition(lambda self: self.waiting and self.under_way)
    @rule(data=st.data(), rounds=st.integers(0, 4))
    def leave_as_something_comes_free(self, data: st.DataObject, rounds: int) -> None:
        leaving = data.draw(st.sampled_from(self.waiting))
        freed = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(freed)
        self.limiter.end(freed, {})
        self.ran(rounds, first=lambda: self.room.released(freed))
        leaving.task.cancel()
        self.ran()

    @rule(us=st.sampled_from([1, 999, SECOND // 3, SECOND, 8 * SECOND]) | st.integers(1, 3 * SECOND))
    def time_passes(self, us: int) -> None:
        """As the timer would have it: a look whenever one is due, at the latest."""
        for _ in range(us // _LOOK_US):
            self.pass_(_LOOK_US)
        self.pass_(us % _LOOK_US)

    @invariant()
    def the_gauge_is_true(self) -> None:
        assert self.room.waiting == len(self.waiting)

    @invariant()
    def nobody_waits_for_longer_than_it_may(self) -> None:
        assert all(call.until_us > self.bench.now_us() for call in self.waiting)

    @invariant()
    def balances_are_those_of_the_oracle(self) -> None:
        rules = [*self.shared, *(each for own in self.own.values() for each in own)]
        found = tuple(self.run(self.limiter.standings(rules)))
        assert found == self.limiter.oracle.standings(rules, self.bench.now_us())

    def teardown(self) -> None:
        """When those under way end, all that wait are answered; and those that came first were first."""
        for _ in range(1_000):
            if not self.waiting:
                break
            for demand in self.under_way[:]:
                self.end(demand, 100)
            self.pass_(_LOOK_US)
        assert not self.waiting
        assert self.room._timer is None
        self.loop.close()

    def chosen(self, key: str) -> st.SearchStrategy[list[Rule]]:
        return st.lists(st.sampled_from([*self.own[key], *self.shared]), max_size=5, unique_by=lambda rule: rule.id)

    def begin(self, key: str, charges: dict[Rule, int], max_wait_s: int) -> None:
        demand = self.house.call(charges)
        admitting = self.room.admit(demand, whose=key, max_wait_s=max_wait_s)
        until_us = self.bench.now_us() + max_wait_s * SECOND
        stands = bool(max_wait_s and charges)
        self.waiting.append(Call(key, demand, until_us, stands, self.loop.create_task(admitting)))
        self.ran()

    def end(self, demand: Demand, percent: int) -> None:
        self.under_way.remove(demand)
        actual = {
            charge.rule.id: charge.amount * percent // 100
            for charge in demand.charges
            if charge.rule.dimension in {"tokens", "budget"}
        }
        self.limiter.end(demand, actual)
        self.ran(first=lambda: self.room.released(demand))

    def pass_(self, us: int) -> None:
        self.run(self.bench.advance(us))
        self.ran(first=self.room.look)

    def ran(self, rounds: int = 40, *, first: Callable[[], object] = bool) -> None:
        """Let all tasks run until they wait, and take note of what became of them."""

        async def run() -> None:
            first()
            for _ in range(rounds):
                await asyncio.sleep(0)

        self.loop.run_until_complete(run())
        still = [call for call in self.waiting if not call.task.done()]
        for call in [call for call in self.waiting if call.task.done()]:
            if not call.task.cancelled() and call.task.result()[0].admitted:
                self.under_way.append(call.demand)
                assert not call.stands_in_line or not self.before(call, still)
        self.waiting = still

    def before(self, call: Call, waiting: list[Call]) -> list[Call]:
        """Those of its key that came earlier, and wait."""
        earlier = self.waiting[: self.waiting.index(call)]
        return [each for each in earlier if each.key == call.key and each in waiting]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)


class AskedWaitingMachine(WaitingMachine):
    is_asked = True


TestCallsThatWait = WaitingMachine.TestCase
TestCallsThatWait.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestCallsThatWaitForAnswers = AskedWaitingMachine.TestCase
TestCallsThatWaitForAnswers.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


_STEPS = st.one_of(
    st.tuples(st.just("come"), st.sampled_from("abcd"), st.integers(1, 300)),
    st.tuples(st.just("pass"), st.just(""), st.integers(1, 3 * SECOND)),
    st.tuples(st.just("settle"), st.just(""), st.integers(0, 100)),
    st.tuples(st.just("leave"), st.sampled_from("abcd"), st.integers(0, 10)),
)


class Witness:
    """Who waits, as somebody sees it who stands beside the line."""

    def __init__(self) -> None:
        self.lines: defaultdict[str, list[str]] = defaultdict(list)
        self.overtaken: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def admitted(self, name: str) -> None:
        key = name[0]
        assert name == self.lines[key][0], "it was not its turn"
        self.lines[key].remove(name)
        for other, line in self.lines.items():
            if line and other != key:
                self.overtaken[line[0]][key] += 1
                assert self.overtaken[line[0]][key] <= 1, f"{line[0]} starves"


class Watch:
    """Plays steps on a line for one shared rule, before a witness."""

    def __init__(self, dimension: str) -> None:
        bench = MemoryBench()
        self.queue, self.witness, self.seen, self.settled = Queue(bench.limiter, bench), Witness(), 0, 0
        house = self.queue.house
        self.is_tokens = dimension == "tokens"
        self.shared = {
            "requests": house.rate(60, burst=2, whose="team"),
            "tokens": house.rate(6_000, "tokens", burst=300, whose="team"),
            "parallel": house.slots(2, whose="endpoint"),
        }[dimension]

    async def play(self, steps: list[tuple[str, str, int]]) -> None:
        for number, (step, key, amount) in enumerate(steps):
            await self.step(step, key, amount, f"{key}{number}")
            self.see()
        while self.queue.room.waiting:
            admitted = len(self.queue.admitted)
            await self.queue.advance(10 * SECOND)
            while self.settled < len(self.queue.admitted):
                await self.settle(0)
            self.see()
            assert len(self.queue.admitted) > admitted, "nobody is admitted any more"
        assert not any(self.witness.lines.values())

    async def step(self, step: str, key: str, amount: int, name: str) -> None:
        line = self.witness.lines[key]
        if step == "come":
            line.append(name)
            await self.queue.come(name, {self.shared: amount if self.is_tokens else 1}, max_wait_s=100_000)
        elif step == "pass":
            await self.queue.advance(amount)
        elif step == "settle" and self.settled < len(self.queue.admitted):
            await self.settle(amount)
        elif step == "leave" and amount < len(line):
            await self.queue.leave(line.pop(amount))

    async def settle(self, amount: int) -> None:
        self.settled += 1
        await self.queue.settle(
            self.queue.admitted[self.settled - 1], {self.shared.id: amount} if self.is_tokens else {}
        )

    def see(self) -> None:
        for name in self.queue.admitted[self.seen :]:
            self.witness.admitted(name)
        self.seen = len(self.queue.admitted)


@pytest.mark.parametrize("dimension", ["requests", "tokens", "parallel"])
@settings(max_examples=200, deadline=None)
@given(steps=st.lists(_STEPS, max_size=60))
def test_nobody_starves_and_nobody_is_overtaken_twice_by_the_same_key(
    dimension: str, steps: list[tuple[str, str, int]]
) -> None:
    async def play() -> None:
        await Watch(dimension).play(steps)

    asyncio.run(play())
