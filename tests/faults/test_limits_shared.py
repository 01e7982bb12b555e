"""Several gateways on one Redis: together they admit what is allowed, never more, and hardly ever less."""

import time

import pytest

from gateway.limits.rules import Dimension, Period, Rule, Whose
from tests.faults.limits_program import Order, Outcome, outcomes, running
from tests.limits.household import SECOND, Household, new_id
from tests.limits.oracle import worst_excess
from tests.limits.redis_bench import Clock, RedisBench
from tests.limits.servers import shared_cluster, shared_server

GATEWAYS = 4
CLIENTS = 16
A_MINUTE = 6_000
BURST = 40


def where(kind: str) -> str:
    return shared_cluster().url if kind == "cluster" else shared_server(kind).url


def rule(whose: Whose, dimension: Dimension, limit: int, *, burst: int = 0, team: str = "") -> Rule:
    subject = {"key": f"{team}/key_1", "team": team, "model": f"{team}/model/x", "endpoint": f"endpoint/{team}"}[whose]
    period: Period | None = None if dimension == "parallel" else "minute"
    return Rule(f"{subject}/{dimension}/{period}", dimension, whose, period, limit, burst)


def order(url: str, *rules: Rule, seconds: float, calls_a_s: float = 0.0, clock_ahead_s: int = 0) -> Order:
    return Order(
        url,
        [rule for rule in rules if rule.whose != "endpoint"],
        [rule for rule in rules if rule.whose == "endpoint"],
        "load" if calls_a_s else "crowd",
        CLIENTS,
        seconds,
        calls_a_s,
        clock_ahead_s=clock_ahead_s,
    )


def holds(rule: Rule, came: list[Outcome]) -> None:
    """Whatever interval is looked at, what was promised was kept; and while all called, at least 99% was given."""
    assert [outcome.errors for outcome in came] == [[]] * len(came)
    admitted = sorted(us for outcome in came for us in outcome.admitted)
    assert worst_excess(rule, [(us, 1) for us in admitted]) <= 0
    first_us, last_us = max(one.admitted[0] for one in came), min(one.admitted[-1] for one in came)
    given = sum(first_us < us <= last_us for us in admitted)
    called_s = (last_us - first_us) / 1e6 - max(one.stood_still_s for one in came)
    assert given >= 0.99 * A_MINUTE / 60 * called_s - 1


@pytest.mark.parametrize(
    ("kind", "binding"), [("valkey", "endpoint"), ("redis", "team"), ("cluster", "team"), ("cluster", "endpoint")]
)
async def test_four_gateways_at_twice_the_load_exceed_the_limit_in_no_interval(
    kind: str, binding: Whose, is_long: bool
) -> None:
    team = f"team_{new_id()}"
    tight = rule(binding, "requests", A_MINUTE, burst=BURST, team=team)
    wide = rule("key", "requests", 1_000_000, team=team)
    seconds, calls_a_s = 60 if is_long else 3, 2 * A_MINUTE / 60 / GATEWAYS
    one = order(
        where(kind), tight, wide, rule("key", "parallel", 1_000, team=team), seconds=seconds, calls_a_s=calls_a_s
    )
    holds(tight, await outcomes([one] * GATEWAYS))


async def test_a_gateway_whose_clock_is_an_hour_wrong_changes_nothing(is_long: bool) -> None:
    tight = rule("team", "requests", A_MINUTE, burst=BURST, team=f"team_{new_id()}")
    seconds, calls_a_s = 60 if is_long else 2, 2 * A_MINUTE / 60 / GATEWAYS
    url = shared_server("valkey").url
    orders = [
        order(url, tight, seconds=seconds, calls_a_s=calls_a_s, clock_ahead_s=ahead_s)
        for ahead_s in (0, 3_600, -3_600, 0)
    ]
    holds(tight, await outcomes(orders))


@pytest.mark.parametrize("kind", ["redis", "cluster"])
async def test_of_parallel_calls_there_is_never_one_too_many(kind: str, is_long: bool) -> None:
    slots = rule("key", "parallel", 10, team=f"team_{new_id()}")
    came = await outcomes([order(where(kind), slots, seconds=20 if is_long else 2)] * GATEWAYS)
    assert [outcome.errors for outcome in came] == [[]] * GATEWAYS
    held = [interval for outcome in came for interval in outcome.held]
    # Where one ends in the same microsecond as another begins, the end came first.
    steps = sorted((at_us, step) for began_us, ended_us in held for at_us, step in ((began_us, 1), (ended_us, -1)))
    at_once = most = 0
    for _, step in steps:
        at_once += step
        most = max(most, at_once)
    assert most == 10
    assert len(held) > 100


async def test_a_killed_gateways_slots_are_back_after_the_life_of_a_lease() -> None:
    slots = rule("key", "parallel", 50, team=f"team_{new_id()}")
    server = shared_server("valkey")
    async with running([Order(server.url, [slots], work="hold", clients=50)]) as (gateway,):
        gateway.go()
        for _ in range(50):
            assert await gateway.line() == b"held"
        await gateway.kill()
    clock = Clock(time.time_ns() // 1_000)
    bench = RedisBench(server.url, clock=clock)
    assert await Household(bench).left(slots) == [0]
    await bench.advance(31 * SECOND)
    assert await Household(bench).left(slots) == [50]
    await bench.limiter.close()
