"""Limits of one process, in its memory: exact, at once, and gone when it ends.

Decides without waiting, so nothing comes between looking and charging. Knows no settings, no prices and no server;
what was spent before this process began is asked of whoever keeps it, once a window.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from operator import attrgetter

from gateway.errors import StoreUnavailable
from gateway.limits.counters import NEVER_US, Bucket, Counter, Money, Slots
from gateway.limits.gcra import LEASE_US
from gateway.limits.rules import Charge, Decision, Demand, Rule, Rules, Standing

Clock = Callable[[], int]
"""Unix time in microseconds that never goes back."""
Spent = Callable[[Sequence[Rule]], Awaitable[Mapping[str, int]]]
"""Micro-dollars by rule id: all that was spent so far in the windows of these budgets. Raises `StoreUnavailable`."""

_RENEWALS_A_SWEEP = 6
_SWEPT_AT_ONCE = 1_000
_ASK_AGAIN_US = 5_000_000
_TOLD_ANYHOW = ("parallel", "budget")
"""What has to hear of the end of a call that came to what it had reserved: it gives it back, or may have been reset."""
_MOST_SETS = 10_000
_mark = attrgetter("mark")


class _CounterSet:
    """The counters of calls that the same rules bind, in the order of these, each following its rule.

    It is forgotten as soon as one of them follows another rule, or is forgotten itself.
    """

    __slots__ = ("corrected", "counters", "slots")

    def __init__(self, counters: list[Counter]) -> None:
        self.counters = counters
        self.slots = [counter for counter in counters if isinstance(counter, Slots)]
        self.corrected = [
            (number, counter.rule.id, counter)
            for number, counter in enumerate(counters)
            if not isinstance(counter, Slots) and counter.rule.dimension != "requests"
        ]
        """Whose amounts are known only at the end of a call, by their places."""


def steady_clock() -> Clock:
    """The wall clock as it is now, carried on by the monotonic one: whoever sets the wall clock moves no bucket."""
    offset_ns = time.time_ns() - time.monotonic_ns()
    monotonic_ns = time.monotonic_ns
    return lambda: (monotonic_ns() + offset_ns) // 1_000


class MemoryLimiter:
    """The `Limiter` of a single process. Use it on one event loop; a demand names each rule once.

    Args:
        clock: `steady_clock()` by default.
        load_spent: Asked for each budget that is new here. Without it, budgets begin with nothing spent.
        renew_every_s: Between two renewals of the leases; every sixth time it looks what can be forgotten.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        load_spent: Spent | None = None,
        renew_every_s: float = LEASE_US / 3_000_000,
    ) -> None:
        self._clock = clock or steady_clock()
        self._load_spent = load_spent
        self._renew_every_s = renew_every_s
        self._counters: dict[str, Counter] = {}
        self._sets: dict[Rules | None, _CounterSet] = {}
        """Of calls that say which rules they ask."""
        self._calls: dict[str, tuple[Demand, Decision, list[int]]] = {}
        """With the mark that each counter gave for its charge."""
        self._unread: dict[str, int] = {}
        """Budgets whose earlier spending could not be read, and when to ask again."""
        self._reading = asyncio.Lock()
        self._upkeep: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"MemoryLimiter({len(self._counters)} counters, {len(self._calls)} calls)"

    def admit_now(self, demand: Demand) -> Decision | None:
        """As `Limiter.admit_now`. None where a budget is new here and its earlier spending has yet to be read."""
        call_id = demand.call_id
        held = self._calls.get(call_id)
        if held is not None:
            return held[1]
        now_us = self._clock()
        if self._unread and any(self._is_due(charge.rule, now_us) for charge in demand.charges):
            return None
        known = self._sets.get(demand.rules)
        counters = self._counters_of(demand, now_us) if known is None else known.counters
        if counters is None:
            return None
        charges = demand.charges + demand.endpoint
        standings: list[Standing] = []
        exceeded: tuple[Rule, ...] = ()
        for counter, charge in zip(counters, charges, strict=True):
            standing = counter.take(charge.amount, now_us, call_id)
            if standing is None:
                if not counter.rule.shadow:
                    for taken, its in zip(counters[: len(standings)], charges, strict=False):
                        taken.undo(its.amount, call_id)
                    return self._refusal(demand, now_us)
                standing = counter.charge(charge.amount, now_us, call_id)
                exceeded = (*exceeded, counter.rule)
            standings.append(standing)
        decision = Decision(True, tuple(standings), exceeded=exceeded)
        self._calls[call_id] = demand, decision, list(map(_mark, counters))
        return decision

    async def admit(self, demand: Demand, *, asks_again: bool = False) -> Decision:  # noqa: ARG002 - its word is final
        """As `Limiter.admit`. A budget whose earlier spending cannot be read begins with none, until it can."""
        while (decision := self.admit_now(demand)) is None:
            await self._read(charge.rule for charge in (*demand.charges, *demand.endpoint))
        return decision

    def settle(self, demand: Demand, actual: Mapping[str, int]) -> None:
        """As `Limiter.settle`."""
        call_id = demand.call_id
        held = self._calls.pop(call_id, None)
        if held is None:
            return
        demand, _, marks = held
        known = self._sets.get(demand.rules)
        if known is None:
            self._end(demand, marks, actual)
            return
        for slots in known.slots:
            slots.undo(1, call_id)
        now_us = self._clock()
        charges = demand.charges + demand.endpoint
        for number, rule_id, counter in known.corrected:
            charge = charges[number]
            counter.settle(charge, actual.get(rule_id, charge.amount), marks[number], now_us)

    def cancel(self, demand: Demand) -> None:
        """As `Limiter.cancel`."""
        held = self._calls.pop(demand.call_id, None)
        if held is not None:
            demand, _, marks = held
            self._end(demand, marks, None)

    def charge(self, demand: Demand) -> None:
        """As `Limiter.charge`."""
        now_us = self._clock()
        for charge in (*demand.charges, *demand.endpoint):
            counter = self._counter(charge.rule, now_us)
            if isinstance(counter, Money):
                counter.settle(Charge(charge.rule, 0), charge.amount, 0, now_us)
            elif counter is not None:
                counter.charge(charge.amount, now_us, demand.call_id)

    async def standings(self, rules: Sequence[Rule]) -> list[Standing]:
        """As `Limiter.standings`."""
        await self._read(rules)
        now_us = self._clock()
        return [(self._counter(rule, now_us) or _new(rule, now_us)).standing(now_us) for rule in rules]

    async def reset(self, rules: Sequence[Rule]) -> None:
        """As `Limiter.reset`. Slots that calls of this process hold are taken again at the next renewal."""
        now_us = self._clock()
        for rule in rules:
            self._counters.setdefault(rule.id, _new(rule, now_us)).reset(now_us)
            self._unread.pop(rule.id, None)

    def renew(self) -> None:
        """Hold the slots of all calls under way for another life of a lease."""
        now_us = self._clock()
        for call_id, (demand, *_) in self._calls.items():
            for charge in demand.charges + demand.endpoint:
                if charge.rule.dimension == "parallel" and (counter := self._counter(charge.rule, now_us)):
                    counter.charge(1, now_us, call_id)

    async def sweep(self) -> None:
        """Forget what no longer matters, a few at a time: drained buckets, free slots, windows of the past."""
        ids = list(self._counters)
        for start in range(0, len(ids), _SWEPT_AT_ONCE):
            now_us = self._clock()
            for rule_id in ids[start : start + _SWEPT_AT_ONCE]:
                counter = self._counters.get(rule_id)
                if counter is not None and counter.is_over(now_us):
                    del self._counters[rule_id]
                    self._unread.pop(rule_id, None)
            self._sets.clear()
            await asyncio.sleep(0)

    def start(self) -> None:
        """As `Limiter.start`."""
        if self._upkeep is None:
            self._upkeep = asyncio.create_task(self._keep_up(), name="limits-upkeep")

    async def close(self) -> None:
        """As `Limiter.close`."""
        upkeep, self._upkeep = self._upkeep, None
        if upkeep is not None:
            upkeep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await upkeep

    def _counters_of(self, demand: Demand, now_us: int) -> list[Counter] | None:
        """In the order of the charges, for the next call with the same rules too. None: a budget has to be read."""
        counters: list[Counter] = []
        for charge in demand.charges + demand.endpoint:
            counter = self._counter(charge.rule, now_us)
            if counter is None:
                return None
            counters.append(counter)
        if demand.rules is not None:
            if len(self._sets) >= _MOST_SETS:
                self._sets.clear()
            self._sets[demand.rules] = _CounterSet(counters)
        return counters

    def _refusal(self, demand: Demand, now_us: int) -> Decision | None:
        """Which rule keeps the call waiting longest; the endpoint is told of only if that binds. None: a budget has
        to be read.
        """
        standings: list[Standing] = []
        longest_us, binding = 0, None
        for charge in (*demand.charges, *demand.endpoint):
            counter = self._counter(charge.rule, now_us)
            if counter is None:
                return None
            standings.append(counter.standing(now_us))
            wait_us = counter.wait_us(charge.amount, now_us)
            if wait_us > longest_us and not charge.rule.shadow:
                longest_us, binding = wait_us, charge.rule
        if binding is None:
            raise AssertionError("a charge was refused, and fits now that it was undone")
        told = standings if binding.whose == "endpoint" else standings[: len(demand.charges)]
        return Decision(False, tuple(told), binding, 0 if longest_us == NEVER_US else longest_us)

    def _end(self, demand: Demand, marks: list[int], actual: Mapping[str, int] | None) -> None:
        """Settle a call, or cancel it (None), whose counters may have been forgotten meanwhile."""
        now_us = self._clock()
        for charge, mark in zip(demand.charges + demand.endpoint, marks, strict=True):
            rule = charge.rule
            amount = 0 if actual is None else actual.get(rule.id, charge.amount)
            if amount != charge.amount or rule.dimension in _TOLD_ANYHOW:
                counter = self._counters.get(rule.id) or self._counter(rule, now_us)
                if isinstance(counter, Slots):
                    counter.undo(1, demand.call_id)
                elif counter is not None:
                    counter.settle(charge, amount, mark, now_us)

    def _counter(self, rule: Rule, now_us: int) -> Counter | None:
        """The counter, which from now on follows `rule`. None: a budget, and its earlier spending has to be read."""
        counter = self._counters.get(rule.id)
        if counter is not None:
            if counter.rule is not rule:
                counter.follow(rule)
                self._sets.clear()
        elif rule.dimension != "budget" or self._load_spent is None:
            counter = self._counters[rule.id] = _new(rule, now_us)
        return counter

    async def _read(self, rules: Iterable[Rule]) -> None:
        """Ask for the earlier spending of budgets of which it is not known, one caller at a time."""
        async with self._reading:
            now_us = self._clock()
            unread = [rule for rule in rules if self._is_due(rule, now_us)]
            if self._load_spent is None or not unread:
                return
            for rule in unread:
                # Whoever comes meanwhile need not wait again where it failed before.
                if rule.id in self._unread:
                    self._unread[rule.id] = now_us + _ASK_AGAIN_US
            try:
                spent = await self._load_spent(unread)
            except StoreUnavailable:
                self._note(unread, {}, self._clock() + _ASK_AGAIN_US)
            else:
                self._note(unread, spent, None)

    def _is_due(self, rule: Rule, now_us: int) -> bool:
        """Whether it is time to read what was spent of a budget."""
        if rule.dimension != "budget" or self._load_spent is None:
            return False
        return rule.id not in self._counters or self._unread.get(rule.id, NEVER_US) <= now_us

    def _note(self, rules: Iterable[Rule], spent: Mapping[str, int], again_at_us: int | None) -> None:
        for rule in rules:
            if again_at_us is None:
                self._unread.pop(rule.id, None)
            else:
                self._unread[rule.id] = again_at_us
            counter = self._counters.setdefault(rule.id, Money(rule, 0))
            if isinstance(counter, Money):
                counter.spent = max(counter.spent, spent.get(rule.id, 0))

    async def _keep_up(self) -> None:
        while True:
            for _ in range(_RENEWALS_A_SWEEP):
                await asyncio.sleep(self._renew_every_s)
                self.renew()
            await self.sweep()


def _new(rule: Rule, now_us: int) -> Counter:
    if rule.dimension == "parallel":
        return Slots(rule)
    if rule.dimension == "budget":
        return Money(rule, 0)
    return Bucket(rule, now_us)
