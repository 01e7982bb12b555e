"""The memory limiter decides as the oracle does and keeps its promise, whatever happens."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings

from tests.limits.household import Bench
from tests.limits.machine import LimiterMachine
from tests.limits.memory_bench import MemoryBench
from tests.limits.promise import PromiseMachine

T = TypeVar("T")


class InMemory:
    """Where a machine runs."""

    def make_bench(self) -> Bench:
        self.loop = asyncio.new_event_loop()
        return MemoryBench()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)


class MemoryMachine(InMemory, LimiterMachine):
    def teardown(self) -> None:
        super().teardown()
        self.loop.close()


class MemoryPromiseMachine(InMemory, PromiseMachine):
    def teardown(self) -> None:
        super().teardown()
        self.loop.close()


TestMemoryLimiterAgainstTheOracle = MemoryMachine.TestCase
TestMemoryLimiterAgainstTheOracle.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMemoryLimiterKeepsItsPromise = MemoryPromiseMachine.TestCase
TestMemoryLimiterKeepsItsPromise.settings = settings(max_examples=500, stateful_step_count=40, deadline=None)
