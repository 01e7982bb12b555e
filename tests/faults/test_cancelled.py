"""Many calls that are cancelled, once and twice, in whatever phase: the pool stays whole."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from tests.faults.face import AUTHORIZATION, CHAT, TRANSPORTS, ask, connected, pool_load, post, request, until_pool_is
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.wire import WireRequest, WireUpstream, reply, sse

LANES = 8
OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
STREAM = b"".join(step for step in sse([{"n": number} for number in range(20)], end=False) if isinstance(step, bytes))
BOTH = pytest.mark.parametrize("transport", TRANSPORTS)


async def as_asked(_: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: WireRequest) -> None:
    """Send as much of a stream as the header `x-at` says, then wait for the end; without it, answer."""
    at = seen.header(b"x-at")
    if at is None:
        writer.write(OK)
        return
    writer.write(STREAM[: int(at)])
    await writer.drain()
    await seen.connection.ended.wait()


def _cancel_again(gateway: RunningGateway) -> None:
    """Cancel every call a second time whose client has left, while it is still winding down."""
    for call in gateway.app.proxy.open_calls:
        if call.left and call.task is not None:
            call.task.cancel()


async def _leave_one(gateway: RunningGateway, chance: random.Random, *, doubly: bool) -> None:
    """One call that its client leaves at a random moment."""
    async with connected(gateway.port) as client:
        at = chance.choice((0, chance.randrange(len(STREAM)), len(STREAM)))
        data = post(CHAT, {"stream": True}, [("X-At", str(at))])
        whole = chance.random() < 0.8
        client.send(data if whole else data[: chance.randrange(20, len(data))])
        await client.writer.drain()
        for _ in range(chance.choice((0, 0, 1, 3, 20))):
            await asyncio.sleep(0)
        if whole and at == len(STREAM) and chance.random() < 0.5:
            await client.head()
            await client.chunk()
        client.reset() if chance.random() < 0.5 else client.leave()
    if doubly and gateway.loop is not None:
        gateway.loop.call_soon_threadsafe(_cancel_again, gateway)
        gateway.loop.call_soon_threadsafe(gateway.loop.call_soon, _cancel_again, gateway)


async def _leave_many(gateway: RunningGateway, count: int, seed: int, *, doubly: bool) -> None:
    async def lane(number: int) -> None:
        chance = random.Random(seed + number)
        for _ in range(count // LANES):
            await _leave_one(gateway, chance, doubly=doubly)

    async with asyncio.TaskGroup() as group:
        for number in range(LANES):
            group.create_task(lane(number))


async def _all_over(gateway: RunningGateway, upstream: WireUpstream) -> None:
    """No call is open within 1 s, and upstream has no connection but idle ones."""
    async with asyncio.timeout(1):
        while gateway.ask(lambda: len(gateway.app.proxy.open_calls)):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        while upstream.open_connections > pool_load(gateway)[1]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert pool_load(gateway)[0] == 0


@BOTH
@pytest.mark.parametrize("doubly", [False, True], ids=["singly", "doubly"])
async def test_after_many_cancelled_calls_the_pool_is_idle_and_whole(
    transport: str, doubly: bool, is_long: bool
) -> None:
    count = 20_000 if is_long else 1_000 if transport == "native" else 400
    async with WireUpstream(as_asked) as upstream:
        section: dict[str, Any] = {"transport": transport, "max_connections": 10}
        with running_gateway(f"{upstream.url}/v1", upstream=section) as gateway:
            assert (await ask(gateway.port, post(CHAT, {}))).status == 200
            tasks = gateway.ask(lambda: len(asyncio.all_tasks()))
            await _leave_many(gateway, count, seed=18, doubly=doubly)
            await _all_over(gateway, upstream)
            outcomes = Counter(record.outcome for record in gateway.records)
            for _ in range(100):
                assert (await ask(gateway.port, post(CHAT, {}))).status == 200
            await until_pool_is(gateway, (0, 1))
            assert gateway.ask(lambda: len(asyncio.all_tasks())) <= tasks + 1  # a task of upkeep comes and goes
    assert outcomes["client_left"] > count / 2
    assert outcomes["done"] <= 1, outcomes
    assert set(outcomes) <= {"client_left", "failed", "done"}, outcomes  # `failed`: the eleventh at once is 503


@BOTH
async def test_clients_that_leave_at_random_leave_nothing_behind(transport: str, is_long: bool) -> None:
    count = 1_000 if is_long or transport == "native" else 200
    async with WireUpstream(as_asked) as upstream:
        with running_gateway(f"{upstream.url}/v1", upstream={"transport": transport}) as gateway:
            await asyncio.gather(*(_leave_one(gateway, random.Random(number), doubly=False) for number in range(count)))
            await _all_over(gateway, upstream)
            outcomes = Counter(record.outcome for record in gateway.records)
            assert set(outcomes) == {"client_left"}
            whole = request("POST", CHAT, b"{}", [AUTHORIZATION])
            answers = await asyncio.gather(*(ask(gateway.port, whole) for _ in range(50)))
            assert {answer.status for answer in answers} == {200}
