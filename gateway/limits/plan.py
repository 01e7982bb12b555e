"""From what a key and its team are allowed, and what one call wants, to the charges that the call asks.

Pure: the time is passed in. Knows which rules bind: a key's own, or where it has none of a dimension the default for
keys; the team's likewise; those of every pattern of the team's that fits the model; the endpoint's. Knows no counter.
Rules are made once for a key, so that a call costs no more than its own amounts.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo
from itertools import repeat
from typing import NamedTuple, get_args

import msgspec

from gateway.limits.rules import Charge, Demand, Dimension, Period, Rule, Rules, Whose
from gateway.limits.windows import WindowPeriod, window
from gateway.terms import NO_BUDGETS, NO_LIMITS, Budgets, Limits, Quota, matches, with_defaults

_RATES: tuple[tuple[str, Dimension, Period], ...] = (
    ("requests_per_minute", "requests", "minute"),
    ("requests_per_hour", "requests", "hour"),
    ("requests_per_day", "requests", "day"),
    ("tokens_per_minute", "tokens", "minute"),
    ("tokens_per_hour", "tokens", "hour"),
    ("tokens_per_day", "tokens", "day"),
)
_BUDGETS: tuple[tuple[str, WindowPeriod], ...] = (
    ("day_microusd", "day"),
    ("week_microusd", "week"),
    ("month_microusd", "month"),
    ("total_microusd", "total"),
)
_MOST_KEYS = 10_000
_MOST_RULES = 100_000
_MOST_MODELS = 64
_LONGEST_MODEL = 256
"""Clients choose the names of models, and would choose how much is remembered of them."""

SHADOWS = frozenset(
    name
    for whose in get_args(Whose)
    for dimension in get_args(Dimension)
    for name in (whose, dimension, f"{whose}/{dimension}")
)
"""What may be named as shadow: all limits of keys (`key`), all of a dimension (`tokens`), or both (`key/tokens`)."""


class Policy(msgspec.Struct, frozen=True):
    """What holds for everybody: defaults, where days begin, and which limits only count (names of `SHADOWS`)."""

    key: Limits = NO_LIMITS
    team: Limits = NO_LIMITS
    endpoint: Limits = NO_LIMITS
    endpoints: Mapping[str, Limits] = msgspec.field(default_factory=dict)
    """Of single endpoints by name, in place of `endpoint`."""
    key_budgets: Budgets = NO_BUDGETS
    team_budgets: Budgets = NO_BUDGETS
    zone: tzinfo = UTC
    shadow: frozenset[str] = frozenset()


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What one call wants, as estimated."""

    model: str | None = None
    """By the name that upstream knows."""
    tokens: int | None = None
    """None: it uses none, and costs nothing, as reading a stored object does."""
    cost_microusd: int = 0
    """0 also where nobody knows: budgets that are used up refuse it all the same."""
    endpoint: str | None = None


class Bound(NamedTuple):
    """Rules may bind a call, those of money among them if `has_budgets`."""

    has_budgets: bool


_UNSEEN = Bound(has_budgets=True)
"""Of a key of which that was not looked at yet."""


class _Plan(msgspec.Struct, frozen=True, gc=False):
    """All that calls ask which the same rules bind, but for their amounts.

    Budgets make it hold from `from_s` until `until_s`, without any it holds for ever.
    """

    ones: tuple[Charge, ...]
    tokens: tuple[Rule, ...]
    budgets: tuple[Rule, ...]
    endpoint_ones: tuple[Charge, ...]
    endpoint_tokens: tuple[Rule, ...]
    rules: Rules | None
    from_s: float
    until_s: float


class _Binding:
    """Rules that bind a call, by how their amounts come about: charges of one unit, and rules that tokens are for."""

    __slots__ = ("ones", "plans", "tokens")

    def __init__(self, ones: tuple[Charge, ...], tokens: tuple[Rule, ...]) -> None:
        self.ones = ones
        self.tokens = tokens
        self.plans: dict[str | None, _Plan] = {}
        """By endpoint, of calls that use tokens."""


