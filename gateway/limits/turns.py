"""Whose turn it is: calls that wait, in the order in which they came within a key, and keys in turn.

Knows no limiter and no clock. A key that was served goes behind the others; a key that is new comes last. What a
key's first call was refused by is awaited: nobody who comes later may take from that before it.
"""

import asyncio
import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum

from gateway.limits.outlook import Waits
from gateway.limits.rules import Decision, Demand, Rule

_STALE_DEADLINES = 100


class Word(Enum):
    """What a call that waits is told, if it is no decision."""

    ASK = "ask"
    """It is your turn: ask the limiter yourself."""
    EXPIRED = "expired"
    """You have waited for as long as you may, and are no longer in line."""


class Waiter:
    """A call that waits. Times are microseconds of the room's clock."""

    __slots__ = (
        "deadline_us",
        "demand",
        "held_bytes",
        "is_asking",
        "is_outdated",
        "ready_us",
        "refused_by",
        "rule_ids",
        "since_us",
        "waits_for",
        "whose",
        "word",
    )

    def __init__(  # noqa: PLR0913 - what it asks, for whom, and since when and how long
        self, demand: Demand, whose: str, waits_for: Rule, *, since_us: int, deadline_us: int, held_bytes: int = 0
    ) -> None:
        self.demand = demand
        self.whose = whose
        self.held_bytes = held_bytes
        """What it keeps in memory while it waits."""
        self.waits_for = waits_for
        """What refused it, or the call that it stands behind."""
        self.since_us = since_us
        self.deadline_us = deadline_us
        self.ready_us = 0
        """When to try again; 0: it was never tried."""
        self.is_asking = False
        """It asks the limiter by itself, and listens to nobody meanwhile."""
        self.is_outdated = False
        """While it asked, something came free: a refusal may not know of it."""
        self.refused_by: frozenset[str] = frozenset()
        """The ids of all rules that had no room at the last attempt."""
        self.rule_ids = _rule_ids(demand)
        self.word: asyncio.Future[Decision | Word] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        state = "asking" if self.is_asking else "waiting"
        return f"Waiter({self.demand.call_id} of {self.whose}, {state}, refused_by={sorted(self.refused_by)})"


def _rule_ids(demand: Demand) -> frozenset[str]:
    """Of what may refuse it."""
    charges = (*demand.charges, *demand.endpoint)
    return frozenset(charge.rule.id for charge in charges if not charge.rule.shadow)


