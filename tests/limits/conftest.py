"""Fixtures that several files share: a line of waiting calls, and a clock and stores for what is spent."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from gateway.store.engine import Store
from tests.limits.household import Household
from tests.limits.line import AskedLimiter, Queue, ran
from tests.limits.memory_bench import MemoryBench
from tests.limits.receiver import Clock
from tests.support.stores import fresh_sqlite_url


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


@pytest.fixture(params=["now", "asked"])
async def queue(bench: MemoryBench, request: pytest.FixtureRequest) -> AsyncIterator[Queue]:
    queue = Queue(AskedLimiter(bench.limiter) if request.param == "asked" else bench.limiter, bench)
    yield queue
    for _, task in queue.calls.values():
        task.cancel()
    await ran()
    assert queue.room.waiting == 0
    assert queue.room._timer is None


@pytest.fixture
def house(queue: Queue) -> Household:
    return queue.house


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(store_url: URL) -> AsyncIterator[Store]:
    opened = Store(store_url)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(fresh_sqlite_url(tmp_path))
    yield opened
    await opened.close()
