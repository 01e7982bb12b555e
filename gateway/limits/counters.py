"""What one rule has counted in this process: a bucket, slots that calls hold, or money.

Knows what fits, and no clock: each question comes with the time, as Unix microseconds that never go back. Which rules a
call asks together, and which calls are under way, is the memory limiter's business.
"""
# ruff: noqa: ARG002  # the three are asked alike, and not each needs to know all

from gateway.limits import gcra
from gateway.limits.rules import Charge, Rule, Standing

NEVER_US = 1 << 62
"""The wait for what no time brings back."""
_KEPT_US = 3_600_000_000
"""How long a drained bucket is kept: a call that was charged before may still have to settle."""
_KEPT_GIVEN_US = 86_400_000_000
"""The same where something was given back: a new bucket would not know, and give back what has drained."""
_KEPT_BUDGET_US = 86_400_000_000
"""How long money is kept past its window: clocks differ, and what is forgotten early would be granted twice."""


class Bucket:
    """Requests or tokens, at a rate."""

    __slots__ = ("_before_us", "_burst", "_depth_us", "_gain_us", "_given_us", "_units", "mark", "rule", "tat_us")

    def __init__(self, rule: Rule, now_us: int) -> None:
        self.tat_us = self._before_us = self.mark = now_us
        self._given_us = 0
        self.follow(rule)

    def __repr__(self) -> str:
        return f"Bucket({self.rule.id}, tat_us={self.tat_us})"

    def follow(self, rule: Rule) -> None:
        """The rule may change; what was charged stays, as time."""
        self.rule = rule
        self._gain_us, self._units = gcra.pace(rule)
        self._depth_us = gcra.capacity_us(rule)
        self._burst = gcra.burst(rule)

    def wait_us(self, amount: int, now_us: int) -> int:
        """Time until `amount` fits; 0: it fits now."""
        amount_us = -(-amount * self._gain_us // self._units)
        return gcra.wait_us(self.tat_us, amount_us, self._depth_us, now_us)

    def take(self, amount: int, now_us: int, call_id: str) -> Standing | None:
        """Charge what fits, and nothing otherwise: `gcra.wait_us`, `gcra.charged` and `standing` in one.

        Every call goes through here once a rule, and to call those takes as long as what they do.
        """
        tat_us = self.tat_us
        gain_us = self._gain_us
        units = self._units
        backlog_us = -(-amount * gain_us // units)
        if tat_us > now_us:
            backlog_us += tat_us - now_us
        room_us = self._depth_us - backlog_us
        if room_us < 0:
            if tat_us > now_us:
                return None
            room_us = 0  # an empty bucket takes more than it holds
        self._before_us = tat_us
        self.tat_us = tat_us = now_us + backlog_us
        self.mark = tat_us + self._given_us
        return Standing(self.rule, room_us * units // gain_us, backlog_us)

    def charge(self, amount: int, now_us: int, call_id: str) -> Standing:
        """Charge it, whether it fits or not."""
        return self._charge(-(-amount * self._gain_us // self._units), now_us)

    def undo(self, amount: int, call_id: str) -> None:
        """Take the last charge back, as if it had never been made."""
        self.tat_us = self._before_us

    def settle(self, charge: Charge, actual: int, mark: int, now_us: int) -> None:
        """A call came to `actual`; `mark` is what this said when it had been charged, in microseconds."""
        rule = charge.rule
        if rule is self.rule:
            gain_us = self._gain_us
            units = self._units
        else:
            gain_us, units = gcra.pace(rule)
        over_us = -(-charge.amount * gain_us // units) + -actual * gain_us // units
        if over_us > 0:
            given_us = self._given_us
            over_us = gcra.given_back(over_us, mark, given_us, now_us)
            if not over_us:  # all of it has drained
                return
            if self.tat_us + given_us != mark:  # others were charged since, and stand on it
                self._given_us = given_us + over_us
        self.tat_us -= over_us

    def standing(self, now_us: int) -> Standing:
        """As `gcra.remaining` and `gcra.reset_us` have it."""
        backlog_us = self.tat_us - now_us
        if backlog_us <= 0:
            return Standing(self.rule, self._burst, 0)
        room_us = self._depth_us - backlog_us
        return Standing(self.rule, room_us * self._units // self._gain_us if room_us > 0 else 0, backlog_us)

    def reset(self, now_us: int) -> None:
        self._given_us += max(self.tat_us - now_us, 0)
        self.tat_us = now_us

    def is_over(self, now_us: int) -> bool:
        """Whether it can be forgotten: a new one would decide the same."""
        return self.tat_us + (_KEPT_GIVEN_US if self._given_us else _KEPT_US) < now_us

    def _charge(self, amount_us: int, now_us: int) -> Standing:
        self._before_us = self.tat_us
        self.tat_us = gcra.charged(self.tat_us, amount_us, now_us)
        self.mark = self.tat_us + self._given_us
        return self.standing(now_us)


class Slots:
    """Calls under way, each with a lease that ends by itself."""

    __slots__ = ("_first_us", "_leases", "rule")
    mark = 0

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._leases: dict[str, int] = {}
        self._first_us = 0
        """No lease ends before that time."""

    def __repr__(self) -> str:
        return f"Slots({self.rule.id}, {len(self._leases)} of {self.rule.limit})"

    def follow(self, rule: Rule) -> None:
        """The rule may change; who holds a slot keeps it."""
        self.rule = rule

    def wait_us(self, amount: int, now_us: int) -> int:
        """As `Bucket.wait_us`; when a slot comes free nobody can tell."""
        return gcra.PARALLEL_RETRY_US if self._count(now_us) + amount > self.rule.limit else 0

    def take(self, amount: int, now_us: int, call_id: str) -> Standing | None:
        """As `Bucket.take`: `charge` and `standing` in one."""
        leases = self._leases
        if leases and self._first_us <= now_us:
            self._count(now_us)
            leases = self._leases
        free = self.rule.limit - len(leases) - amount
        if free < 0:
            return None
        ends_us = now_us + gcra.LEASE_US
        if not leases:
            self._first_us = ends_us
        leases[call_id] = ends_us
        return Standing(self.rule, free, 0)

    def charge(self, amount: int, now_us: int, call_id: str) -> Standing:
        """Take a slot, or hold the one that the call has for longer."""
        if not self._leases:
            self._first_us = now_us + gcra.LEASE_US
        self._leases[call_id] = now_us + gcra.LEASE_US
        return self.standing(now_us)

    def undo(self, amount: int, call_id: str) -> None:
        """As `Bucket.undo`; also what a call does that is over."""
        self._leases.pop(call_id, None)

    def standing(self, now_us: int) -> Standing:
        """Slots that are free."""
        return Standing(self.rule, max(self.rule.limit - self._count(now_us), 0), 0)

    def reset(self, now_us: int) -> None:
        self._leases.clear()

    def is_over(self, now_us: int) -> bool:
        """As `Bucket.is_over`."""
        return self._count(now_us) == 0

    def _count(self, now_us: int) -> int:
        if self._leases and self._first_us <= now_us:
            self._leases = {call_id: ends_us for call_id, ends_us in self._leases.items() if ends_us > now_us}
            self._first_us = min(self._leases.values(), default=0)
        return len(self._leases)


class Money:
    """Micro-dollars spent in one window: the rule's id names it."""

    __slots__ = ("mark", "rule", "spent")

    def __init__(self, rule: Rule, spent: int) -> None:
        self.rule = rule
        self.spent = spent
        self.mark = 0
        """How often it was reset."""

    def __repr__(self) -> str:
        return f"Money({self.rule.id}, {self.spent} of {self.rule.limit})"

    def follow(self, rule: Rule) -> None:
        """The rule may change; what was spent stays."""
        self.rule = rule

    def wait_us(self, amount: int, now_us: int) -> int:
        """As `Bucket.wait_us`: until the window ends."""
        if self.spent + amount <= self.rule.limit:
            return 0
        return NEVER_US if self.rule.resets_at_s is None else max(self._reset_us(now_us), 1)

    def take(self, amount: int, now_us: int, call_id: str) -> Standing | None:
        """As `Bucket.take`: `charge` and `standing` in one."""
        left = self.rule.limit - self.spent - amount
        if left < 0:
            return None
        self.spent += amount
        return Standing(self.rule, left, self._reset_us(now_us))

    def charge(self, amount: int, now_us: int, call_id: str) -> Standing:
        """As `Bucket.charge`."""
        self.spent += amount
        return self.standing(now_us)

    def undo(self, amount: int, call_id: str) -> None:
        """As `Bucket.undo`."""
        self.spent -= amount

    def settle(self, charge: Charge, actual: int, mark: int, now_us: int) -> None:
        """As `Bucket.settle`; what a call reserved before a reset is not there any more, so all of it counts."""
        self.spent = max(self.spent + actual - (charge.amount if mark == self.mark else 0), 0)

    def standing(self, now_us: int) -> Standing:
        """What may still be spent, and when the window ends."""
        return Standing(self.rule, max(self.rule.limit - self.spent, 0), self._reset_us(now_us))

    def reset(self, now_us: int) -> None:
        self.spent = 0
        self.mark += 1

    def is_over(self, now_us: int) -> bool:
        """As `Bucket.is_over`."""
        resets_at_s = self.rule.resets_at_s
        return resets_at_s is not None and resets_at_s * 1_000_000 + _KEPT_BUDGET_US < now_us

    def _reset_us(self, now_us: int) -> int:
        return max((self.rule.resets_at_s or 0) * 1_000_000 - now_us, 0)


Counter = Bucket | Slots | Money
