"""Limits that many nodes share, in Redis: exact while it answers, and by the chosen mode while it does not.

Knows which calls this node holds and what to do with each answer, and with none; how batches travel is a lane's
business, what Redis does with them is `calls.lua`'s. A whole Redis is one lane; of a cluster every team is one, and so
are the endpoints, for which calls then ask in a second step.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Literal

import msgspec

from gateway.limits.answers import unavailable, unseen
from gateway.limits.batch import ADMITTED, REFUSED, UNCOUNTED, Answer, End, cancelled
from gateway.limits.batching import Lane
from gateway.limits.breaker import MOST_FAILURES
from gateway.limits.denials import Denials
from gateway.limits.fallback import LocalShare
from gateway.limits.late_slots import decide_again
from gateway.limits.memory import Spent
from gateway.limits.nodes import Nodes
from gateway.limits.redis_keys import Cell, Cells, Part
from gateway.limits.redis_options import MEANS, USUAL, Figures, OnFailure, Timing
from gateway.limits.rules import Decision, Demand, Rule, Standing
from gateway.limits.server import Away, Server
from gateway.limits.spending import Spending
from gateway.limits.sweeping import Sweeper
from gateway.limits.verdicts import admission, refusal, standing, told, unspent

_log = logging.getLogger(__name__)

_MOST_ASKED = 3
"""How often one call may ask: once, and again after each round of budgets that had no counter."""


class _Held(msgspec.Struct, frozen=True, gc=False):
    """A call of this node that goes on."""

    demand: Demand
    parts: tuple[Part, ...]
    decision: Decision


class RedisLimiter:
    """The `Limiter` of many processes. Make it and use it on one event loop.

    Args:
        server: Where it is; the limiter closes it.
        on_failure: What to do while Redis is away.
        load_spent: Asked for each budget that has no counter in Redis. Without it, such begin with nothing spent.
        nodes: How many share the limits; what it knows is what counts until Redis says it. By default, no others.
        timing: Other than usual, for tests.
    """

    def __init__(
        self,
        server: Server,
        *,
        on_failure: OnFailure = "local",
        load_spent: Spent | None = None,
        nodes: Nodes | None = None,
        timing: Timing = USUAL,
    ) -> None:
        self.node = secrets.token_hex(6)
        self.figures = Figures()
        self._nodes = nodes or Nodes()
        self._server = server
        self._on_failure: OnFailure = on_failure
        self._timing = timing
        self._lanes: dict[str, Lane] = {}
        self._cells = Cells()
        self._held: dict[str, _Held] = {}
        self._denials = Denials(timing.clock, timing.most_remembered)
        self._share = LocalShare()
        self._spending = Spending(load_spent, self._spawn, self._held_parts)
        self._sweeper = Sweeper(server)
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"RedisLimiter({len(self._held)} calls, {self.mode}, nodes={self.nodes}, lanes={len(self._lanes)})"

    @property
    def nodes(self) -> int:
        """How many gateways are at work on this Redis, as last heard."""
        return self._nodes.number

    @property
    def is_away(self) -> bool:
        """Whether Redis, or a part of it, does not answer."""
        return any(lane.is_open for lane in self._lanes.values())

    @property
    def mode(self) -> Literal["exact", "local", "closed", "open"]:
        """How it is decided now."""
        return self._on_failure if self.is_away else "exact"

    def admit_now(self, demand: Demand) -> Decision | None:
        """As `Limiter.admit_now`: repeated calls, refusals that are remembered, and all while Redis is away."""
        if (held := self._held.get(demand.call_id)) is not None:
            return held.decision
        if self._denials and (denied := self._denials.refuse(demand)) is not None:
            self.figures.remembered += 1
            return denied
        return None

    async def admit(self, demand: Demand, *, asks_again: bool = False) -> Decision:
        """As `Limiter.admit`. A budget whose earlier spending cannot be read begins with none, until it can."""
        if (decision := self.admit_now(demand)) is not None:
            return decision
        parts = self._cells.parts(demand, by_tag=self._server.is_cluster)
        for part in parts:
            self._sweeper.tags.add(part.tag)
        decision = await self._decide(demand, parts)
        if decision is not None and not decision.admitted and not asks_again:
            decision = await decide_again(demand, decision, lambda: self._decide(demand, parts))
        return await self._without(demand, parts) if decision is None else decision

    def settle(self, demand: Demand, actual: Mapping[str, int]) -> None:
        """As `Limiter.settle`."""
        self._end(demand.call_id, actual)

    def cancel(self, demand: Demand) -> None:
        """As `Limiter.cancel`."""
        self._end(demand.call_id, None)

    def charge(self, demand: Demand) -> None:
        """As `Limiter.charge`. Redis hears of the end of a call that it does not know, and charges all of it."""
        self._share.charge(demand)
        for part in self._cells.parts(demand, by_tag=self._server.is_cluster):
            self._tell(part, part.amounts, part.amounts)
            self._spending.doubt(self._lane(part.tag), part)

    async def standings(self, rules: Sequence[Rule]) -> list[Standing]:
        """As `Limiter.standings`. While Redis is away: of this node's share, or as if nothing was counted."""
        found: dict[str, Standing] = {}
        for lane, cells in self._by_lane(rules):
            states = await lane.look(cells)
            if states is None:
                await self._find_out(lane)
                return await self._standings_without(rules)
            for cell, state in zip(cells, states, strict=True):
                found[cell.rule.id] = standing(cell, unspent(cell.kind, state), lane.server_us)
        return [found[rule.id] for rule in rules]

    async def reset(self, rules: Sequence[Rule]) -> None:
        """As `Limiter.reset`; but whatever the mode, it says so if it cannot be done. Slots that calls under way hold
        are taken again at the next renewal.
        """
        for rule in rules:
            self._spending.forget(rule.id)
        for lane, cells in self._by_lane(rules):
            if await lane.reset(cells) is None:
                raise unseen()
        await self._share.reset(rules)
        self._denials.forget(map(self._cells.of, rules))
        for rule in rules:
            self._spending.forget(rule.id)

    async def renew(self) -> None:
        """Hold what the calls under way hold for another life of a lease; also done by itself every few seconds."""
        by_lane: dict[Lane, list[Part]] = {}
        for held in self._held.values():
            for part in held.parts:
                by_lane.setdefault(self._lane(part.tag), []).append(part)
        for lane, parts in by_lane.items():
            if not lane.is_open:
                lane.hold(parts)
        await self.flush()

    async def sweep(self) -> None:
        """Take out of Redis what says nothing any more of those who asked since the last time; also done by itself."""
        await self._sweeper.sweep({part.tag for held in self._held.values() for part in held.parts})

    async def flush(self) -> None:
        """Return when Redis, if it answers, has heard of all that ended here."""
        await asyncio.gather(*(lane.flush() for lane in self._lanes.values()))

    def start(self) -> None:
        """As `Limiter.start`. Also connects, so that the first call need not wait for it."""
        self._share.start()
        self._spawn(self._count_forever())
        self._spawn(_every(self._timing.renew_s, self.renew))
        self._spawn(_every(self._timing.sweep_s, self.sweep))

    async def close(self) -> None:
        """As `Limiter.close`. What calls ended with is told to Redis, if it answers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        await self._share.close()
        await self._server.close()

    # How calls are decided.

    async def _decide(self, demand: Demand, parts: tuple[Part, ...]) -> Decision | None:
        """None: Redis does not answer."""
        answers: list[Answer] = []
        for part in parts:
            before = parts[: len(answers)]
            answer = await self._ask(part, before)
            if answer is None:
                self._take_back(before)
                return None
            answers.append(answer)
            if answer[0] != ADMITTED:
                self._take_back(before)
                answers += await self._look_at(parts[len(answers) :])
                return self._refused(demand, parts, answers, len(before))
        return self._admitted(demand, parts, answers)

    async def _ask(self, part: Part, before: Sequence[Part]) -> Answer | None:
        lane = self._lane(part.tag)
        self._spending.begin(lane, part)
        for _ in range(_MOST_ASKED):
            asked = lane.ask(part)
            try:
                answer = await asked
                if answer is None or answer[0] != UNCOUNTED:
                    return answer
                await self._spending.seed(lane, part, answer[1:])
            except asyncio.CancelledError:
                # The caller has gone, and nobody will settle what may have been admitted.
                if asked.done() and not asked.cancelled() and (late := asked.result()) and late[0] == ADMITTED:
                    lane.end(cancelled(part))
                self._take_back(before)
                raise
        return None

    async def _look_at(self, parts: Sequence[Part]) -> list[Answer]:
        """How those stand of which a refused call was not asked: one of them may refuse it for longer."""
        found: list[Answer] = []
        for part in parts:
            states = await self._lane(part.tag).look(part.cells)
            if states is None:
                break
            found.append([REFUSED, *states])
        return found

    def _admitted(self, demand: Demand, parts: tuple[Part, ...], answers: Sequence[Answer]) -> Decision:
        cells, amounts, states = told(parts, answers)
        self._spending.see(cells, states)
        if self._denials:
            self._denials.forget(cells)
        decision = admission(cells, amounts, states, self._wall_us(parts))
        self._held[demand.call_id] = _Held(demand, parts, decision)
        return decision

    def _refused(self, demand: Demand, parts: tuple[Part, ...], answers: Sequence[Answer], charged: int) -> Decision:
        """The first `charged` parts were, which is taken back."""
        cells, amounts, states = told(parts, answers, charged)
        self._spending.see(cells, states)
        wall_us = self._wall_us(parts[: len(answers)])
        decision = refusal(cells, amounts, states, len(demand.charges), wall_us)
        self._denials.remember(decision, cells, states, wall_us)
        return decision

    def _wall_us(self, parts: Sequence[Part]) -> int:
        return self._lane(parts[-1].tag).server_us if parts else 0

    def _take_back(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self._lane(part.tag).end(cancelled(part))

    def _end(self, call_id: str, actual: Mapping[str, int] | None) -> None:
        if (held := self._held.pop(call_id, None)) is None:
            return
        self._share.end(call_id, actual)
        for part in held.parts:
            fulls = part.came_to(actual)
            self._tell(part, [full - amount for full, amount in zip(fulls, part.amounts, strict=True)], fulls)

    def _tell(self, part: Part, deltas: list[int], fulls: list[int]) -> None:
        if self._denials:
            self._denials.forget([cell for cell, delta in zip(part.cells, deltas, strict=True) if delta])
        lane = self._lane(part.tag)
        self._spending.begin(lane, part)
        lane.end(End(part, deltas, fulls))

    # While Redis is away.

    async def _without(self, demand: Demand, parts: tuple[Part, ...]) -> Decision:
        self.figures.without += 1
        if self._on_failure == "closed":
            raise unavailable()
        if self._on_failure == "open":
            return Decision(True, ())
        await self._enter_share([charge.rule for charge in (*demand.charges, *demand.endpoint)])
        decision = self._share.admit(demand)
        if decision.admitted:
            self._held[demand.call_id] = _Held(demand, parts, decision)
            for part in parts:
                self._lane(part.tag).hold((part,))
        return decision

    async def _standings_without(self, rules: Sequence[Rule]) -> list[Standing]:
        if self._on_failure == "closed":
            raise unseen()
        if self._on_failure == "open":
            return [standing(self._cells.of(rule), 0, 0) for rule in rules]
        await self._enter_share(rules)
        return await self._share.standings(rules)

    async def _enter_share(self, rules: Sequence[Rule]) -> None:
        spent = await self._spending.last_seen(rules)
        if not self._share.is_entered:
            self._share.enter([held.demand for held in self._held.values()], spent, self.nodes)

    # What lanes tell.

    def is_held(self, part: Part) -> bool:
        """As `Observer.is_held`."""
        return part.call_id in self._held

    def uncounted(self, part: Part) -> None:
        """As `Observer.uncounted`."""
        self._spawn(self._hold_again(part))

    def round_trip(self, seconds: float) -> None:
        """As `Observer.round_trip`."""
        figures = self.figures
        figures.round_trips += 1
        figures.seconds += seconds
        figures.longest_s = max(figures.longest_s, seconds)
        if self._share.is_entered and not self.is_away:
            self._share.leave()

    def failed(self) -> None:
        """As `Observer.failed`."""
        self.figures.failures += 1

    def opened(self, lane: Lane, reason: str) -> None:
        """As `Observer.opened`."""
        if sum(lane.is_open for lane in self._lanes.values()) == 1:
            _log.warning("Redis is away (%s): limits are %s.", reason, MEANS[self._on_failure])
        self._spawn(self._probe(lane))

    def closed(self) -> None:
        """As `Observer.closed`."""
        if not self.is_away:
            self._share.leave()
            _log.info("Redis is back: limits are exact again.")

    def lost(self) -> None:
        """As `Observer.lost`."""
        self.figures.lost_ends += 1

    # What runs in the background.

    async def _probe(self, lane: Lane) -> None:
        while True:
            await asyncio.sleep(self._timing.probe_s)
            if await lane.recover(self._held_parts(lane)):
                return

    async def _hold_again(self, part: Part) -> None:
        lane = self._lane(part.tag)
        await self._spending.seed(lane, part, [-1] * len(part.cells))
        lane.hold((part,))

    async def _count_forever(self) -> None:
        while True:
            try:
                await self._nodes.count(self._server, self.node)
            except Away:
                await self._find_out(self._lane(""))
            await asyncio.sleep(self._timing.beat_s)

    async def _find_out(self, lane: Lane) -> None:
        """Whether Redis is away, so that this is known, and told, before a call has to wait for it."""
        for _ in range(MOST_FAILURES):
            if self.is_away or await lane.look(()) is not None:
                return

    # Lanes.

    def _lane(self, tag: str) -> Lane:
        name = tag if self._server.is_cluster else ""
        if (lane := self._lanes.get(name)) is None:
            lane = self._lanes[name] = Lane(
                self._server, tag=name, node=self.node, budget_s=self._timing.budget_s, observer=self
            )
        return lane

    def _by_lane(self, rules: Sequence[Rule]) -> list[tuple[Lane, list[Cell]]]:
        lanes: dict[Lane, list[Cell]] = {}
        for cell in map(self._cells.of, rules):
            lanes.setdefault(self._lane(cell.tag), []).append(cell)
        return list(lanes.items())

    def _held_parts(self, lane: Lane) -> list[Part]:
        return [part for held in self._held.values() for part in held.parts if self._lane(part.tag) is lane]

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _every(seconds: float, work: Callable[[], Coroutine[None, None, None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await work()
