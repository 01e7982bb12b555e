"""The Redis limiter decides as the oracle does and keeps its promise, whatever happens:
on Valkey, and in two steps on a cluster.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings

from tests.limits.household import Bench
from tests.limits.machine import LimiterMachine
from tests.limits.promise import PromiseMachine
from tests.limits.redis_bench import RedisBench
from tests.limits.servers import shared_cluster, shared_server

T = TypeVar("T")


class InRedis:
    """Where a machine runs."""

    def make_bench(self) -> Bench:
        self.loop = asyncio.new_event_loop()
        # What is remembered of a refusal tells other rules as they were; here all that is told has to be exact.
        self.redis = RedisBench(self.where(), most_remembered=0)
        return self.redis

    def where(self) -> str:
        return shared_server("valkey").url

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def close(self) -> None:
        self.run(self.redis.limiter.close())
        self.loop.close()


class RedisMachine(InRedis, LimiterMachine):
    def teardown(self) -> None:
        super().teardown()
        self.close()


class ClusterMachine(RedisMachine):
    def where(self) -> str:
        return shared_cluster().url


class RedisPromiseMachine(InRedis, PromiseMachine):
    def teardown(self) -> None:
        super().teardown()
        self.close()


class ClusterPromiseMachine(RedisPromiseMachine):
    def where(self) -> str:
        return shared_cluster().url


TestRedisLimiterAgainstTheOracle = RedisMachine.TestCase
TestRedisLimiterAgainstTheOracle.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestClusterAgainstTheOracle = ClusterMachine.TestCase
TestClusterAgainstTheOracle.settings = settings(max_examples=5, stateful_step_count=40, deadline=None)
TestRedisLimiterKeepsItsPromise = RedisPromiseMachine.TestCase
TestRedisLimiterKeepsItsPromise.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestClusterKeepsItsPromise = ClusterPromiseMachine.TestCase
TestClusterKeepsItsPromise.settings = settings(max_examples=10, stateful_step_count=40, deadline=None)
