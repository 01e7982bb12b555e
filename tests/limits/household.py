"""A limiter under test, and a team with rules of its own that calls it."""

import itertools
import random
from collections.abc import Mapping
from typing import Protocol

import msgspec

from gateway.limits.limiter import Limiter
from gateway.limits.rules import Charge, Decision, Demand, Dimension, Period, Rule, Rules, Whose

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
_numbers = itertools.count(random.SystemRandom().randrange(1 << 40))


class Bench(Protocol):
    """A limiter and the hands on it that a test needs. Time stands still but for `advance`."""

    @property
    def limiter(self) -> Limiter: ...

    def now_us(self) -> int:
        """The limiter's time, Unix microseconds."""

    async def advance(self, us: int) -> None:
        """Let time pass, in which nothing is renewed."""

    async def renew(self) -> None:
        """Renew the leases of the calls under way, as the limiter does by itself every few seconds."""

    async def arrived(self) -> None:
        """Return when all that was settled and cancelled has taken effect."""


def new_id() -> str:
    return f"{next(_numbers):x}"


class Household:
    """A team with rules of its own, and its calls."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.limiter = bench.limiter
        self.team = f"team_{new_id()}"
        self.endpoint = f"endpoint/{new_id()}"

    def rate(
        self,
        limit: int,
        dimension: Dimension = "requests",
        *,
        burst: int = 0,
        period: Period = "minute",
        whose: Whose = "key",
        shadow: bool = False,
    ) -> Rule:
        return Rule(self._id(whose, f"{dimension}/{period}"), dimension, whose, period, limit, burst or limit, shadow)

    def slots(self, limit: int, *, whose: Whose = "key", shadow: bool = False) -> Rule:
        return Rule(self._id(whose, "parallel"), "parallel", whose, None, limit, shadow=shadow)

    def budget(self, limit: int, *, whose: Whose = "key", shadow: bool = False, resets_in_s: int | None = 3600) -> Rule:
        period: Period = "total" if resets_in_s is None else "month"
        resets_at_s = None if resets_in_s is None else self.bench.now_us() // SECOND + resets_in_s
        rule_id = self._id(whose, f"budget/{period}/{new_id()}")
        return Rule(rule_id, "budget", whose, period, limit, shadow=shadow, resets_at_s=resets_at_s)

    def call(
        self, charges: Mapping[Rule, int], endpoint: Mapping[Rule, int] | None = None, *, call_id: str | None = None
    ) -> Demand:
        rules = Rules([*charges, *(endpoint or {})])
        call_id = call_id or f"call_{new_id()}"
        return Demand(call_id, self.team, _charges(charges), _charges(endpoint or {}), rules)

    async def admit(self, charges: Mapping[Rule, int], endpoint: Mapping[Rule, int] | None = None) -> Demand:
        """A call that has to be admitted."""
        demand = self.call(charges, endpoint)
        decision = await ask(self.limiter, demand)
        assert decision.admitted, decision
        return demand

    async def refuse(self, charges: Mapping[Rule, int], endpoint: Mapping[Rule, int] | None = None) -> Decision:
        """A call that has to be refused."""
        decision = await ask(self.limiter, self.call(charges, endpoint))
        assert not decision.admitted, decision
        assert decision.binding is not None
        return decision

    async def settle(self, demand: Demand, actual: Mapping[Rule, int] | None = None) -> None:
        self.limiter.settle(demand, {rule.id: amount for rule, amount in (actual or {}).items()})
        await self.bench.arrived()

    async def cancel(self, demand: Demand) -> None:
        self.limiter.cancel(demand)
        await self.bench.arrived()

    async def left(self, *rules: Rule) -> list[int]:
        return [standing.remaining for standing in await self.limiter.standings(rules)]

    def _id(self, whose: Whose, rest: str) -> str:
        subject = {
            "key": f"{self.team}/key_{new_id()}",
            "team": f"{self.team}",
            "model": f"{self.team}/model/openai/*",
            "endpoint": self.endpoint,
        }[whose]
        return f"{subject}/{rest}"


async def ask(limiter: Limiter, demand: Demand) -> Decision:
    """As a call does: without waiting if that is enough."""
    return limiter.admit_now(demand) or await limiter.admit(demand)


def _charges(amounts: Mapping[Rule, int]) -> tuple[Charge, ...]:
    return tuple(Charge(rule, amount) for rule, amount in amounts.items())


def with_limit(rule: Rule, limit: int) -> Rule:
    """The same rule after somebody changed its limit."""
    return msgspec.structs.replace(rule, limit=limit, burst=limit if rule.burst else 0)