class _Compiled:
    """The rules of one key and its team."""

    __slots__ = ("base", "bound", "budgets", "by_fitting", "by_model", "from_s", "patterns", "quota", "until_s")

    def __init__(self, quota: Quota, base: _Binding, patterns: tuple[tuple[str, _Binding], ...]) -> None:
        self.quota = quota
        self.base = base
        self.patterns = patterns
        self.by_model: dict[str, _Binding] = {}
        self.by_fitting: dict[tuple[int, ...], _Binding] = {}
        """By the places of the patterns that fit, since clients choose the names of models, and not what fits them."""
        self.bound: Bound | None = _UNSEEN
        self.budgets: tuple[Rule, ...] = ()
        self.from_s = self.until_s = 0.0
        """The time for which `budgets` are those of the windows then open."""

    def binding(self, model: str | None) -> _Binding:
        """The rules of key, team and model."""
        if model is None:
            return self.base
        found = self.by_model.get(model)
        if found is None:
            fitting = tuple([place for place, (pattern, _) in enumerate(self.patterns) if matches(pattern, model)])
            found = self.by_fitting.get(fitting) or self._join(fitting)
            if len(self.by_model) < _MOST_MODELS and len(model) <= _LONGEST_MODEL:
                self.by_model[model] = found
        return found

    def _join(self, fitting: tuple[int, ...]) -> _Binding:
        if len(self.by_fitting) >= _MOST_MODELS:
            self.by_fitting.clear()
        found = _joined(self.base, *(self.patterns[place][1] for place in fitting)) if fitting else self.base
        self.by_fitting[fitting] = found
        return found


