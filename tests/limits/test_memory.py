"""The limiter of a single process."""

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence

import pytest

from gateway.errors import StoreUnavailable
from gateway.limits.memory import MemoryLimiter, steady_clock
from gateway.limits.rules import Rule
from tests.limits.contract import LimiterContract
from tests.limits.household import HOUR, SECOND, Bench, Household, ask
from tests.limits.memory_bench import MemoryBench


class TestMemoryLimiter(LimiterContract):
    @pytest.fixture
    def bench(self) -> Bench:
        return MemoryBench()
