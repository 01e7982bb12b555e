"""Parallel calls and balances at the face: clients that crowd, leave and break off, and nodes that are killed.

Whatever becomes of a call, its slot comes back, and what was taken for it is what it came to.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.limits.gcra import LEASE_US
from gateway.simulator import running_simulator
from tests.faults.face import CHAT, Answer, Client, ask, connected, request
from tests.faults.nodes import ADMIN_SECRET, MODEL, UPSTREAM_REPLY, Admin, Made, call, nodes, url_text
from tests.faults.process import GatewayProcess
from tests.limits.servers import Server, shared_server
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.patience import Stopwatch
from tests.support.stores import fresh_sqlite_url
from tests.support.wire import Handler, WireRequest, WireUpstream, sse

STREAM = [step for step in sse([{"n": 1}, "[DONE]"]) if isinstance(step, bytes)]
LANES = 16
BUDGET_MICROUSD = 100_000_000
TOKENS_A_DAY = 864_000
"""Ten come back in a second."""
PRICES = f"""
unit: microusd_per_million_tokens
models: {{{MODEL}: {{looked_up: 2026-11-22, input: 1_000_000, output: 1_000_000}}}}
"""
BOTH = pytest.mark.parametrize("kind", ["memory", "redis"])


def stream_with(secret: str, simulate: str = "", **members: Any) -> bytes:
    """A request for a chat stream."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}], "stream": True, **members}
    fields = [("Authorization", f"Bearer {secret}"), ("Content-Type", "application/json"), ("X-Simulate", simulate)]
    return request("POST", CHAT, json.dumps(body).encode(), fields)


async def left(admin: Admin, key: Made) -> dict[str, int]:
    """What is left of each of a key's limits."""
    told = await admin.do("GET", f"/limits?key={key.id}")
    return {each["dimension"]: each["remaining"] for each in told["data"]}


async def until(holds: Callable[[], Awaitable[bool]], within_s: float, told: Callable[[], object] = str) -> float:
    """Look again and again until it holds; how long that took, in seconds."""
    watch = Stopwatch()
    while not await holds():
        assert watch.took().running_s < within_s, told()
        await asyncio.sleep(0.02)
    return watch.took().passed_s


# Many at once


class Counter:
    """An upstream's script that counts the streams under way, each of which lasts until `go` is set.

    That is done by itself when, with those that never came here, `expected` are accounted for.
    """

    def __init__(self, expected: int = 0) -> None:
        self.go, self.now, self.most = asyncio.Event(), 0, 0
        self._expected, self._refused = expected, 0

    def refused(self) -> None:
        """One of those expected will not come."""
        self._refused += 1
        self._look()

    def _look(self) -> None:
        if self.now + self._refused == self._expected:
            self.go.set()

    async def __call__(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: WireRequest) -> None:
        if b'"stream": true' not in seen.body:
            writer.write(UPSTREAM_REPLY)
            return
        self.now += 1
        self.most = max(self.most, self.now)
        self._look()
        writer.writelines(STREAM[:2])
        await self.go.wait()
        self.now -= 1
        writer.writelines(STREAM[2:])


@asynccontextmanager
async def two_nodes(tmp_path: Path, script: Handler) -> AsyncIterator[tuple[WireUpstream, list[GatewayProcess]]]:
    """Two gateways, processes of their own, on one store, one Valkey and one upstream."""
    redis_url = shared_server("valkey").url
    async with WireUpstream(script) as upstream:
        base_url, store = f"{upstream.url}/v1", fresh_sqlite_url(tmp_path)
        async with nodes(store, redis_url=redis_url, GMI_BASE_URL=base_url) as running:
            yield upstream, running


async def test_of_500_streams_at_once_upstream_sees_no_more_than_the_10_that_may_run(tmp_path: Path) -> None:
    counter = Counter(500)
    async with two_nodes(tmp_path, counter) as (upstream, running):
        ports = [node.port for node in running]
        key = await Admin(ports[0]).make_key(limits={"parallel": 10})
        refused: list[Answer] = []

        async def call_once(port: int) -> Answer:
            answer = await ask(port, stream_with(key.secret), within_s=30)
            if answer.status != 200:
                refused.append(answer)
                counter.refused()
            return answer

        answers = await asyncio.gather(*(call_once(ports[number % 2]) for number in range(500)))
        assert counter.most == len(upstream.requests) == 10
        for answer in refused:
            _tells_when_to_come_back(answer)
        assert {answer.status for answer in answers} == {200, 429}
        await asyncio.sleep(max(map(_retry_after_s, refused)))
        again = await asyncio.gather(*(ask(ports[number % 2], stream_with(key.secret)) for number in range(10)))
        assert [answer.status for answer in again] == [200] * 10


def _tells_when_to_come_back(answer: Answer) -> None:
    assert (answer.error["type"], answer.error["code"]) == ("requests", "rate_limit_exceeded")
    assert f"Please try again in {_retry_after_s(answer):g}s." in answer.error["message"]
    assert 1 <= int(answer.header("retry-after") or 0) <= 60
    assert int(answer.header("retry-after") or 0) - 1 < _retry_after_s(answer) <= int(answer.header("retry-after") or 0)