class Planner:
    """Makes demands. Remembers the rules of the keys that call, within bounds."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._compiled: dict[str, _Compiled] = {}
        self._endpoints: dict[str, _Binding] = {}
        self._rules: dict[str, Rule] = {}
        """One object for a rule, whichever of a team's keys it was made for: limiters look whether it is the same."""

    def demand(self, call_id: str, quota: Quota, ask: Ask, now_s: float) -> Demand:
        """All that a call asks, at Unix time `now_s`."""
        compiled = self._of(quota)
        binding = compiled.binding(ask.model) if compiled.patterns else compiled.base
        if ask.tokens is None:
            of_endpoint = () if ask.endpoint is None else self._of_endpoint(ask.endpoint).ones
            return Demand(call_id, quota.team_id, binding.ones, of_endpoint)
        plan = binding.plans.get(ask.endpoint)
        if plan is None or (plan.budgets and not plan.from_s <= now_s < plan.until_s):
            plan = binding.plans[ask.endpoint] = self._plan(compiled, binding, ask.endpoint, now_s)
        charges, endpoint = plan.ones, plan.endpoint_ones
        # Less than one unit would pass a limit that is used up.
        if plan.tokens:
            charges += tuple(map(Charge, plan.tokens, repeat(max(ask.tokens, 1))))
        if plan.budgets:
            charges += tuple(map(Charge, plan.budgets, repeat(max(ask.cost_microusd, 1))))
        if plan.endpoint_tokens:
            endpoint += tuple(map(Charge, plan.endpoint_tokens, repeat(max(ask.tokens, 1))))
        return Demand(call_id, quota.team_id, charges, endpoint, plan.rules)

    def binds(self, quota: Quota, endpoint: str) -> Bound | None:
        """What may bind a call of this key's to that endpoint; None where no rule does, and there is nothing to ask."""
        compiled = self._of(quota)
        if compiled.bound is _UNSEEN:
            rules = (*self.rules(quota, 0.0), *self.endpoint_rules(endpoint))
            has_budgets = any(rule.dimension == "budget" for rule in rules)
            compiled.bound = Bound(has_budgets) if rules else None
        return compiled.bound

    def rules(self, quota: Quota, now_s: float) -> tuple[Rule, ...]:
        """Every rule of a key, its team and the team's models, for showing them and for resetting them."""
        compiled = self._of(quota)
        binding = _joined(compiled.base, *(binding for _, binding in compiled.patterns))
        return _rules(binding, self._budgets(compiled, now_s))

    def endpoint_rules(self, name: str) -> tuple[Rule, ...]:
        """Every rule of an upstream endpoint."""
        return _rules(self._of_endpoint(name))

    def _of(self, quota: Quota) -> _Compiled:
        compiled = self._compiled.get(quota.key_id)
        if compiled is None or compiled.quota is not quota:
            if len(self._compiled) >= _MOST_KEYS:
                self._compiled.clear()
            compiled = self._compiled[quota.key_id] = self._compile(quota)
        return compiled

    def _compile(self, quota: Quota) -> _Compiled:
        key = with_defaults(quota.key, self._policy.key)
        team = with_defaults(quota.team, self._policy.team)
        base = _joined(
            self._binding(f"{quota.team_id}/{quota.key_id}", "key", key),
            self._binding(quota.team_id, "team", team),
        )
        patterns = tuple(
            (model, self._binding(f"{quota.team_id}/model/{model}", "model", limits))
            for model, limits in quota.model_limits.items()
        )
        return _Compiled(quota, base, patterns)

    def _plan(self, compiled: _Compiled, binding: _Binding, endpoint: str | None, now_s: float) -> _Plan:
        budgets = self._budgets(compiled, now_s)
        of_endpoint = _Binding((), ()) if endpoint is None else self._of_endpoint(endpoint)
        rules = (*_rules(binding, budgets), *_rules(of_endpoint))
        return _Plan(
            binding.ones,
            binding.tokens,
            budgets,
            of_endpoint.ones,
            of_endpoint.tokens,
            Rules(rules) if rules else None,
            compiled.from_s,
            compiled.until_s,
        )

    def _of_endpoint(self, name: str) -> _Binding:
        binding = self._endpoints.get(name)
        if binding is None:
            limits = self._policy.endpoints.get(name, self._policy.endpoint)
            binding = self._endpoints[name] = self._binding(f"endpoint/{name}", "endpoint", limits)
        return binding

    def _binding(self, prefix: str, whose: Whose, limits: Limits) -> _Binding:
        rules = [self._same(rule) for rule in self._rates(prefix, whose, limits)]
        return _Binding(
            ones=tuple(Charge(rule, 1) for rule in rules if rule.dimension != "tokens"),
            tokens=tuple(rule for rule in rules if rule.dimension == "tokens"),
        )

    def _rates(self, prefix: str, whose: Whose, limits: Limits) -> Iterator[Rule]:
        for member, dimension, period in _RATES:
            limit = getattr(limits, member)
            if limit is not None:
                shadow = self._is_shadow(whose, dimension)
                yield Rule(f"{prefix}/{dimension}/{period}", dimension, whose, period, limit, limit, shadow)
        if limits.parallel is not None:
            shadow = self._is_shadow(whose, "parallel")
            yield Rule(f"{prefix}/parallel", "parallel", whose, None, limits.parallel, shadow=shadow)

    def _budgets(self, compiled: _Compiled, now_s: float) -> tuple[Rule, ...]:
        if not compiled.from_s <= now_s < compiled.until_s:
            quota, policy = compiled.quota, self._policy
            key = policy.key_budgets if quota.key_budgets == NO_BUDGETS else quota.key_budgets
            team = policy.team_budgets if quota.team_budgets == NO_BUDGETS else quota.team_budgets
            compiled.budgets = (
                *self._windows(f"{quota.team_id}/{quota.key_id}", "key", key, now_s),
                *self._windows(quota.team_id, "team", team, now_s),
            )
            ends = [rule.resets_at_s for rule in compiled.budgets if rule.resets_at_s is not None]
            compiled.from_s, compiled.until_s = now_s, min(ends, default=float("inf"))
        return compiled.budgets

    def _windows(self, prefix: str, whose: Whose, budgets: Budgets, now_s: float) -> Iterator[Rule]:
        shadow = self._is_shadow(whose, "budget")
        for member, period in _BUDGETS:
            limit = getattr(budgets, member)
            if limit is not None:
                now = window(period, now_s, self._policy.zone)
                name = period if period == now.name else f"{period}/{now.name}"
                yield self._same(
                    Rule(
                        f"{prefix}/budget/{name}",
                        "budget",
                        whose,
                        period,
                        limit,
                        shadow=shadow,
                        resets_at_s=now.resets_at_s,
                    )
                )

    def _is_shadow(self, whose: Whose, dimension: Dimension) -> bool:
        return not self._policy.shadow.isdisjoint((whose, dimension, f"{whose}/{dimension}"))

    def _same(self, rule: Rule) -> Rule:
        known = self._rules.get(rule.id)
        if known == rule:
            return known
        if len(self._rules) >= _MOST_RULES:
            self._rules.clear()
        self._rules[rule.id] = rule
        return rule


def actual(demand: Demand, *, tokens: int | None, cost_microusd: int | None) -> dict[str, int]:
    """What a call came to, by rule id, as `Limiter.settle` takes it. None: not known, so that the estimate stands.

    `demand` is a planner's.
    """
    rules = demand.rules
    told: dict[str, int] = {}
    if rules is not None:
        if tokens is not None:
            told = dict.fromkeys(rules.token_ids, tokens)
        if rules.budgets and cost_microusd is not None:
            told |= {rule.id: cost_microusd for rule in rules.budgets}
    return told


def _rules(binding: _Binding, budgets: tuple[Rule, ...] = ()) -> tuple[Rule, ...]:
    """In the order of their charges."""
    return (*[charge.rule for charge in binding.ones], *binding.tokens, *budgets)


def _joined(*bindings: _Binding) -> _Binding:
    return _Binding(
        tuple(charge for binding in bindings for charge in binding.ones),
        tuple(rule for binding in bindings for rule in binding.tokens),
    )
