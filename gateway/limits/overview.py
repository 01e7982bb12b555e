"""How the limits of a key, a team or an endpoint stand, and how all of them are made available again.

Knows that budgets are counted twice, by the limiter and in the store, and asks both. Who may look, and who may reset,
is decided before.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from gateway.errors import StoreUnavailable
from gateway.limits.limiter import Limiter
from gateway.limits.plan import Planner
from gateway.limits.redis import RedisLimiter
from gateway.limits.rules import Rule, Standing
from gateway.limits.spend import Spend
from gateway.terms import Quota

Mode = Literal["memory", "exact", "local", "closed", "open"]
"""Where it is counted: in this process, or in Redis; the others while Redis is away, by `limits.on_redis_failure`."""


class Overview:
    """All limits of one gateway. `now` is Unix time in seconds; `endpoints` are those that calls go to."""

    def __init__(  # noqa: PLR0913 - the parts that it looks into
        self,
        planner: Planner,
        limiter: Limiter,
        spend: Spend,
        *,
        endpoints: tuple[str, ...],
        has_prices: Callable[[], bool] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`has_prices`: whether any model has a price; None: that is not known here."""
        self.endpoints = endpoints
        self._planner = planner
        self._limiter = limiter
        self._spend = spend
        self._has_prices = has_prices
        self._now = now

    @property
    def has_prices(self) -> bool | None:
        """Whether any model has a price, without which nothing draws on a budget. None: not known here."""
        return None if self._has_prices is None else self._has_prices()

    @property
    def mode(self) -> Mode:
        """How it is decided now."""
        return self._limiter.mode if isinstance(self._limiter, RedisLimiter) else "memory"

    def rules_of_key(self, quota: Quota) -> list[Rule]:
        """All that bind a key: its own, its team's, and those of the team's models."""
        return list(self._planner.rules(quota, self._now()))

    def rules_of_team(self, quota: Quota) -> list[Rule]:
        """Those that all of a team's keys share. The key's part of `quota` does not matter."""
        return [rule for rule in self._planner.rules(quota, self._now()) if rule.whose != "key"]

    def rules_of_endpoint(self, name: str) -> list[Rule]:
        """Those that all calls to an endpoint share."""
        return list(self._planner.endpoint_rules(name))

    async def standings(self, rules: Sequence[Rule]) -> list[Standing]:
        """How each rule stands, in the order asked. Raises StoreUnavailable, as `Limiter.standings`."""
        told = await self._limiter.standings(rules)
        budgets = [rule for rule in rules if rule.dimension == "budget"]
        if not budgets:
            return told
        try:
            spent = await self._spend.load(budgets)
        except StoreUnavailable:
            return told
        # A budget that nobody has drawn on since Redis was flushed is known to the store alone.
        return [_at_most_left(standing, spent) for standing in told]

    async def reset(self, rules: Sequence[Rule]) -> None:
        """Make all of each rule available again, and forget what was spent of budgets.

        Raises StoreUnavailable; what was reset until then stays so, and it can be asked for again.
        """
        await self._limiter.reset(rules)
        budgets = [rule for rule in rules if rule.dimension == "budget"]
        if budgets:
            await self._spend.reset(budgets)


def full(rule: Rule) -> int:
    """What is left of a rule that nothing was used of."""
    return rule.burst or rule.limit


def model_of(rule: Rule) -> str | None:
    """The model, or the pattern of models, that a rule of whose `model` is about; None: it is about none."""
    if rule.whose != "model":
        return None
    end = f"/{rule.dimension}" if rule.period is None else f"/{rule.dimension}/{rule.period}"
    return rule.id.partition("/model/")[2].removesuffix(end)


def _at_most_left(standing: Standing, spent: Mapping[str, int]) -> Standing:
    rule = standing.rule
    left = max(rule.limit - spent.get(rule.id, 0), 0)
    if rule.dimension != "budget" or standing.remaining <= left:
        return standing
    return Standing(rule, left, standing.reset_us)
