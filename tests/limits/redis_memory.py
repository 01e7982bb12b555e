"""How much memory limits take in Valkey: `python -m tests.limits.redis_memory`. docs/limits.md says what it printed.

A team of many keys, each with an id as long as real ones and the same limits; `MEMORY USAGE` of all that there is.
"""

import asyncio
import random

from gateway.limits.connection import opened
from gateway.limits.plan import Ask, Planner, Policy, actual
from gateway.limits.redis import RedisLimiter
from gateway.limits.redis_options import Timing
from gateway.terms import NO_BUDGETS, Budgets, Limits, Quota
from tests.limits.servers import Server

KEYS = 1_000
NOW_S = 1_795_000_000
RATES = Limits(requests_per_minute=60_000, tokens_per_minute=10_000_000)
SLOTS = Limits(parallel=1_000)
MONEY = Budgets(day_microusd=10**9, month_microusd=10**12)


def _id(kind: str) -> str:
    return f"{kind}_{random.randrange(36**20):020x}"[:25]


def _used(server: Server) -> int:
    """Bytes of all keys together."""
    total = 0
    with server.client() as client:
        for key in client.scan_iter():
            used = client.memory_usage(key, samples=0)
            assert isinstance(used, int)
            total += used
    return total


async def _measure(
    server: Server, key: Limits, budgets: Budgets, *, keys: int = KEYS, calls: int = 1
) -> tuple[int, int]:
    """Bytes while so many calls of each key are under way, and after all have ended, for less than they reserved."""
    server.command("FLUSHALL")
    limiter = RedisLimiter(opened(server.url), timing=Timing(budget_s=10))
    planner, team = Planner(Policy()), _id("team")
    demands = []
    for number in range(keys):
        quota = Quota(team, _id("key"), key=key, key_budgets=budgets)
        for call in range(calls):
            demand = planner.demand(f"req_{number * calls + call:032x}", quota, Ask("m", 1_000, 1_000), NOW_S)
            assert (await limiter.admit(demand)).admitted
            demands.append(demand)
    open_bytes = _used(server)
    for demand in demands:
        limiter.settle(demand, actual(demand, tokens=600, cost_microusd=600))
    await limiter.flush()
    idle_bytes = _used(server)
    await limiter.close()
    return open_bytes, idle_bytes


async def main() -> None:
    """Print bytes by what they are for."""
    server = Server("valkey")
    server.start()
    kinds = {"2 rates": (RATES, NO_BUDGETS), "parallel": (SLOTS, NO_BUDGETS), "2 budgets": (Limits(), MONEY)}
    for name, (key, budgets) in kinds.items():
        open_bytes, idle_bytes = await _measure(server, key, budgets)
        print(f"{name}: {idle_bytes / KEYS:.0f} bytes a key, {(open_bytes - idle_bytes) / KEYS:.0f} more a call")
    _, idle_bytes = await _measure(server, RATES, NO_BUDGETS, calls=2)
    print(f"2 rates, of calls that overlapped: {idle_bytes / KEYS:.0f} bytes a key")
    _, alone = await _measure(server, RATES, MONEY, keys=1)
    print(f"a team of one key, all included: {alone} bytes")
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
