"""Redis forgets, stops and dies under a gateway that clients call: they are answered at once, by the chosen mode."""

import pytest

from tests.faults.face import CHAT, ask, metric, post
from tests.faults.test_limits_face import until
from tests.limits.servers import Server
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.patience import Stopwatch
from tests.support.wire import WireUpstream, reply

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
LATE_S = 0.15
BACK_S = 2.0
CALLS = 12


async def statuses(gateway: RunningGateway) -> set[int]:
    """Of some calls in a row; nearly all must be answered in time, on a machine that does other things too."""
    found, took_s = set(), []
    for _ in range(CALLS):
        watch = Stopwatch()
        found.add((await ask(gateway.port, post(CHAT, {}))).status)
        took_s.append(watch.took().running_s)
    assert sorted(took_s)[-2] <= LATE_S
    return found


async def back(gateway: RunningGateway) -> None:
    """Wait until limits are exact again."""

    async def is_exact() -> bool:
        return await metric(gateway, "limit_mode", mode="exact") == 1

    await until(is_exact, BACK_S)


@pytest.mark.parametrize(("mode", "status"), [("local", 200), ("closed", 503), ("open", 200)])
async def test_whatever_becomes_of_redis_clients_are_answered_at_once(mode: str, status: int) -> None:
    limits = {"each_key": {"requests_per_hour": 1_000, "parallel": 50}, "on_redis_failure": mode}
    server = Server()
    server.start()
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", limits=limits, redis={"url": server.url}) as gateway:
            await back(gateway)
            for flush in ("SCRIPT FLUSH", "FLUSHALL"):
                server.command(*flush.split())
                assert await statuses(gateway) == {200}
            with server.frozen():
                assert await statuses(gateway) == {status}
            await back(gateway)
            assert await statuses(gateway) == {200}
            server.kill()
            assert await statuses(gateway) == {status}
            server.start()
            await back(gateway)
            assert await statuses(gateway) == {200}
    server.close()


async def test_without_redis_a_gateway_that_is_alone_admits_its_limit_and_no_more() -> None:
    limits = {"each_key": {"requests_per_hour": 30}}
    server = Server()
    server.start()
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", limits=limits, redis={"url": server.url}) as gateway:
            await back(gateway)
            server.kill()
            answers = [(await ask(gateway.port, post(CHAT, {}))).status for _ in range(60)]
    assert (answers.count(200), answers.count(429)) == (30, 30)
    assert len(upstream.requests) == 30
    server.close()
