"""Refusals that still hold: a client that hammers costs no round trip.

Knows how long a refusal is worth remembering. A bucket drains as time passes; what other nodes take and give back is
not seen here, so no memory is trusted for long.
"""

from collections.abc import Callable, Iterable, Sequence

from gateway.limits.counters import NEVER_US
from gateway.limits.redis_keys import RATE, Cell
from gateway.limits.rules import Charge, Decision, Demand, Standing
from gateway.limits.verdicts import standing, waits_us

_TRUSTED_US = {"requests": 1_000_000, "tokens": 100_000, "parallel": 0, "budget": 1_000_000}
"""Requests come back by time alone, or nearly so; tokens and money also when calls of other nodes settle, and slots
at any time."""


class _Denial:
    __slots__ = ("cell", "lasts_us", "since_us", "standings", "state", "wall_us")

    def __init__(self, cell: Cell, state: int, lasts_us: int, since_us: int, wall_us: int) -> None:
        self.cell = cell
        self.state = state
        self.lasts_us = lasts_us
        self.since_us = since_us
        self.wall_us = wall_us
        self.standings: tuple[Standing, ...] = ()

    def state_after(self, passed_us: int) -> int:
        return max(self.state - passed_us, 0) if self.cell.kind == RATE else self.state


class Denials:
    """By the rule that refused. False while there are none, so that asking costs nothing then.

    `clock` counts microseconds from anywhere, and never back.
    """

    def __init__(self, clock: Callable[[], int], most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._denials: dict[str, _Denial] = {}

    def __repr__(self) -> str:
        return f"Denials({len(self._denials)})"

    def __len__(self) -> int:
        return len(self._denials)

    def remember(self, decision: Decision, cells: Sequence[Cell], states: Sequence[int], wall_us: int) -> None:
        """A refusal that was just told, with the states of `cells` that it was judged by."""
        now_us = self._clock()
        if len(self._denials) >= self._most:
            self._denials.clear()
        if not self._most:
            return
        for cell, state in zip(cells, states, strict=False):
            trusted_us = _TRUSTED_US[cell.rule.dimension]
            if cell.rule is decision.binding and trusted_us:
                lasts_us = min(decision.retry_after_us or trusted_us, trusted_us)
                denial = self._denials[cell.rule.id] = _Denial(cell, state, lasts_us, now_us, wall_us)
                denial.standings = decision.standings

    def refuse(self, demand: Demand) -> Decision | None:
        """The refusal that still holds for this call, if any."""
        now_us = self._clock()
        for charge in (*demand.charges, *demand.endpoint):
            denial = self._denials.get(charge.rule.id)
            if denial is None or denial.cell.rule is not charge.rule:
                continue
            passed_us = now_us - denial.since_us
            if passed_us >= denial.lasts_us:
                del self._denials[charge.rule.id]
                continue
            decision = _judge(denial, charge, demand, passed_us)
            if decision is not None:
                return decision
        return None

    def forget(self, cells: Iterable[Cell]) -> None:
        """These stand otherwise now: something was given back, or taken."""
        for cell in cells:
            self._denials.pop(cell.rule.id, None)


def _judge(denial: _Denial, charge: Charge, demand: Demand, passed_us: int) -> Decision | None:
    cell, state, wall_us = denial.cell, denial.state_after(passed_us), denial.wall_us + passed_us
    wait_us = waits_us(cell, state, cell.amount(charge.amount), wall_us)
    if not wait_us:
        return None
    # The rule that refuses is told as it is now, the others as they were.
    asked = {id(other.rule) for other in (*demand.charges, *demand.endpoint)}
    others = [old for old in denial.standings if id(old.rule) in asked and old.rule is not cell.rule]
    told = (standing(cell, state, wall_us), *others)
    return Decision(False, told, cell.rule, 0 if wait_us == NEVER_US else wait_us)
