"""What may be limited, as data: rules for rates, for calls at once and for money, and what a call asks of them.

Knows no clock and stores nothing. A rule's `id` names one counter: every node that sees the same limit computes the
same id, and all of a team's begin with the team's id, so that they can live on one node of a Redis Cluster.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

Dimension = Literal["requests", "tokens", "parallel", "budget"]
Whose = Literal["key", "team", "model", "endpoint"]
Period = Literal["minute", "hour", "day", "week", "month", "total"]

PERIOD_S: dict[Period, int] = {"minute": 60, "hour": 3600, "day": 86_400}
"""Seconds of the periods that rates have."""


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One limit of one key, team, model within a team, or upstream endpoint.

    Rates (`requests`, `tokens`): at most `burst + limit * t / period` units in any interval of length t. `parallel`: at
    most `limit` calls at once. `budget`: at most `limit` micro-dollars until `resets_at_s` (None: ever).
    `shadow`: it counts and reports, and refuses nobody.
    """

    id: str
    dimension: Dimension
    whose: Whose
    period: Period | None
    limit: int
    burst: int = 0
    """Of rates alone; the limit itself by default."""
    shadow: bool = False
    resets_at_s: int | None = None


class Charge(msgspec.Struct, frozen=True, gc=False):
    """What a call asks of one rule: requests (1), tokens, slots (1), or micro-dollars."""

    rule: Rule
    amount: int


class Rules:
    """The rules that a call asks, in the order of its charges, and what is the same for all calls that ask these.

    A limiter may remember by it; it is equal to itself alone.
    """

    __slots__ = ("all", "budgets", "token_ids", "told")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.all = tuple(rules)
        self.token_ids = tuple([rule.id for rule in rules if rule.dimension == "tokens"])
        self.budgets = tuple([rule for rule in rules if rule.dimension == "budget"])
        rates: dict[Dimension, list[int]] = {"requests": [], "tokens": []}
        for number, rule in enumerate(rules):
            if rule.dimension in rates and not rule.shadow:
                rates[rule.dimension].append(number)
        self.told = tuple([(rate, found[0], found[1:]) for rate, found in rates.items() if found])
        """Where those rates are that clients are told of: of each dimension the first, and the others."""

    def __repr__(self) -> str:
        return f"Rules({[rule.id for rule in self.all]})"


class Demand(msgspec.Struct, frozen=True, gc=False):
    """All that one call asks, admitted as a whole or not at all. Asking again with the same id charges nothing more."""

    call_id: str
    team_id: str
    charges: tuple[Charge, ...]
    """Of key, team and model, in one step."""
    endpoint: tuple[Charge, ...] = ()
    """Of the upstream endpoint, in a second step, whose refusal gives the first one back."""
    rules: Rules | None = None
    """Those of all charges, the endpoint's last, where many calls ask the same."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a rule stands: units left now (never negative), and microseconds until all of it is there again.

    `reset_us` is 0 where nobody can tell: for slots, and for budgets without an end.
    """

    rule: Rule
    remaining: int
    reset_us: int


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Whether a call may go ahead. `binding` is the rule that refused it, or None."""

    admitted: bool
    standings: tuple[Standing, ...]
    """Of all rules that were asked, after the charge."""
    binding: Rule | None = None
    retry_after_us: int = 0
    """After that time the same call is admitted if nobody else takes the room; for budgets, until the reset, or 0 where
    there is none; for slots, a second, since nobody can tell."""
    exceeded: tuple[Rule, ...] = ()
    """Of a call that was admitted: the shadow rules that would have refused it."""
