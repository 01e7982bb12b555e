"""What limits mean, told as slowly and plainly as can be: the measure of every limiter.

It keeps all that ever happened and plays it back for each question, in exact fractions of units. It knows no formula of
GCRA. The one thing that it shares with the limiters by decree is how a charge is rounded: up to what a whole number of
microseconds gains (a request at a time).
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from gateway.limits.rules import PERIOD_S, Charge, Decision, Demand, Rule, Standing

LEASE_US = 30_000_000
NEVER = math.inf


def units_a_us(rule: Rule) -> Fraction:
    assert rule.period is not None
    return Fraction(rule.limit, PERIOD_S[rule.period] * 1_000_000)


def rounded(rule: Rule, amount: int) -> Fraction:
    """What is charged for `amount`, in units."""
    rate = units_a_us(rule)
    if rule.dimension == "requests":
        return amount * math.ceil(1 / rate) * rate
    return math.ceil(amount / rate) * rate


def burst_units(rule: Rule) -> Fraction:
    burst, rate = rule.burst or rule.limit, units_a_us(rule)
    return rounded(rule, burst) if rule.dimension == "requests" else math.floor(burst / rate) * rate


class Drop(NamedTuple):
    """A change of what is in a bucket."""

    at_us: int
    units: Fraction
    call_id: str
    is_charge: bool = False
    is_felt: bool = False
    """It was given back from under calls that were charged since."""


class Water:
    """A bucket that drains: every charge that was ever made, and every correction."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.past: list[Drop] = []

    def charge(self, amount: int, now_us: int, call_id: str) -> None:
        self.past.append(Drop(now_us, rounded(self.rule, amount), call_id, is_charge=True))

    def end(self, reserved: int, actual: int, now_us: int, call_id: str) -> None:
        units, is_felt = rounded(self.rule, actual) - rounded(self.rule, reserved), False
        if units < 0:
            undrained = self.undrained(now_us, call_id)
            is_felt = undrained != self.level(now_us)
            units = max(units, -max(undrained, Fraction(0)))
        self.past.append(Drop(now_us, units, call_id, is_felt=is_felt))

    def undrained(self, now_us: int, call_id: str) -> Fraction:
        """What is left of all that was in it when that call had been charged; below nothing if it drained long ago.

        Nobody can tell whether what was given back since came from below that call, so all of it is taken to.
        """
        number = next((number for number, drop in enumerate(self.past) if drop.call_id == call_id), None)
        if number is None:
            return Fraction(0)
        then = _level(self.rule, self.past[: number + 1], self.past[number].at_us)
        given = -sum(drop.units for drop in self.past[number + 1 :] if drop.is_felt)
        return then - given - units_a_us(self.rule) * (now_us - self.past[number].at_us)

    def level(self, now_us: int) -> Fraction:
        """What is in it; below nothing where there was nothing for a while."""
        return _level(self.rule, self.past, now_us)

    def wait_us(self, amount: int, now_us: int) -> float:
        level = max(self.level(now_us), Fraction(0))
        room = max(burst_units(self.rule) - rounded(self.rule, amount), Fraction(0))
        return math.ceil((level - room) / units_a_us(self.rule)) if level > room else 0

    def standing(self, now_us: int) -> Standing:
        level = self.level(now_us)
        if level <= 0:
            return Standing(self.rule, self.rule.burst or self.rule.limit, 0)
        room = burst_units(self.rule) - level
        remaining = max(math.floor(room), 0)
        while remaining and rounded(self.rule, remaining) > room:
            remaining -= 1
        return Standing(self.rule, remaining, math.ceil(level / units_a_us(self.rule)))

    def reset(self, now_us: int) -> None:
        self.past = [Drop(now_us, Fraction(0), "", is_charge=True)]


def _level(rule: Rule, past: Sequence[Drop], now_us: int) -> Fraction:
    rate, level, then_us = units_a_us(rule), Fraction(0), now_us
    for drop in past:
        level -= rate * max(drop.at_us - then_us, 0)
        level = (max(level, Fraction(0)) if drop.is_charge else level) + drop.units
        then_us = drop.at_us
    return level - rate * (now_us - then_us) if past else level