def _retry_after_s(answer: Answer) -> float:
    return int(answer.header("retry-after-ms") or 0) / 1000


async def test_clients_that_call_until_all_are_through_are_never_more_than_10_upstream(
    tmp_path: Path, is_long: bool
) -> None:
    counter = Counter()
    counter.go.set()
    count = 5_000 if is_long else 500
    async with two_nodes(tmp_path, counter) as (upstream, running):
        ports = [node.port for node in running]
        key = await Admin(ports[0]).make_key(limits={"parallel": 10})
        refused = 0

        async def lane(number: int) -> None:
            nonlocal refused
            async with connected(ports[number % 2]) as client:
                done = 0
                while done < count // 20:
                    client.send(stream_with(key.secret))
                    status = (await client.answer(within_s=30)).status
                    assert status in (200, 429)
                    done, refused = done + (status == 200), refused + (status == 429)

        await asyncio.gather(*(lane(number) for number in range(20)))
    assert counter.most <= 10
    assert len(upstream.requests) == count
    assert refused > 0


async def test_a_client_that_calls_one_at_a_time_is_within_a_limit_of_one_on_whichever_node(tmp_path: Path) -> None:
    counter = Counter()
    counter.go.set()
    async with two_nodes(tmp_path, counter) as (_, running):
        key = await Admin(running[0].port).make_key(limits={"parallel": 1})
        async with connected(running[0].port) as one, connected(running[1].port) as other:
            for client in (one, other) * 25:
                client.send(stream_with(key.secret))
                assert (await client.answer()).status == 200


# Nodes that are killed


async def test_slots_of_a_killed_node_are_back_after_the_life_of_a_lease_and_other_nodes_go_on(tmp_path: Path) -> None:
    counter = Counter()
    async with two_nodes(tmp_path, counter) as (_, (killed, other)):
        admin = Admin(other.port)
        key, steady = await admin.make_key(limits={"parallel": 60}), await admin.make_key(limits={"parallel": 1})
        async with streams(killed.port, key, 50), streams(other.port, key, 10) as kept:
            assert await left(admin, key) == {"parallel": 0}
            os.kill(killed.pid, signal.SIGKILL)

            async def is_back() -> bool:
                assert (await call(other.port, steady.secret)).status == 200
                slots = (await left(admin, key))["parallel"]
                assert slots <= 50  # those that go on keep theirs
                return slots == 50

            assert await until(is_back, LEASE_US / 1e6 + 1) > LEASE_US / 2e6
            async with streams(other.port, key, 50) as more:
                assert (await ask(other.port, stream_with(key.secret))).status == 429
                counter.go.set()
                for client in (*kept, *more):
                    assert await client.chunk() == b"data: [DONE]\n\n"


