"""A lane to Redis: what many calls ask at once goes there together, one batch at a time.

Knows what waits, what was sent and what came back, or did not; knows no rules and decides nothing. What a call ends
with is kept until Redis has it, and applied once; what a call asks for is answered in time or not at all, and then
taken back, since nobody can tell whether it was done.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import msgspec

from gateway.limits.batch import ADMITTED, UNCOUNTED, Answer, Batch, End, Reply, cancelled, decode
from gateway.limits.breaker import Breaker
from gateway.limits.patience import Patience
from gateway.limits.redis_keys import Cell, Part, node_key
from gateway.limits.server import Away, Server, script

_MOST_ASKS, _MOST_ENDS, _MOST_HOLDS, _MOST_SEEDS = 64, 128, 128, 1_000
_MOST_KEPT = 100_000
"""Ends of calls that are kept while Redis is away."""
_ENDS_WAIT_S = 0.005
"""How long an end waits for a call to ride with."""
_LEAST_S = 0.02
"""With less time than that left, a call does not ask any more."""

Told = TypeVar("Told")


class Waiting(Generic[Told]):
    """Something asked, and who waits for the answer; None is the answer when there is none.

    `since_s` is the lane's `kept_s` at that time.
    """

    __slots__ = ("answer", "since_s", "what")

    def __init__(self, what: Told, answer: asyncio.Future[list[int] | None], since_s: float) -> None:
        self.what = what
        self.answer = answer
        self.since_s = since_s

    def tell(self, answer: list[int] | None) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class Observer(Protocol):
    """The limiter, as a lane sees it."""

    def is_held(self, part: Part) -> bool:
        """Whether that call goes on."""

    def uncounted(self, part: Part) -> None:
        """That call could not be held: seed its budgets, and hold it again."""

    def round_trip(self, seconds: float) -> None:
        """Redis has answered."""

    def failed(self) -> None:
        """Redis has not answered."""

    def opened(self, lane: "Lane", reason: str) -> None:
        """Redis is away, as far as this lane can tell."""

    def closed(self) -> None:
        """Redis is back, and has been told what it missed."""

    def lost(self) -> None:
        """The end of a call was dropped, since Redis was away for too long."""


@dataclass(slots=True)
class _Load:
    """What one batch carries."""

    batch: Batch
    first_end: int
    ends: int = 0
    firsts: int = 0
    """How many of those to hold first, ended or not."""
    holds: list[Part] = field(default_factory=list)
    asks: list[Waiting[Part]] = field(default_factory=list)
    looks: list[Waiting[Sequence[Cell]]] = field(default_factory=list)
    resets: list[Waiting[Sequence[Cell]]] = field(default_factory=list)
    seeds: list[Cell] = field(default_factory=list)

    def waiting(self) -> Iterable[Waiting[Part] | Waiting[Sequence[Cell]]]:
        return (*self.asks, *self.looks, *self.resets)


class Lane:
    """`tag` is the hash tag of what goes through, empty if all does. Use it on one event loop."""

    def __init__(self, server: Server, *, tag: str, node: str, budget_s: float, observer: Observer) -> None:
        self._server = server
        self._script = script("calls.lua")
        self._node_key = node_key(tag, node)
        self._budget_s = budget_s
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._first_end = 1
        self._ends: deque[End] = deque()
        self._holds: deque[Part] = deque()
        self._firsts: deque[Part] = deque()
        self._asks: deque[Waiting[Part]] = deque()
        self._looks: deque[Waiting[Sequence[Cell]]] = deque()
        self._resets: deque[Waiting[Sequence[Cell]]] = deque()
        self._seeds: dict[Cell, int] = {}
        self._draining: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._busy = asyncio.Lock()
        self._kept_s = 0.0
        self._patience: Patience | None = None
        """For the batch that is under way."""
        self._breaker = Breaker()
        self.server_us = 0
        """Redis's clock at the last reply."""

    def __repr__(self) -> str:
        return f"Lane({self._node_key}, {self._breaker}, asks={len(self._asks)}, ends={len(self._ends)})"

    @property
    def is_open(self) -> bool:
        """Whether Redis is away: nothing is asked then."""
        return self._breaker.is_open

    @property
    def kept_s(self) -> float:
        """How long Redis has kept this lane waiting, in all: a clock that stands still while the loop is late."""
        return self._kept_s if self._patience is None else self._kept_s + self._patience.kept_s

    def ask(self, part: Part) -> asyncio.Future[Answer | None]:
        """May this call go ahead? Cancel the future if nobody wants to know any more."""
        return self._wait_for(self._asks, part)

    def look(self, cells: Sequence[Cell]) -> asyncio.Future[Answer | None]:
        """The states of `cells`."""
        return self._wait_for(self._looks, cells)

    def reset(self, cells: Sequence[Cell]) -> asyncio.Future[Answer | None]:
        """Make all of `cells` available."""
        return self._wait_for(self._resets, cells)

    def seed(self, cell: Cell, spent: int) -> None:
        """What was spent of a budget that has no counter; goes with what is asked next."""
        self._seeds[cell] = spent

    def end(self, end: End) -> None:
        """A call has ended; soon Redis is told, and certainly."""
        self._ends.append(end)
        if len(self._ends) > _MOST_KEPT:
            self._ends.popleft()
            self._first_end += 1
            self._observer.lost()
        if self._draining is None and self._timer is None and not self.is_open:
            self._timer = self._loop.call_later(_ENDS_WAIT_S, self._wake)

    def hold(self, parts: Iterable[Part]) -> None:
        """These calls go on: renew their leases, and charge them if Redis knows nothing of them."""
        self._holds += parts
        if self._holds:
            self._wake()

    def hold_first(self, parts: Iterable[Part]) -> None:
        """The same, before any other call is asked for: what these have reserved is not there for it."""
        self._firsts += parts
        if self._firsts:
            self._wake()

    async def flush(self) -> None:
        """Return when nothing waits any more, or nobody answers."""
        while (self._ends or self._firsts or self._holds or self._draining is not None) and not self.is_open:
            self._wake()
            if self._draining is not None:
                await asyncio.shield(self._draining)

    async def recover(self, held: Iterable[Part]) -> bool:
        """Try to reach Redis again; tell it what it missed, and then only ask it again. Whether that was done."""
        self._holds = deque(held)
        while await self._exchange():
            if not self._ends and not self._holds:
                if self._breaker.succeeded():
                    self._observer.closed()
                self._wake()
                return True
        return False

    async def close(self, within_s: float = 1.0) -> None:
        """Tell Redis what waits, if it listens."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            async with asyncio.timeout(within_s):
                while self._ends and not self.is_open:
                    await self._exchange()
        except TimeoutError:
            pass
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.gather(self._draining, return_exceptions=True)
        self._give_up()

    def _wait_for(self, queue: "deque[Waiting[Told]]", what: Told) -> asyncio.Future[Answer | None]:
        answer: asyncio.Future[Answer | None] = self._loop.create_future()
        queue.append(Waiting(what, answer, self.kept_s))
        if self.is_open:
            self._give_up()
        else:
            self._wake()
        return answer

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._draining is None and not self.is_open:
            self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._has_work() and not self.is_open:
                await self._exchange()
        finally:
            self._draining = None
            if self.is_open:
                self._give_up()

    def _has_work(self) -> bool:
        return bool(self._asks or self._ends or self._firsts or self._holds or self._looks or self._resets)

    def _gather(self) -> _Load:
        self._number += 1
        load = _Load(Batch(self._number, self._first_end), self._first_end)
        batch = load.batch
        load.seeds = list(itertools.islice(self._seeds, _MOST_SEEDS))
        batch.seed((cell, self._seeds[cell]) for cell in load.seeds)
        for end in self._ends:
            if load.ends == _MOST_ENDS or batch.is_full:
                break
            batch.end(end)
            load.ends += 1
        is_seeded = len(load.seeds) == len(self._seeds)
        if is_seeded:
            self._gather_firsts(load)
        self._gather_holds(load)
        while self._resets:
            load.resets.append(self._resets.popleft())
            batch.reset(load.resets[-1].what)
        if is_seeded and load.firsts == len(self._firsts):
            self._gather_asks(load)
        while self._looks and not batch.is_full:
            load.looks.append(self._looks.popleft())
            batch.look(load.looks[-1].what)
        return load

    def _gather_firsts(self, load: _Load) -> None:
        for part in self._firsts:
            if load.firsts == _MOST_HOLDS or load.batch.is_full:
                return
            load.firsts += 1
            self._gather_hold(load, part)

    def _gather_holds(self, load: _Load) -> None:
        while self._holds and len(load.holds) < _MOST_HOLDS and not load.batch.is_full:
            self._gather_hold(load, self._holds.popleft())

    def _gather_hold(self, load: _Load, part: Part) -> None:
        # To hold a call that has ended meanwhile would bring it back to life.
        if self._observer.is_held(part):
            load.holds.append(part)
            load.batch.hold(part)

    def _gather_asks(self, load: _Load) -> None:
        latest_s = self._kept_s - self._budget_s + _LEAST_S
        asks, batch = self._asks, load.batch
        while asks and len(load.asks) < _MOST_ASKS and not batch.is_full:
            waiting = asks.popleft()
            if waiting.since_s < latest_s:
                waiting.tell(None)
            elif not waiting.answer.done():
                load.asks.append(waiting)
                batch.ask(waiting.what)

    async def _exchange(self) -> bool:
        """Send a batch and take the answer. Whether there was one."""
        async with self._busy:
            load = self._gather()
            try:
                reply = await self._send(load)
                self._deliver(load, reply)
            except (Away, msgspec.DecodeError) as failure:
                self._fail(load, str(failure))
                return False
            except BaseException:
                self._tell_nobody_knows(load)
                raise
            return True

    async def _send(self, load: _Load) -> Reply:
        oldest_s = load.asks[0].since_s if load.asks else self._kept_s
        patience = self._patience = Patience(max(oldest_s + self._budget_s - self._kept_s, _LEAST_S))
        # The loop's own clock may count milliseconds, of which a round trip takes less than one.
        sent_s = time.perf_counter()
        keys, payload = load.batch.keys(self._node_key), load.batch.encode()
        try:
            told = await self._server.run(self._script, keys, payload, patience=patience)
        finally:
            self._patience = None
            self._kept_s += patience.kept_s
        reply = decode(told)
        self._observer.round_trip(time.perf_counter() - sent_s)
        self.server_us = reply.server_us
        if reply.held is None:
            raise Away("a later batch has overtaken this one")
        return reply

    def _deliver(self, load: _Load, reply: Reply) -> None:
        if not self.is_open:
            self._breaker.succeeded()
        while self._ends and self._first_end < load.first_end + load.ends:
            self._ends.popleft()
            self._first_end += 1
        self._firsts = deque(itertools.islice(self._firsts, load.firsts, None))
        for cell in load.seeds:
            self._seeds.pop(cell, None)
        for part, code in zip(load.holds, reply.held or (), strict=True):
            if code == UNCOUNTED:
                self._observer.uncounted(part)
        for waiting, answer in zip(load.asks, reply.answers, strict=True):
            if waiting.answer.cancelled() and answer[0] == ADMITTED:
                self.end(cancelled(waiting.what))
            waiting.tell(answer)
        at = 0
        for look in load.looks:
            look.tell(reply.looks[at : at + len(look.what)])
            at += len(look.what)
        for reset in load.resets:
            reset.tell([])

    def _tell_nobody_knows(self, load: _Load) -> None:
        for asked in load.asks:
            self.end(cancelled(asked.what))
        for waiting in load.waiting():
            waiting.tell(None)

    def _fail(self, load: _Load, reason: str) -> None:
        self._tell_nobody_knows(load)
        self._observer.failed()
        if self._breaker.failed():
            self._observer.opened(self, reason)

    def _give_up(self) -> None:
        for queue in (self._asks, self._looks, self._resets):
            for waiting in queue:
                waiting.tell(None)
            queue.clear()
        self._firsts.clear()
        self._holds.clear()
