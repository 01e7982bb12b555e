"""A waiting room and those that come, over a limiter that decides at once or has to be asked."""

import asyncio
from collections.abc import Mapping, Sequence

from gateway.errors import StoreUnavailable
from gateway.limits.limiter import Limiter
from gateway.limits.rules import Decision, Demand, Rule, Standing
from gateway.limits.waiting import WaitingRoom
from tests.limits.household import Household
from tests.limits.memory_bench import MemoryBench

LOOK_US = 250_000
"""How often a room looks by itself."""


class AskedLimiter:
    """The memory limiter behind a wire: it never decides at once. Whoever leaves meanwhile is charged nothing."""

    def __init__(self, inner: Limiter) -> None:
        self._inner = inner
        self.is_away = False
        self.answering = asyncio.Event()
        self.answering.set()

    def admit_now(self, demand: Demand) -> Decision | None:
        del demand
        return None

    async def admit(self, demand: Demand, *, asks_again: bool = False) -> Decision:
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("The limiter is away.")
        decision = await self._inner.admit(demand, asks_again=asks_again)
        try:
            await asyncio.sleep(0)
            await self.answering.wait()
        except asyncio.CancelledError:
            self._inner.cancel(demand)
            raise
        return decision

    def settle(self, demand: Demand, actual: Mapping[str, int]) -> None:
        self._inner.settle(demand, actual)

    def cancel(self, demand: Demand) -> None:
        self._inner.cancel(demand)

    def charge(self, demand: Demand) -> None:
        self._inner.charge(demand)

    async def standings(self, rules: Sequence[Rule]) -> list[Standing]:
        await asyncio.sleep(0)
        return await self._inner.standings(rules)

    async def reset(self, rules: Sequence[Rule]) -> None:
        await self._inner.reset(rules)

    def start(self) -> None:
        self._inner.start()

    async def close(self) -> None:
        await self._inner.close()


class Queue:
    """A room over a limiter, the calls that came, and the order in which they were admitted."""

    def __init__(self, limiter: Limiter, bench: MemoryBench, most_waiters: int = 10_000) -> None:
        self.bench = bench
        self.house = Household(bench)
        self.limiter = limiter
        self.room = WaitingRoom(limiter, clock=bench.now_us, most_waiters=most_waiters)
        self.admitted: list[str] = []
        self.calls: dict[str, tuple[Demand, asyncio.Task[tuple[Decision, float]]]] = {}

    async def come(
        self, name: str, charges: Mapping[Rule, int], *, key: str | None = None, max_wait_s: float = 60
    ) -> asyncio.Task[tuple[Decision, float]]:
        """A call of the key that its name begins with; returns when it has been decided or waits."""
        demand = self.house.call(charges)
        task = asyncio.create_task(self._call(name, demand, key or name[0], max_wait_s))
        self.calls[name] = demand, task
        await ran()
        return task

    async def come_all(self, names: list[str], charges: Mapping[Rule, int], *, max_wait_s: float = 60) -> None:
        for name in names:
            await self.come(name, charges, max_wait_s=max_wait_s)

    async def settle(self, name: str, actual: Mapping[str, int] | None = None) -> None:
        demand, _ = self.calls[name]
        self.limiter.settle(demand, actual or {})
        self.room.released(demand)
        await ran()

    async def leave(self, name: str) -> None:
        _, task = self.calls[name]
        task.cancel()
        await ran()
        assert task.cancelled()

    async def advance(self, us: int) -> None:
        await self.bench.advance(us)
        self.room.look()
        await ran()

    async def _call(self, name: str, demand: Demand, key: str, max_wait_s: float) -> tuple[Decision, float]:
        told = await self.room.admit(demand, whose=key, max_wait_s=max_wait_s)
        if told[0].admitted:
            self.admitted.append(name)
        return told


async def ran() -> None:
    """Let every task run until it waits for time, or for another call."""
    for _ in range(200):
        await asyncio.sleep(0)


def names(key: str, count: int) -> list[str]:
    return [f"{key}{number}" for number in range(count)]