@asynccontextmanager
async def streams(port: int, key: Made, count: int) -> AsyncIterator[list[Client]]:
    """So many streams under way, each of which has sent its first event."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port)) for _ in range(count)]
        for client in clients:
            client.send(stream_with(key.secret))
        for client in clients:
            assert (await client.head())[0] == 200
            await client.chunk()
        yield clients


# Clients and upstreams that break off


@dataclass
class Fleet:
    """Gateways that count together, in front of a simulator, and a key."""

    gateways: list[RunningGateway]
    key: Made
    server: Server | None

    @property
    def ports(self) -> list[int]:
        return [gateway.port for gateway in self.gateways]

    async def left(self) -> dict[str, int]:
        return await left(Admin(self.ports[-1]), self.key)

    def leases(self) -> int:
        """Those in Redis, where there is one."""
        if self.server is None:
            return 0
        names: Any = self.server.command("KEYS", "*:leases:*")
        return sum(int(str(self.server.command("ZCARD", name))) for name in names)

    async def all_given_back(self, told: list[object]) -> bool:
        slots = (await self.left())["parallel"]
        told[:] = slots, self.leases()
        return told == [1_000, 0]

    def settled(self) -> tuple[int, int]:
        """Micro-dollars and tokens of all calls, as they are on record."""
        records = [record for gateway in self.gateways for record in list(gateway.records)]
        usages = [record.usage for record in records if record.usage is not None]
        return sum(record.cost_microusd or 0 for record in records), sum(usage.total_tokens for usage in usages)


@asynccontextmanager
async def fleet(kind: str, folder: Path) -> AsyncIterator[Fleet]:
    """One gateway that counts in memory, or two that count in a Valkey of their own."""
    (folder / "prices.yaml").write_text(PRICES)
    sections: dict[str, Any] = {
        "database": {"url": url_text(fresh_sqlite_url(folder))},
        "admin": {"key": ADMIN_SECRET},
        "prices": {"file": str(folder / "prices.yaml")},
    }
    with ExitStack() as stack:
        server = None
        if kind == "redis":
            server = Server()
            stack.callback(server.close)
            server.start()
            sections["redis"] = {"url": server.url}
        base_url = stack.enter_context(running_simulator())
        count = 1 if server is None else 2
        gateways = [stack.enter_context(running_gateway(base_url, **sections)) for _ in range(count)]
        limits = {"parallel": 1_000, "tokens_per_day": TOKENS_A_DAY}
        budgets = {"total_microusd": BUDGET_MICROUSD}
        key = await Admin(gateways[0].port).make_key(limits=limits, budgets=budgets)
        yield Fleet(gateways, key, server)


async def in_lanes(count: int, work: Callable[[random.Random], Awaitable[None]]) -> None:
    """So many of it, some at a time."""

    async def lane(number: int) -> None:
        chance = random.Random(number)
        for _ in range(count // LANES):
            await work(chance)

    await asyncio.gather(*(lane(number) for number in range(LANES)))


async def leave_somewhere(client: Client, data: bytes, chance: random.Random) -> None:
    """Go away before the reply, or within it."""
    client.send(data)
    await client.writer.drain()
    for _ in range(chance.choice((0, 1, 3, 20))):
        await asyncio.sleep(0)
    if chance.random() < 0.7:
        status, _ = await client.head()
        assert status == 200
        pieces = chance.randrange(20)
        while pieces and await client.chunk():
            pieces -= 1
    client.reset() if chance.random() < 0.5 else client.leave()


@BOTH
async def test_streams_that_clients_abort_at_random_points_leave_no_slot_taken(
    kind: str, tmp_path: Path, is_long: bool
) -> None:
    async with fleet(kind, tmp_path) as running:
        data = stream_with(running.key.secret, "chunks=30; chunk-delay=0.001", max_tokens=1)
        async with connected(running.ports[0]) as client:
            client.send(stream_with(running.key.secret, "stall=1000"))
            await client.head()
            assert ((await running.left())["parallel"], running.leases()) == (999, len(running.gateways) - 1)

        async def abort(chance: random.Random) -> None:
            async with connected(chance.choice(running.ports)) as client:
                await leave_somewhere(client, data, chance)

        await in_lanes(10_000 if is_long else 600, abort)
        told: list[object] = []
        await until(lambda: running.all_given_back(told), 2, lambda: told)
        outcomes = {record.outcome for gateway in running.gateways for record in gateway.records}
    assert outcomes <= {"client_left", "done"}
    assert "client_left" in outcomes


@BOTH
async def test_after_cancels_resets_and_errors_balances_are_what_calls_came_to(
    kind: str, tmp_path: Path, is_long: bool
) -> None:
    reported: dict[str, int] = {}
    async with fleet(kind, tmp_path) as running:
        secret, began_s = running.key.secret, time.monotonic()

        async def one(chance: random.Random) -> None:
            async with connected(chance.choice(running.ports)) as client:
                await _end_somehow(client, secret, chance, reported)

        # A bucket that is nearly empty gives back less: what has drained meanwhile is not there to be given.
        await ask(running.ports[0], stream_with(secret, "chunks=3000", max_tokens=8, stream=False))
        await in_lanes(5_000 if is_long else 480, one)
        told: list[object] = []
        await until(lambda: running.all_given_back(told), 2, lambda: told)
        remaining, (cost, tokens) = await running.left(), running.settled()
        assert remaining["budget"] == BUDGET_MICROUSD - cost
        assert 0 <= remaining["tokens"] - (TOKENS_A_DAY - tokens) <= 10 * (time.monotonic() - began_s) + 1
        records = [record for gateway in running.gateways for record in gateway.records]
    assert {record.id: record.cost_microusd for record in records if record.id in reported} == reported
    assert {"done", "client_left", "cut", "upstream_error"} <= {record.outcome for record in records}


async def _end_somehow(client: Client, secret: str, chance: random.Random, reported: dict[str, int]) -> None:
    """A call that is completed, left, broken off by upstream, or refused by it; what whole ones used is noted."""
    chunks = chance.randrange(1, 30)
    match chance.choice(("whole", "plain", "left", "reset", "cut", "error")):
        case "whole":
            options = {"include_usage": True}
            client.send(stream_with(secret, f"chunks={chunks}", max_tokens=8, stream_options=options))
            answer = await client.answer()
            *_, last, done, rest = answer.body.split(b"\n\n")
            assert (done, rest) == (b"data: [DONE]", b"")
            reported[_id_of(answer)] = json.loads(last[6:])["usage"]["total_tokens"]
        case "plain":
            client.send(stream_with(secret, f"chunks={chunks}", max_tokens=8, stream=False))
            answer = await client.answer()
            reported[_id_of(answer)] = json.loads(answer.body)["usage"]["total_tokens"]
        case "left":
            await leave_somewhere(client, stream_with(secret, "chunks=30; chunk-delay=0.001", max_tokens=8), chance)
        case "error":
            client.send(stream_with(secret, "status=500", max_tokens=8))
            assert (await client.answer()).status == 500
        case how:
            client.send(stream_with(secret, f"chunks=30; {how}={chance.randrange(6_000)}", max_tokens=8))
            assert (await client.answer()).status in (200, 502)


def _id_of(answer: Answer) -> str:
    return answer.header("x-gateway-request-id") or ""
