"""What responses in the background have used is charged to limits once it is known, whoever asks for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.call import CallRecord
from gateway.metering.late import LateRecords
from tests.faults.face import Answer, ask, request
from tests.http.admin_server import Client, made
from tests.limits.household import new_id
from tests.limits.servers import shared_server
from tests.support.gateway import RunningGateway, running_gateway, write_ledger
from tests.support.stores import fresh_sqlite_url
from tests.support.wire import WireRequest, WireUpstream, reply

BUDGET, TOKENS = 1_000_000, 100_000
PRICES = """
unit: microusd_per_million_tokens
models: {m: {looked_up: 2026-11-22, input: 1_000_000, output: 10_000_000}}
"""
TERMS = {"budgets": {"total_microusd": BUDGET}, "limits": {"tokens_per_day": TOKENS}}


class Upstream:
    """Makes responses in the background, each of which has 10 tokens of input and `output_tokens`."""

    def __init__(self, output_tokens: int) -> None:
        self.usage = {"input_tokens": 10, "output_tokens": output_tokens, "total_tokens": 10 + output_tokens}

    @property
    def cost(self) -> int:
        return 10 + 10 * self.usage["output_tokens"]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: WireRequest) -> None:
        del reader
        told: dict[str, Any] = {"object": "response", "model": "m", "background": True, "output": []}
        if asked.method == b"POST":
            told |= {"id": f"resp_{new_id()}", "status": "queued", "usage": None}
        else:
            told |= {"id": asked.target.rpartition(b"/")[2].decode(), "status": "completed", "usage": self.usage}
        writer.write(reply(200, [(b"content-type", b"application/json")], json.dumps(told).encode()))


class Node:
    """A gateway, and what it was told late."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.admin = Client(gateway.url, gateway.admin_secret)
        self._told: asyncio.Queue[CallRecord] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        records = getattr(gateway.app.proxy.settlement.note_late, "__self__", None)
        assert isinstance(records, LateRecords)

        def tell(record: CallRecord) -> None:
            loop.call_soon_threadsafe(self._told.put_nowait, record)

        records.follow(tell)

    async def call(self, secret: str, method: str, path: str, body: object = None) -> Answer:
        headers = [("Authorization", f"Bearer {secret}"), ("Content-Type", "application/json")]
        data = b"" if body is None else json.dumps(body).encode()
        return await ask(self.gateway.port, request(method, f"/v1/responses{path}", data, headers))

    async def make(self, secret: str, **members: object) -> str:
        answer = await self.call(secret, "POST", "", {"model": "m", "input": "Hi", "background": True, **members})
        assert answer.status == 200, answer.body
        return str(json.loads(answer.body)["id"])

    async def heard(self) -> CallRecord:
        """The next late record, once it has been charged."""
        return await asyncio.wait_for(self._told.get(), 10)

    async def write_ledger(self) -> None:
        """Have all that this node has noted in the database."""
        await asyncio.to_thread(write_ledger, self.gateway)

    def left(self, key: dict[str, Any]) -> dict[str, int]:
        told = self.admin.get("/limits", key=key["id"]).json()["data"]
        return {f"{it['whose']}/{it['dimension']}": it["remaining"] for it in told}


@contextmanager
def node(gateway: RunningGateway) -> Iterator[Node]:
    each = Node(gateway)
    yield each
    each.admin.close()


@asynccontextmanager
async def world(folder: Path, upstream: Upstream, *, nodes: int, has_redis: bool) -> AsyncIterator[list[Node]]:
    (folder / "prices.yaml").write_text(PRICES)
    sections: dict[str, Any] = {
        "keys": [],
        "prices": {"file": str(folder / "prices.yaml")},
        "database": {"url": f"sqlite:///{fresh_sqlite_url(folder).database}"},
        **({"redis": {"url": shared_server("redis").url}} if has_redis else {}),
    }
    async with WireUpstream(upstream.answer) as wire:
        with ExitStack() as running:
            yield [
                running.enter_context(node(running.enter_context(running_gateway(f"{wire.url}/v1", **sections))))
                for _ in range(nodes)
            ]


def team_of_two(node: Node) -> list[dict[str, Any]]:
    made(node.admin.post("/teams", {"name": "engines", **TERMS}))
    return [made(node.admin.post("/keys", {"team": "engines", "name": name, **TERMS})) for name in ("ada", "bob")]


