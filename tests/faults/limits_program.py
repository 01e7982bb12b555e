"""One gateway's limiter with clients of its own, as a process: the faults of limits need several.

`python -m tests.faults.limits_program ORDER`, the order as JSON. It says `ready`, waits for a line, works, and tells
what came of it as JSON.
"""

import asyncio
import contextlib
import random
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from gateway.limits.connection import opened
from gateway.limits.redis import RedisLimiter
from gateway.limits.redis_keys import ENDPOINTS
from gateway.limits.redis_options import OnFailure, Timing
from gateway.limits.rules import Charge, Demand, Rule
from tests.support.patience import Stopwatch

ROOT = Path(__file__).parents[2]


class Order(msgspec.Struct):
    """`load`: calls come at random, `calls_a_s` in all. `crowd`: each client calls again as soon as it is through.

    `hold`: as many calls as there are clients are admitted, and go on until the process is killed.
    """

    url: str
    rules: list[Rule]
    endpoint: list[Rule] = []
    work: Literal["load", "crowd", "hold"] = "load"
    clients: int = 16
    seconds: float = 2.0
    calls_a_s: float = 100.0
    on_failure: OnFailure = "local"
    clock_ahead_s: int = 0
    """By how much this process's clock is wrong."""


class Outcome(msgspec.Struct):
    """What came of it. Microseconds of `admitted` are Redis's, those of `held` the machine's monotonic clock's."""

    admitted: list[int] = []
    held: list[tuple[int, int]] = []
    asked: int = 0
    errors: list[str] = []
    longest_s: float = 0.0
    stood_still_s: float = 0.0
    """For how long the machine did not run."""


class Gateway:
    """The limiter of an order, and what its clients do."""

    def __init__(self, order: Order) -> None:
        ahead_us = order.clock_ahead_s * 1_000_000
        # A machine that runs four of these is slow now and then; what is late is its own test.
        timing = Timing(budget_s=2.0, clock=lambda: time.monotonic_ns() // 1_000 + ahead_us)
        self._order = order
        self._limiter = RedisLimiter(opened(order.url), on_failure=order.on_failure, timing=timing)
        self._team = order.rules[0].id.partition("/")[0]
        self._charges = tuple(Charge(rule, 1) for rule in order.rules)
        self._endpoint = tuple(Charge(rule, 1) for rule in order.endpoint)
        self._clock_tag = ENDPOINTS if order.endpoint else self._team
        """Nodes of a cluster have clocks of their own, and the tight rule is the endpoint's where there is one."""
        self._dice = random.Random()
        self._count = 0
        self.outcome = Outcome()

    async def connect(self) -> None:
        self._limiter.start()
        await self._limiter.standings(self._order.rules)

    async def work(self) -> None:
        until_s, watch = time.monotonic() + self._order.seconds, Stopwatch()
        doing = {"load": self._load, "crowd": self._crowd, "hold": self._hold}[self._order.work]
        await asyncio.gather(*(doing(until_s) for _ in range(self._order.clients)))
        await self._limiter.close()
        self.outcome.stood_still_s = watch.took().stood_still_s

    async def _load(self, until_s: float) -> None:
        await self._pause()
        while time.monotonic() < until_s:
            await self._call(0)
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._dice.expovariate(self._order.calls_a_s / self._order.clients))

    async def _crowd(self, until_s: float) -> None:
        while time.monotonic() < until_s:
            await self._call(self._dice.random() / 100)

    async def _hold(self, _until_s: float) -> None:
        assert await self._admit() is not None
        print("held", flush=True)
        await asyncio.Event().wait()

    async def _call(self, lasts_s: float) -> None:
        demand = await self._admit()
        if demand is None:
            await asyncio.sleep(0.001)
            return
        begun_us = time.monotonic_ns() // 1_000
        if lasts_s:
            await asyncio.sleep(lasts_s)
        self.outcome.held.append((begun_us, time.monotonic_ns() // 1_000))
        self._limiter.settle(demand, {})

    async def _admit(self) -> Demand | None:
        self._count += 1
        demand = Demand(f"{self._limiter.node}-{self._count}", self._team, self._charges, self._endpoint)
        began_s = time.monotonic()
        try:
            decision = self._limiter.admit_now(demand) or await self._limiter.admit(demand)
        except Exception as error:  # what went wrong is for the test to judge
            self.outcome.errors.append(repr(error))
            return None
        self.outcome.asked += 1
        self.outcome.longest_s = max(self.outcome.longest_s, time.monotonic() - began_s)
        if not decision.admitted:
            return None
        self.outcome.admitted.append(self._limiter._lane(self._clock_tag).server_us)
        return demand


async def _main(order: Order) -> None:
    gateway = Gateway(order)
    await gateway.connect()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await gateway.work()
    print(msgspec.json.encode(gateway.outcome).decode(), flush=True)


class Running:
    """A process that is ready."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def line(self) -> bytes:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).strip()

    async def outcome(self) -> Outcome:
        return msgspec.json.decode(await self.line(), type=Outcome)

    async def kill(self) -> None:
        """SIGKILL, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def running(orders: Sequence[Order]) -> AsyncIterator[list[Running]]:
    """A process for each order, all of them connected and waiting for `go`."""
    command = (sys.executable, "-m", "tests.faults.limits_program")
    processes = [
        Running(
            await asyncio.create_subprocess_exec(
                *command, msgspec.json.encode(order).decode(), cwd=ROOT, stdin=PIPE, stdout=PIPE, limit=1 << 26
            )
        )
        for order in orders
    ]
    try:
        for process in processes:
            assert await process.line() == b"ready"
        yield processes
    finally:
        for process in processes:
            await process.kill()


async def outcomes(orders: Sequence[Order]) -> list[Outcome]:
    """What came of all, begun together."""
    async with running(orders) as processes:
        for process in processes:
            process.go()
        return [await process.outcome() for process in processes]


if __name__ == "__main__":
    asyncio.run(_main(msgspec.json.decode(sys.argv[1], type=Order)))