class Seats:
    """Who holds a slot, and until when."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.until_us: dict[str, int] = {}

    def charge(self, amount: int, now_us: int, call_id: str) -> None:
        del amount
        self.until_us[call_id] = now_us + LEASE_US

    def end(self, reserved: int, actual: int, now_us: int, call_id: str) -> None:
        del reserved, actual, now_us
        self.until_us.pop(call_id, None)

    def taken(self, now_us: int) -> int:
        return sum(until_us > now_us for until_us in self.until_us.values())

    def wait_us(self, amount: int, now_us: int) -> float:
        return 1_000_000 if self.taken(now_us) + amount > self.rule.limit else 0

    def standing(self, now_us: int) -> Standing:
        return Standing(self.rule, max(self.rule.limit - self.taken(now_us), 0), 0)

    def reset(self, now_us: int) -> None:
        del now_us
        self.until_us.clear()


class Purse:
    """What was spent in one window."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.spent = 0
        self.reserved: set[str] = set()

    def charge(self, amount: int, now_us: int, call_id: str) -> None:
        del now_us
        self.spent += amount
        self.reserved.add(call_id)

    def end(self, reserved: int, actual: int, now_us: int, call_id: str) -> None:
        del now_us
        self.spent += actual - (reserved if call_id in self.reserved else 0)

    def wait_us(self, amount: int, now_us: int) -> float:
        if self.spent + amount <= self.rule.limit:
            return 0
        return NEVER if self.rule.resets_at_s is None else self.rule.resets_at_s * 1_000_000 - now_us

    def standing(self, now_us: int) -> Standing:
        reset_us = 0 if self.rule.resets_at_s is None else self.rule.resets_at_s * 1_000_000 - now_us
        return Standing(self.rule, max(self.rule.limit - self.spent, 0), max(reset_us, 0))

    def reset(self, now_us: int) -> None:
        del now_us
        self.spent = 0
        self.reserved.clear()


Vessel = Water | Seats | Purse


class Oracle:
    """A limiter that is right because it is simple."""

    def __init__(self) -> None:
        self._vessels: dict[str, Vessel] = {}
        self._calls: dict[str, Demand] = {}

    def admit(self, demand: Demand, now_us: int) -> Decision | None:
        """None: the call is under way already."""
        if demand.call_id in self._calls:
            return None
        charges = (*demand.charges, *demand.endpoint)
        waits = self._waits((charge for charge in charges if not charge.rule.shadow), now_us)
        if waits:
            longest = max(waits.values())
            binding = next(rule for rule, wait_us in waits.items() if wait_us == longest)
            told = charges if binding.whose == "endpoint" else demand.charges
            standings = self.standings([charge.rule for charge in told], now_us)
            return Decision(False, standings, binding, 0 if longest == NEVER else int(longest))
        exceeded = tuple(self._waits((charge for charge in charges if charge.rule.shadow), now_us))
        for charge in charges:
            self._vessel(charge.rule).charge(charge.amount, now_us, demand.call_id)
        self._calls[demand.call_id] = demand
        return Decision(True, self.standings([charge.rule for charge in charges], now_us), exceeded=exceeded)

    def end(self, call_id: str, actual: dict[str, int], now_us: int) -> None:
        demand = self._calls.pop(call_id, None)
        if demand is None:
            return
        for charge in (*demand.charges, *demand.endpoint):
            amount = actual.get(charge.rule.id, charge.amount)
            self._vessel(charge.rule).end(charge.amount, amount, now_us, call_id)

    def renew(self, now_us: int) -> None:
        for call_id, demand in self._calls.items():
            for charge in (*demand.charges, *demand.endpoint):
                if charge.rule.dimension == "parallel":
                    self._vessel(charge.rule).charge(1, now_us, call_id)

    def reset(self, rule: Rule, now_us: int) -> None:
        self._vessel(rule).reset(now_us)

    def standings(self, rules: Iterable[Rule], now_us: int) -> tuple[Standing, ...]:
        return tuple(self._vessel(rule).standing(now_us) for rule in rules)

    def _waits(self, charges: Iterable[Charge], now_us: int) -> dict[Rule, float]:
        waits = {charge.rule: self._vessel(charge.rule).wait_us(charge.amount, now_us) for charge in charges}
        return {rule: wait_us for rule, wait_us in waits.items() if wait_us}

    def _vessel(self, rule: Rule) -> Vessel:
        if rule.id not in self._vessels:
            kinds: dict[str, type[Vessel]] = {"parallel": Seats, "budget": Purse}
            self._vessels[rule.id] = kinds.get(rule.dimension, Water)(rule)
        return self._vessels[rule.id]


def worst_excess(rule: Rule, admitted: Sequence[tuple[int, int]]) -> Fraction:
    """By how many units the worst of all intervals exceeds what the rule promises; at most 0 where it holds.

    `admitted` are (microsecond, amount), in order of time. All intervals that begin and end with an admission are
    looked at, exactly: the excess of one is the difference of two running sums.
    """
    assert all(earlier[0] <= later[0] for earlier, later in pairwise(admitted))
    rate, burst = units_a_us(rule), max(rule.burst or rule.limit, *(amount for _, amount in admitted))
    worst, least, total = Fraction(-burst), None, 0
    for at_us, amount in admitted:
        before = total - rate * at_us
        least = before if least is None else min(least, before)
        total += amount
        worst = max(worst, total - rate * at_us - least - burst)
    return worst