class Turns:
    """All that wait. False while there are none, so that asking costs nothing then."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, OrderedDict[Waiter, None]] = OrderedDict()
        self._waiters: dict[str, Waiter] = {}
        """By the ids of their calls."""
        self.count = 0
        """How many wait; `len` is the same, and takes a call."""
        self.held_bytes = 0
        """What all that wait keep in memory."""
        self._held_bytes: dict[str, int] = {}
        """The same of each key."""
        self._awaited: dict[str, set[Waiter]] = {}
        self._deadlines: list[tuple[int, int, Waiter]] = []
        self._numbers = itertools.count()
        self._served: dict[str, int] = {}
        """By rule id how many had their turn that take from it."""
        self._passed: dict[tuple[str, str], int] = {}
        """How many had by when a key that does not wait had one: by key and rule."""

    def __repr__(self) -> str:
        return f"Turns({self.count} of {len(self._queues)} keys)"

    def __len__(self) -> int:
        return self.count

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._queues.get(waiter.whose, ())

    def waiting_of(self, whose: str) -> int:
        """How many of a key wait."""
        return len(self._queues.get(whose, ()))

    def held_bytes_of(self, whose: str) -> int:
        """What the calls of a key keep in memory."""
        return self._held_bytes.get(whose, 0)

    def keys(self) -> list[str]:
        """Keys that have waiters, the one whose turn it is first."""
        return list(self._queues)

    def head(self, whose: str) -> Waiter | None:
        """The first of a key."""
        queue = self._queues.get(whose)
        return next(iter(queue)) if queue else None

    def heads(self) -> Iterator[Waiter]:
        """The first of each key, in turn."""
        return (next(iter(queue)) for queue in self._queues.values())

    def waiter(self, call_id: str) -> Waiter | None:
        """The call with this id, if it waits."""
        return self._waiters.get(call_id)

    def join(self, waiter: Waiter, *, first: bool = False) -> None:
        """Stand behind all others of its key, or before them."""
        self._waiters[waiter.demand.call_id] = waiter
        queue = self._queues.setdefault(waiter.whose, OrderedDict())
        queue[waiter] = None
        if first:
            queue.move_to_end(waiter, last=False)
        self.count += 1
        self._hold(waiter.whose, waiter.held_bytes)
        self._expect(waiter)

    def change(self, waiter: Waiter, demand: Demand, deadline_us: int) -> None:
        """It asks something else from now on, and is to be tried as if it never was. It keeps its place."""
        self._await(waiter, frozenset())
        waiter.demand, waiter.rule_ids = demand, _rule_ids(demand)
        waiter.ready_us = 0
        if deadline_us != waiter.deadline_us:
            waiter.deadline_us = deadline_us
            self._expect(waiter)

    def leave(self, waiter: Waiter, *, was_served: bool = False) -> None:
        """Wait no longer; if it was served, the other keys are next. Nothing, if it does not wait."""
        if waiter not in self:
            return
        queue = self._queues[waiter.whose]
        del queue[waiter], self._waiters[waiter.demand.call_id]
        self.count -= 1
        self._hold(waiter.whose, -waiter.held_bytes)
        if was_served:
            for rule_id in waiter.rule_ids:
                self._served[rule_id] = self._served.get(rule_id, 0) + 1
        self._await(waiter, frozenset())
        if not self.count:
            self._served.clear()
            self._passed.clear()
        if not queue:
            del self._queues[waiter.whose], self._held_bytes[waiter.whose]
        elif was_served:
            self._queues.move_to_end(waiter.whose)

    def refused(self, waiter: Waiter, decision: Decision, by: Waits, now_us: int) -> None:
        """It was tried just now, and goes on waiting."""
        waiter.waits_for = decision.binding or waiter.waits_for
        waiter.ready_us = now_us + (0 if waiter.is_outdated else max(decision.retry_after_us, 1))
        waiter.is_outdated = False
        self._await(waiter, frozenset(rule.id for rule in by))

    def in_the_way(self, demand: Demand, whose: str) -> Rule | None:
        """What a call that comes now has to stand in line for, since others were here before it."""
        charges = (*demand.charges, *demand.endpoint)
        head = self.head(whose)
        if head is not None and charges:
            return head.waits_for
        return next((charge.rule for charge in charges if charge.rule.id in self._awaited), None)

    def may_pass(self, whose: str, rule: Rule) -> bool:
        """Whether a key that does not wait may try its luck: once for each turn of all those that wait for this."""
        passed = self._passed.get((whose, rule.id))
        if passed is None:
            return True
        served = self._served.get(rule.id, 0) - passed
        waiting = itertools.islice((head for head in self.heads() if rule.id in head.rule_ids), served + 1)
        return sum(1 for _ in waiting) <= served

    def passed(self, whose: str, rule: Rule) -> None:
        """It had it."""
        self._passed[whose, rule.id] = self._served.get(rule.id, 0)

    def awaiting(self, demand: Demand) -> Iterator[Waiter]:
        """Those that wait for something that `demand` takes, or gives back."""
        for charge in (*demand.charges, *demand.endpoint):
            yield from self._awaited.get(charge.rule.id, ())

    def expired(self, now_us: int) -> list[Waiter]:
        """Those whose time is over, each told once."""
        found = []
        while self._deadlines and self._deadlines[0][0] <= now_us:
            waiter = heapq.heappop(self._deadlines)[2]
            if waiter in self and waiter.deadline_us <= now_us:
                found.append(waiter)
        return found

    def next_us(self, now_us: int, at_most_us: int) -> int:
        """When the next deadline is over, or the next call is ready."""
        times = [head.ready_us for head in self.heads() if head.ready_us > now_us and not head.is_asking]
        return min([at_most_us, *times, *(deadline_us for deadline_us, _, _ in self._deadlines[:1])])

    def _expect(self, waiter: Waiter) -> None:
        heapq.heappush(self._deadlines, (waiter.deadline_us, next(self._numbers), waiter))
        if len(self._deadlines) > 2 * self.count + _STALE_DEADLINES:
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self]
            heapq.heapify(self._deadlines)

    def _hold(self, whose: str, more_bytes: int) -> None:
        self.held_bytes += more_bytes
        self._held_bytes[whose] = self._held_bytes.get(whose, 0) + more_bytes

    def _await(self, waiter: Waiter, rule_ids: frozenset[str]) -> None:
        for rule_id in waiter.refused_by - rule_ids:
            self._awaited[rule_id].discard(waiter)
            if not self._awaited[rule_id]:
                del self._awaited[rule_id]
        for rule_id in rule_ids - waiter.refused_by:
            self._awaited.setdefault(rule_id, set()).add(waiter)
        waiter.refused_by = rule_ids
