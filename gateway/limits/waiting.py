"""Let calls over their limit wait for their turn, if they may: first come first served within a key, keys in turn.

Knows who waits and when to try again; what fits is the limiter's business alone, so waiting can admit nothing that it
would not. One timer serves all that wait.

The rules. Of each key only the first call is tried. Whoever comes stands behind the calls of its own key, and behind
those of other keys if it takes from a rule that one of them was refused by. Keys are tried in turn, and what refuses
one is kept from those after it, so that many small calls cannot keep a large one waiting. What does not refuse it is
not: a key over its own limit holds nobody up. A call that may not wait is refused what others wait for; but for one of
its key each time that all of those had their turn, which the limiter is asked about.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from gateway.limits import outlook
from gateway.limits.gcra import PARALLEL_RETRY_US
from gateway.limits.limiter import ENDS_KNOWN_S, Limiter
from gateway.limits.memory import Clock, steady_clock
from gateway.limits.rules import Decision, Demand
from gateway.limits.turns import Turns, Waiter, Word

_LOOK_EVERY_US = 250_000
"""Slots come free on other nodes too, and nobody tells."""
_MOST_WAITERS = 10_000
_MOST_OF_A_KEY = 1_000
"""A tenth, so that no key takes all the places that others might wait in."""
_MOST_BYTES = 256 * 1024 * 1024
_BYTES_A_KEY = 10
"""Of the bytes a key may keep one in so many, for the same reason."""


class WaitingRoom:
    """Between calls and a limiter. Use it on one event loop.

    Args:
        limiter: Asked on behalf of those that wait, and told where one leaves in the moment of its admission.
        clock: Microseconds, from anywhere, and never back; `steady_clock()` by default.
        most_waiters: Beyond that many, calls are refused as if they might not wait.
        most_of_a_key: So are those of one key beyond that many.
        most_bytes: So are those whose bodies, with all others that wait, are more than that; of one key, a tenth.
    """

    def __init__(
        self,
        limiter: Limiter,
        *,
        clock: Clock | None = None,
        most_waiters: int = _MOST_WAITERS,
        most_of_a_key: int = _MOST_OF_A_KEY,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._limiter = limiter
        self._clock = clock or steady_clock()
        self._most_waiters = most_waiters
        self._most_of_a_key = most_of_a_key
        self._most_bytes = most_bytes
        self.on_look: Callable[[], None] | None = None
        """Is called four times a second while anybody waits, so that whoever knows can end calls that need not."""
        self._turns = Turns()
        self._look_us = 0
        """When to try all again, whatever they wait for."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0

    def __repr__(self) -> str:
        return f"WaitingRoom({self._turns})"

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._turns.count

    @property
    def held_bytes(self) -> int:
        """What those that wait keep in memory, in all."""
        return self._turns.held_bytes

    def _is_full(self, whose: str, held_bytes: int) -> bool:
        turns = self._turns
        return (
            len(turns) >= self._most_waiters
            or turns.waiting_of(whose) >= self._most_of_a_key
            or turns.held_bytes + held_bytes > self._most_bytes
            or turns.held_bytes_of(whose) + held_bytes > self._most_bytes // _BYTES_A_KEY
        )

    async def admit(
        self, demand: Demand, *, whose: str, max_wait_s: float, held_bytes: int = 0, had_turn: bool = False
    ) -> tuple[Decision, float]:
        """Admit, wait or refuse; with the decision come the seconds that it took in here.

        Refused at once is what waiting would not help: budgets, and rates that gain too slowly. A caller that is
        cancelled leaves, and is charged nothing.

        Args:
            whose: The key's id.
            max_wait_s: 0: do not wait.
            held_bytes: What the call keeps in memory while it waits.
            had_turn: It was admitted to something else, which it has given back: nobody of its key comes before it.

        Raises:
            gateway.errors.StoreUnavailable: As `Limiter.admit`.
        """
        since_us = self._clock()
        deadline_us = since_us + round(max_wait_s * 1_000_000)
        rule = self._turns.in_the_way(demand, whose) if self._turns and not had_turn else None
        passed = rule if max_wait_s <= 0 and rule is not None and self._turns.may_pass(whose, rule) else None
        if rule is None or passed is not None:
            decision = self._limiter.admit_now(demand)
            was_asked = decision is None
            if decision is None:
                decision = await self._limiter.admit(demand, asks_again=max_wait_s > 0)
            if passed is not None and decision.admitted:
                self._turns.passed(whose, passed)
            if decision.admitted or decision.binding is None or max_wait_s <= 0 or self._is_full(whose, held_bytes):
                return decision, 0.0
            waiter = Waiter(
                demand, whose, decision.binding, since_us=since_us, deadline_us=deadline_us, held_bytes=held_bytes
            )
            if not self._can_wait(waiter, decision):
                return decision, 0.0
            if was_asked and outlook.lacks_slots_alone(demand, decision):
                waiter.ready_us = min(waiter.ready_us, self._clock() + round(ENDS_KNOWN_S * 1_000_000))
            decision = await self._stay(waiter, was_tried=True, first=had_turn)
        else:
            waiter = Waiter(demand, whose, rule, since_us=since_us, deadline_us=deadline_us, held_bytes=held_bytes)
            is_refused = max_wait_s <= 0 or self._is_full(whose, held_bytes)
            decision = await (self._told(waiter) if is_refused else self._stay(waiter, was_tried=False))
        return decision, (self._clock() - since_us) / 1_000_000

    def change(self, demand: Demand, max_wait_s: float) -> bool:
        """Have the call of this id that waits ask this from now on, for so long since it came; it keeps its place.

        False where it does not wait, or asks the limiter at this moment. `look` then, once for all that were changed.
        """
        waiter = self._turns.waiter(demand.call_id)
        if waiter is None or waiter.is_asking or waiter.word.done():
            return False
        self._turns.change(waiter, demand, waiter.since_us + round(max_wait_s * 1_000_000))
        return True

    def released(self, demand: Demand | None = None) -> None:
        """A call has settled, or was cancelled: whoever waits for what it had, is tried. None: all are. Never waits."""
        if self._turns.count:
            freed = list(self._turns.heads() if demand is None else self._turns.awaiting(demand))
            self._free(freed)
            if freed:
                self.look()

    def look(self) -> None:
        """Try those whose turn and time has come, and dismiss those whose time is over; done by itself when due."""
        now_us = self._clock()
        if now_us >= self._look_us:
            self._look_us = now_us + _LOOK_EVERY_US
            # Later than `now_us`, so those that `on_look` changes do not ask by what they had, and cannot be changed.
            self._free(self._turns.heads())
            if self._turns and self.on_look is not None:
                self.on_look()
        self._try_in_turn(now_us)
        # Last, so that a call whose time comes as its patience ends is served.
        while self._dismiss(now_us):
            self._try_in_turn(now_us)
        self._set_timer(now_us)

    # The way of one that waits.

    async def _stay(self, waiter: Waiter, *, was_tried: bool, first: bool = False) -> Decision:
        try:
            self._enter(waiter, first=first)
            if not was_tried and (refusal := await self._foretold(waiter)):
                return refusal
            return await self._wait(waiter)
        except BaseException:
            # It may have been admitted in this very moment, and nobody else knows.
            self._turns.leave(waiter)
            self._limiter.cancel(waiter.demand)
            self._free(self._turns.awaiting(waiter.demand))
            self.look()
            raise

    def _enter(self, waiter: Waiter, *, first: bool) -> None:
        now_us = self._clock()
        if not self._turns:
            self._look_us = now_us + _LOOK_EVERY_US
        self._turns.join(waiter, first=first)
        # A call that was never tried has its turn when those before it have had theirs.
        self._wake(min(waiter.deadline_us, waiter.ready_us or self._look_us, self._look_us), now_us)

    async def _foretold(self, waiter: Waiter) -> Decision | None:
        """The refusal of a call that was not tried, as others were before it, and that would wait in vain."""
        refusal = await self._outlook(waiter)
        if refusal is None or waiter.word.done():
            return None
        refused = outlook.waits_of(waiter.demand, refusal)
        if not outlook.is_in_vain(refused, waiter.deadline_us - self._clock()):
            return None
        self._turns.leave(waiter)
        self.look()
        return refusal

    async def _wait(self, waiter: Waiter) -> Decision:
        while True:
            word = await waiter.word
            if word is Word.EXPIRED:
                return await self._told(waiter)
            if isinstance(word, Decision):
                return word
            decision = await self._limiter.admit(waiter.demand, asks_again=True)
            waiter.word = asyncio.get_running_loop().create_future()
            waiter.is_asking = False
            is_over = self._is_over(waiter, decision)
            self.look()
            if is_over:
                return decision

    async def _told(self, waiter: Waiter) -> Decision:
        """The last word on a call that is not, or no longer, in line."""
        refusal = await self._outlook(waiter)
        if refusal is not None:
            return refusal
        rule = self._turns.in_the_way(waiter.demand, waiter.whose)
        if rule is None:
            return await self._limiter.admit(waiter.demand)
        # There would be room, and others were here before it.
        standings = await self._limiter.standings([rule])
        return Decision(False, tuple(standings), rule, PARALLEL_RETRY_US)

    async def _outlook(self, waiter: Waiter) -> Decision | None:
        charges = (*waiter.demand.charges, *waiter.demand.endpoint)
        return outlook.refusal(waiter.demand, await self._limiter.standings([charge.rule for charge in charges]))

    # Whose turn it is.

    def _try_in_turn(self, now_us: int) -> None:
        """Once around, and again for keys that were served. What refuses a key, is kept from those after it."""
        kept: set[str] = set()
        keys = deque(self._turns.keys())
        while keys:
            head = self._turns.head(keys.popleft())
            if head is None or not kept.isdisjoint(head.rule_ids):
                continue
            if not head.is_asking and head.ready_us <= now_us and self._try(head):
                keys.append(head.whose)
            else:
                kept |= head.refused_by

    def _try(self, waiter: Waiter) -> bool:
        """Whether it has stopped waiting."""
        if waiter.word.done():  # its client has left, and it has not come to notice
            self._turns.leave(waiter)
            return True
        try:
            decision = self._limiter.admit_now(waiter.demand)
        except Exception as error:  # it must reach the one call that it is about, and none of the others
            self._turns.leave(waiter)
            waiter.word.set_exception(error)
            return True
        if decision is None:
            waiter.is_asking = True
            waiter.word.set_result(Word.ASK)
            return False
        if self._is_over(waiter, decision):
            waiter.word.set_result(decision)
            return True
        return False

    def _is_over(self, waiter: Waiter, decision: Decision) -> bool:
        """Take note of the decision on a waiter; whether it is the last."""
        if decision.admitted:
            self._turns.leave(waiter, was_served=True)
            return True
        if not self._can_wait(waiter, decision):
            self._turns.leave(waiter)
            return True
        return False

    def _can_wait(self, waiter: Waiter, decision: Decision) -> bool:
        """Whether it is worth its while after this refusal; if so, it is noted."""
        now_us = self._clock()
        refused = outlook.waits_of(waiter.demand, decision)
        if outlook.is_in_vain(refused, waiter.deadline_us - now_us):
            return False
        self._turns.refused(waiter, decision, refused, now_us)
        return True

    def _free(self, waiters: Iterable[Waiter]) -> None:
        """There may be room for these now."""
        now_us = self._clock()
        for waiter in waiters:
            waiter.ready_us = min(waiter.ready_us, now_us)
            waiter.is_outdated = waiter.is_asking

    def _dismiss(self, now_us: int) -> bool:
        """Whether anybody's time was over."""
        expired = self._turns.expired(now_us)
        for waiter in expired:
            self._turns.leave(waiter)
            # One that asks at this moment hears the answer, which is the last.
            if not waiter.word.done():
                waiter.word.set_result(Word.EXPIRED)
        return bool(expired)

    # The timer.

    def _set_timer(self, now_us: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._turns:
            self._wake(self._turns.next_us(now_us, self._look_us), now_us)

    def _wake(self, at_us: int, now_us: int) -> None:
        """Look then, or earlier."""
        if self._timer is not None:
            if self._timer_us <= at_us:
                return
            self._timer.cancel()
        # Rounded up, since loops count milliseconds, and one that is early has to come again.
        delay_ms = max(-(-(at_us - now_us) // 1000), 1)
        self._timer_us = at_us
        self._timer = asyncio.get_running_loop().call_later(delay_ms / 1000, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.look()
