"""The limiter that many processes share, on real servers: the suite of all limiters."""

from collections.abc import AsyncIterator

import pytest

from tests.limits.contract import LimiterContract
from tests.limits.redis_bench import RedisBench
from tests.limits.servers import KINDS, shared_cluster, shared_server


class TestRedisLimiter(LimiterContract):
    @pytest.fixture(params=[*KINDS, "cluster"])
    async def bench(self, request: pytest.FixtureRequest) -> AsyncIterator[RedisBench]:
        url = shared_cluster().url if request.param == "cluster" else shared_server(request.param).url
        bench = RedisBench(url)
        yield bench
        await bench.limiter.close()
