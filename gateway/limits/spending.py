"""What was spent of budgets, as a limiter in Redis has to know it: to begin counters with, and while Redis is away.

Knows what Redis last told, and whom to ask for the rest. Decides nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

from gateway.errors import StoreUnavailable
from gateway.limits.batching import Lane
from gateway.limits.memory import Spent
from gateway.limits.redis_keys import BUDGET, Cell, Part
from gateway.limits.rules import Rule

_READ_AGAIN_S = 5.0
_LOOK_AGAIN_S = (2.0, 8.0, 50.0)
"""When a counter has begun what was spent is read again after these pauses. Other nodes write every second, so the
first reading misses the last of it; and more than once, since what is reserved meanwhile hides what is missing."""
_MOST_SEEN = 50_000

Spawn = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]
"""Runs something in the background."""


class Spending:
    """`load_spent` may be None: then nothing was spent of budgets that have no counter.

    `held` tells of a lane what the calls that go on here asked of it.
    """

    def __init__(self, load_spent: Spent | None, spawn: Spawn, held: Callable[[Lane], Iterable[Part]]) -> None:
        self._load_spent = load_spent
        self._spawn = spawn
        self._held = held
        self._beginning: dict[str, asyncio.Task[None]] = {}
        """By name of a cell what begins its counter."""
        self._seen: dict[str, int] = {}
        """Micro-dollars by rule id."""
        self._looks: dict[str, object] = {}
        """By rule id what stands for the looks at it that are to come."""

    def __repr__(self) -> str:
        return f"Spending({len(self._seen)} seen)"

    def see(self, cells: Sequence[Cell], states: Sequence[int]) -> None:
        """Redis has told these states."""
        for cell, state in zip(cells, states, strict=False):
            if cell.kind == BUDGET:
                self._note(cell.rule.id, state)

    def forget(self, rule_id: str) -> None:
        """A budget is reset: what was read of it before does not count."""
        self._seen.pop(rule_id, None)
        self._looks.pop(rule_id, None)

    def begin(self, lane: Lane, part: Part) -> None:
        """A call is asked for or ends, maybe the first to name a budget: what is kept nowhere else begins with nothing.

        What is kept elsewhere is not begun by what is added to it, or the rest would never be read.
        """
        if self._load_spent is None:
            for cell in part.cells:
                if cell.kind == BUDGET:
                    lane.seed(cell, 0)

    async def seed(self, lane: Lane, part: Part, states: Sequence[int]) -> None:
        """Tell Redis what was spent of those budgets of a call that have no counter there, and what this node's calls
        under way have reserved of them. Done once for all that ask meanwhile.

        What cannot be read now begins with nothing, and is raised once it can be; so is what others had yet to write.
        """
        cells = [cell for cell, state in zip(part.cells, states, strict=False) if cell.kind == BUDGET and state < 0]
        new = [cell for cell in cells if cell.name not in self._beginning]
        if new:
            parts = self._reserved(lane, new)
            # A call is held only if all of its budgets have counters.
            all_cells = {cell.name: cell for part in parts for cell in part.cells if cell.kind == BUDGET}
            all_cells.update((cell.name, cell) for cell in new)
            beginning = self._spawn(self._begin(lane, all_cells, parts))
            self._beginning.update(dict.fromkeys(all_cells, beginning))
        for beginning in {self._beginning[cell.name] for cell in cells}:
            await asyncio.shield(beginning)

    def doubt(self, lane: Lane, part: Part) -> None:
        """Something is given back that Redis may have forgotten since: counters are raised to what is read again."""
        cells = [cell for cell, amount in zip(part.cells, part.amounts, strict=True) if amount < 0]
        self._look_later(lane, [cell for cell in cells if cell.rule.id not in self._looks], _LOOK_AGAIN_S)

    async def last_seen(self, rules: Sequence[Rule]) -> Mapping[str, int]:
        """Micro-dollars by rule id, at least of those budgets among `rules`; it goes on to change."""
        unseen = [rule for rule in rules if rule.dimension == "budget" and rule.id not in self._seen]
        if unseen:
            spent = await self._read(unseen) or {}
            for rule in unseen:
                self._note(rule.id, spent.get(rule.id, 0))
        return self._seen

    async def _begin(self, lane: Lane, by_name: Mapping[str, Cell], parts: Sequence[Part]) -> None:
        cells = list(by_name.values())
        try:
            spent = await self._read([cell.rule for cell in cells])
        finally:
            for name in by_name:
                self._beginning.pop(name, None)
        for cell in cells:
            lane.seed(cell, 0 if spent is None else spent.get(cell.rule.id, 0))
        lane.hold_first(parts)
        self._look_later(lane, cells, _LOOK_AGAIN_S if spent is not None else (_READ_AGAIN_S, *_LOOK_AGAIN_S))

    def _reserved(self, lane: Lane, cells: Sequence[Cell]) -> list[Part]:
        """What goes on here of these budgets: nothing, if Redis never told of them."""
        if not any(cell.rule.id in self._seen for cell in cells):
            return []
        names = {cell.name for cell in cells}
        return [part for part in self._held(lane) if any(cell.name in names for cell in part.cells)]

    def _look_later(self, lane: Lane, cells: Sequence[Cell], pauses_s: Sequence[float]) -> None:
        if cells and self._load_spent is not None:
            looks = object()
            self._looks.update((cell.rule.id, looks) for cell in cells)
            self._spawn(self._look_again(lane, cells, looks, pauses_s))

    async def _look_again(self, lane: Lane, cells: Sequence[Cell], looks: object, pauses_s: Sequence[float]) -> None:
        """Until these budgets are reset, or begin anew."""
        for pause_s in pauses_s:
            spent = None
            while spent is None:
                await asyncio.sleep(pause_s)
                spent = await self._read([cell.rule for cell in cells])
            cells = [cell for cell in cells if self._looks.get(cell.rule.id) is looks]
            if not cells:
                return
            for cell in cells:
                lane.seed(cell, spent.get(cell.rule.id, 0))
            await lane.look(cells)  # seeds go with what is asked, and these must not wait until they are old
        for cell in cells:
            if self._looks.get(cell.rule.id) is looks:
                del self._looks[cell.rule.id]

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
