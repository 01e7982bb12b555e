"""What /metrics says of limits: decisions once a call, where they are counted, and how Redis does."""

import asyncio
import logging
import re

import httpx2
import pytest

from tests.http.test_limited import OK, chat
from tests.limits.servers import shared_server
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.ports import free_port
from tests.support.wire import WireUpstream

LIMITS = {"each_key": {"requests_per_hour": 2, "tokens_per_day": 10_000}, "each_team": {"requests_per_hour": 1}}
DECISIONS = "limit_decisions_total"


async def scraped(gateway: RunningGateway) -> dict[str, float]:
    """Samples by name and labels as they are written."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{gateway.url}/metrics")).text
    samples = re.findall(r"^gmi_gateway_(\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in samples}


def decisions(samples: dict[str, float]) -> dict[tuple[str, ...], float]:
    return {tuple(re.findall(r'"(\w+)"', name)): value for name, value in samples.items() if name.startswith(DECISIONS)}


async def test_a_call_is_one_decision_whatever_number_of_limits_it_has() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", limits={**LIMITS, "shadow": ["team"]}) as gateway:
            for _ in range(4):
                await chat(gateway)
            samples = await scraped(gateway)
    assert decisions(samples) == {
        ("any", "admitted", "any"): 2,
        ("requests", "exceeded", "team"): 1,
        ("requests", "refused", "key"): 2,
    }
    modes = {name: value for name, value in samples.items() if name.startswith("limit_mode")}
    assert [name for name, value in modes.items() if value] == ['limit_mode{mode="memory"}']
    assert (samples["limit_waiting"], samples["limit_wait_seconds_count"]) == (0, 0)
    assert (samples["spend_backlog"], samples["spend_dropped_usd_total"]) == (0, 0)
    assert not [name for name in samples if name.startswith(("redis_", "alerts_", "limit_nodes"))]


async def test_what_redis_does_is_told() -> None:
    url = shared_server("valkey").url
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", limits=LIMITS, redis={"url": url}) as gateway:
            await chat(gateway)
            samples = await scraped(gateway)
    assert samples['limit_mode{mode="exact"}'] == 1
    assert samples["redis_breaker_open"] == 0
    assert samples["redis_round_trip_seconds_count"] >= 1
    assert 0 < samples["redis_round_trip_seconds_sum"] < 5
    assert samples["limit_nodes"] >= 1


async def test_a_redis_that_is_away_from_the_start_is_told_before_anybody_calls() -> None:
    heard, loop = asyncio.Event(), asyncio.get_running_loop()

    class Hears(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().endswith("limits are kept by this gateway's share, in its memory."):
                loop.call_soon_threadsafe(heard.set)

    log, hears = logging.getLogger("gateway.limits.redis"), Hears()
    log.addHandler(hears)
    try:
        url = f"redis://127.0.0.1:{free_port()}/0"
        with running_gateway("http://127.0.0.1:9/v1", limits=LIMITS, redis={"url": url}) as gateway:
            await asyncio.wait_for(heard.wait(), 10)
            samples = await scraped(gateway)
    finally:
        log.removeHandler(hears)
    assert samples['limit_mode{mode="local"}'] == 1
    assert samples['limit_mode{mode="exact"}'] == 0


@pytest.mark.parametrize(("mode", "status"), [("local", 200), ("closed", 503), ("open", 200)])
async def test_while_redis_is_away_the_mode_and_what_went_without_it_are_told(mode: str, status: int) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    limits = {"each_key": {"requests_per_hour": 100}, "on_redis_failure": mode}
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", limits=limits, redis={"url": url}) as gateway:
            statuses = [(await chat(gateway)).status for _ in range(5)]
            samples = await scraped(gateway)
    assert statuses == [status] * 5
    assert samples[f'limit_mode{{mode="{mode}"}}'] == 1
    assert samples['limit_mode{mode="exact"}'] == 0
    assert samples["redis_breaker_open"] == 1
    assert samples["redis_failures_total"] >= 3
    assert samples['redis_unasked_total{reason="away"}'] == 5
