"""How limits decided, for metrics: one addition a call.

Knows outcomes. A call that is admitted was admitted by all rules, so it is counted once, of no rule; a refusal is that
of the rule which binds.
"""

from collections.abc import Mapping

from gateway.limits.rules import Decision
from gateway.observe.families import Buckets

WAITS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_ALL = ("any", "admitted", "any")


class Tally:
    """`waited`: how long calls waited for their turn, of those that did."""

    __slots__ = ("_admitted", "_others", "waited")

    def __init__(self) -> None:
        self.waited = Buckets(WAITS_S)
        self._admitted = 0
        self._others: dict[tuple[str, str, str], int] = {}

    def note(self, decision: Decision, waited_s: float = 0.0) -> None:
        """One call's last decision."""
        if waited_s > 0:
            self.waited.observe(waited_s)
        if decision.admitted:
            self._admitted += 1
            for rule in decision.exceeded:
                self._add((rule.dimension, "exceeded", rule.whose))
        elif decision.binding is not None:
            self._add((decision.binding.dimension, "refused", decision.binding.whose))

    def decisions(self) -> Mapping[tuple[str, ...], int]:
        """By dimension, outcome and whose: `admitted`, `refused`, or `exceeded` (in shadow, so it was admitted)."""
        return dict([(_ALL, self._admitted), *self._others.items()])

    def _add(self, outcome: tuple[str, str, str]) -> None:
        self._others[outcome] = self._others.get(outcome, 0) + 1
