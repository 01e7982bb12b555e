"""What was spent of budgets, as a limiter in Redis has to know it: to begin counters with, and while Redis is away.

Knows what Redis last told, and whom to ask for the rest. Decides nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence

from gateway.errors import StoreUnavailable
from gateway.limits.batching import Lane
from gateway.limits.memory import Spent
from gateway.limits.redis_keys import BUDGET, Cell, Part
from gateway.limits.rules import Rule

_READ_AGAIN_S = 5.0
_MOST_SEEN = 50_000

Spawn = Callable[[Coroutine[None, None, None]], None]
"""Runs something in the background."""


class Spending:
    """`load_spent` may be None: then nothing was spent of budgets that have no counter."""

    def __init__(self, load_spent: Spent | None, spawn: Spawn) -> None:
        self._load_spent = load_spent
        self._spawn = spawn
        self._seen: dict[str, int] = {}
        """Micro-dollars by rule id."""

    def __repr__(self) -> str:
        return f"Spending({len(self._seen)} seen)"

    def see(self, cells: Sequence[Cell], states: Sequence[int]) -> None:
        """Redis has told these states."""
        for cell, state in zip(cells, states, strict=False):
            if cell.kind == BUDGET:
                self._note(cell.rule.id, state)

    def forget(self, rule_id: str) -> None:
        """A budget was reset."""
        self._seen.pop(rule_id, None)

    def begin(self, lane: Lane, part: Part) -> None:
        """A call is asked for or ends, maybe the first to name a budget: what is kept nowhere else begins with nothing.

        What is kept elsewhere is not begun by what is added to it, or the rest would never be read.
        """
        if self._load_spent is None:
            for cell in part.cells:
                if cell.kind == BUDGET:
                    lane.seed(cell, 0)

    async def seed(self, lane: Lane, part: Part, states: Sequence[int]) -> None:
        """Tell Redis what was spent of those budgets of a call that have no counter there.

        What cannot be read now begins with nothing, and is raised once it can be.
        """
        cells = [cell for cell, state in zip(part.cells, states, strict=False) if cell.kind == BUDGET and state < 0]
        spent = await self._read([cell.rule for cell in cells])
        for cell in cells:
            lane.seed(cell, 0 if spent is None else spent.get(cell.rule.id, 0))
        if spent is None:
            self._spawn(self._seed_later(lane, cells))

    async def last_seen(self, rules: Sequence[Rule]) -> Mapping[str, int]:
        """Micro-dollars by rule id, at least of those budgets among `rules`; it goes on to change."""
        unseen = [rule for rule in rules if rule.dimension == "budget" and rule.id not in self._seen]
        if unseen:
            spent = await self._read(unseen) or {}
            for rule in unseen:
                self._note(rule.id, spent.get(rule.id, 0))
        return self._seen

    async def _seed_later(self, lane: Lane, cells: Sequence[Cell]) -> None:
        spent = None
        while spent is None:
            await asyncio.sleep(_READ_AGAIN_S)
            spent = await self._read([cell.rule for cell in cells])
        for cell in cells:
            lane.seed(cell, spent.get(cell.rule.id, 0))

    async def _read(self, rules: Sequence[Rule]) -> Mapping[str, int] | None:
        """None: it cannot be read now."""
        if self._load_spent is None:
            return {}
        try:
            return await self._load_spent(rules)
        except StoreUnavailable:
            return None

    def _note(self, rule_id: str, spent: int) -> None:
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[rule_id] = spent