@pytest.mark.parametrize("has_redis", [False, True], ids=["memory", "redis"])
@pytest.mark.parametrize("output_tokens", [5, 30_000])
@pytest.mark.parametrize("who", [0, 1], ids=["its own key asks", "another of the team's asks"])
async def test_limits_hold_what_was_used_and_no_more_once_that_is_known(
    tmp_path: Path, output_tokens: int, who: int, *, has_redis: bool
) -> None:
    upstream = Upstream(output_tokens)
    async with world(tmp_path, upstream, nodes=1, has_redis=has_redis) as (node,):
        keys = team_of_two(node)
        made_id = await node.make(keys[0]["secret"])
        before = node.left(keys[0])
        assert before["key/budget"] < BUDGET  # reserved
        for _ in range(3):
            assert (await node.call(keys[who]["secret"], "GET", f"/{made_id}")).status == 200
        await node.heard()
        left = node.left(keys[0])
        assert (left["key/budget"], left["team/budget"]) == (BUDGET - upstream.cost,) * 2
        expected = min(before["key/tokens"], TOKENS - 10 - output_tokens)
        assert left["key/tokens"] == pytest.approx(expected, abs=20)  # a day's tokens drain meanwhile
        assert left["team/tokens"] == pytest.approx(expected, abs=20)
        assert node.left(keys[1])["key/budget"] == BUDGET


async def test_a_budget_that_responses_in_the_background_have_spent_refuses_the_next(tmp_path: Path) -> None:
    async with world(tmp_path, Upstream(60_000), nodes=1, has_redis=False) as (node,):
        secret = team_of_two(node)[0]["secret"]
        for _ in range(2):
            made_id = await node.make(secret, max_output_tokens=16)
            await node.call(secret, "GET", f"/{made_id}")
            await node.heard()
        refused = await node.call(secret, "POST", "", {"model": "m", "input": "Hi", "background": True})
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")


async def test_what_another_node_made_is_charged_for_what_it_used(tmp_path: Path) -> None:
    upstream = Upstream(30_000)
    async with world(tmp_path, upstream, nodes=2, has_redis=True) as (one, other):
        keys = team_of_two(one)
        made_id = await one.make(keys[0]["secret"])
        await one.write_ledger()
        await other.call(keys[0]["secret"], "GET", f"/{made_id}")
        await other.heard()
        await one.call(keys[0]["secret"], "GET", f"/{made_id}")
        left = one.left(keys[0])
    assert left["key/budget"] == left["team/budget"] == BUDGET - upstream.cost
    assert left["team/tokens"] < TOKENS - 30_000


@pytest.mark.parametrize("has_redis", [False, True], ids=["memory", "redis"])
@pytest.mark.parametrize("is_written", [False, True], ids=["at once", "later"])
async def test_a_reset_forgets_what_responses_in_the_background_have_reserved(
    tmp_path: Path, *, has_redis: bool, is_written: bool
) -> None:
    upstream = Upstream(5)
    async with world(tmp_path, upstream, nodes=1, has_redis=has_redis) as (node,):
        ada = team_of_two(node)[0]
        made_ids = [await node.make(ada["secret"], max_output_tokens=10_000) for _ in range(5)]
        if is_written:
            await node.write_ledger()
        for whose in ({"team": "engines"}, {"key": ada["id"]}):
            assert node.admin.post("/limits/reset", {**whose, "dimension": "budget"}).status_code == 200
        spent = await node.make(ada["secret"], max_output_tokens=10_000)
        for made_id in made_ids:
            await node.call(ada["secret"], "GET", f"/{made_id}")
            await node.heard()
        left = BUDGET - 100_000 - 5 * upstream.cost
        assert node.left(ada)["key/budget"] == pytest.approx(left, abs=20), spent  # an estimate of its input


async def test_what_is_reset_on_one_node_another_does_not_give_back(tmp_path: Path) -> None:
    upstream = Upstream(5)
    async with world(tmp_path, upstream, nodes=2, has_redis=True) as (one, other):
        ada = team_of_two(one)[0]
        made_id = await other.make(ada["secret"], max_output_tokens=10_000)
        await other.write_ledger()
        assert one.admin.post("/limits/reset", {"key": ada["id"], "dimension": "budget"}).status_code == 200
        await other.make(ada["secret"], max_output_tokens=10_000)
        await other.call(ada["secret"], "GET", f"/{made_id}")
        await other.heard()
        await other.make(ada["secret"], max_output_tokens=10_000)  # word of the charge goes with it
        left = one.left(ada)
        assert left["key/budget"] == pytest.approx(BUDGET - 200_000 - upstream.cost, abs=40)
        assert left["team/budget"] == left["key/budget"]


async def test_responses_in_the_background_teach_how_long_answers_are(tmp_path: Path) -> None:
    async with world(tmp_path, Upstream(5_000), nodes=1, has_redis=False) as (node,):
        made(node.admin.post("/teams", {"name": "engines", "limits": {"tokens_per_day": 10**9}}))
        key = made(node.admin.post("/keys", {"team": "engines", "name": "ada"}))
        for _ in range(2):
            made_id = await node.make(key["secret"])
            await node.call(key["secret"], "GET", f"/{made_id}")
            await node.heard()
        estimator = node.gateway.app.proxy._allowance.meter.estimator
        assert estimator.estimate(key["team_id"], "m", 100, None)[1] > 3_000
