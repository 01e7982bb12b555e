"""Responses in the background are counted, and their budgets settled, though no client ever asks how they ended."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, select, update

from gateway.call import CallRecord
from gateway.metering.due import KNOWN_AFTER_S
from gateway.metering.late import LateRecords
from gateway.simulator import running_simulator
from gateway.store.engine import Store
from gateway.store.tables import calls, due_responses
from tests.faults.accounts import spent
from tests.faults.face import TRANSPORTS, Answer, ask, request
from tests.http.admin_server import Client, made
from tests.limits.household import new_id
from tests.limits.servers import shared_server
from tests.support.gateway import UPSTREAM_KEY, RunningGateway, running_gateway, write_ledger
from tests.support.stores import fresh_sqlite_url
from tests.support.wire import WireRequest, WireUpstream, reply, reset

BUDGET = 1_000_000
PRICES = """
unit: microusd_per_million_tokens
models:
  m: {looked_up: 2026-11-22, input: 1_000_000, output: 10_000_000}
  simulated: {looked_up: 2026-11-22, input: 1_000_000, output: 10_000_000}
"""
TERMS = {"budgets": {"total_microusd": BUDGET}, "limits": {"tokens_per_day": 100_000}}
SOON, NOT_SOON = {"ask_due_after_s": 0.05}, {"ask_due_after_s": 3_600}
COST = 10 + 10 * 5
JSON = [(b"content-type", b"application/json")]
QUEUED: dict[str, Any] = {"object": "response", "model": "m", "background": True, "status": "queued", "usage": None}
FINISHED = {**QUEUED, "status": "completed", "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}}


class Upstream:
    """Makes responses in the background. To who asks for one it gives the next of `answers`, the last for ever.

    An answer is a status and members of a response, or b"" for none at all. `asked` counts, and may be waited for.
    """

    def __init__(self, *answers: tuple[int, dict[str, Any]] | bytes) -> None:
        self.answers = list(answers) or [(200, FINISHED)]
        self.requests: list[WireRequest] = []
        self.gate = asyncio.Event()
        """Nobody gets an answer before it is set, which it is."""
        self.gate.set()
        self._asked = asyncio.Condition()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: WireRequest) -> None:
        del reader
        if asked.method == b"POST":
            writer.write(reply(200, JSON, json.dumps({"id": f"resp_{new_id()}", **QUEUED}).encode()))
            return
        async with self._asked:
            self.requests.append(asked)
            self._asked.notify_all()
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, bytes):
            reset(writer)
            return
        status, members = answer
        told = {"id": asked.target.rpartition(b"/")[2].decode(), **members}
        writer.write(reply(status, JSON, json.dumps(told).encode()))

    async def asked(self, times: int) -> None:
        """Wait until it was asked so many times."""
        async with asyncio.timeout(10), self._asked:
            await self._asked.wait_for(lambda: len(self.requests) >= times)


class Node:
    """A gateway, and what it has counted late."""

    def __init__(self, gateway: RunningGateway, admin_secret: str | None) -> None:
        self.gateway = gateway
        self.admin_secret = gateway.admin_secret or admin_secret
        self.admin = Client(gateway.url, self.admin_secret)
        self.counted: list[CallRecord] = []
        self._new: asyncio.Queue[CallRecord] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        records = getattr(gateway.app.proxy.settlement.note_late, "__self__", None)
        assert isinstance(records, LateRecords)

        def tell(record: CallRecord) -> None:
            self.counted.append(record)
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._new.put_nowait, record)

        records.follow(tell)

    async def call(self, secret: str, method: str, path: str = "", body: object = None) -> Answer:
        headers = [("Authorization", f"Bearer {secret}"), ("Content-Type", "application/json")]
        data = b"" if body is None else json.dumps(body).encode()
        return await ask(self.gateway.port, request(method, f"/v1/responses{path}", data, headers))

    async def make(self, secret: str, model: str = "m") -> str:
        answer = await self.call(secret, "POST", "", {"model": model, "input": "Hi", "background": True})
        assert answer.status == 200, answer.body
        await asyncio.to_thread(write_ledger, self.gateway)
        return str(json.loads(answer.body)["id"])

    async def heard(self) -> CallRecord:
        return await asyncio.wait_for(self._new.get(), 10)

    def sums(self) -> dict[str, Any]:
        return dict(self.admin.get("/usage", group_by="model").json()["totals"])

    def left(self, key: dict[str, Any]) -> dict[str, int]:
        told = self.admin.get("/limits", key=key["id"]).json()["data"]
        return {f"{it['whose']}/{it['dimension']}": it["remaining"] for it in told}


class World:
    """One upstream and one database, on which gateways start and stop."""

    def __init__(self, folder: Path, base_url: str, url: URL | None = None) -> None:
        (folder / "prices.yaml").write_text(PRICES)
        self._base_url = base_url
        self._folder = folder
        self.url = url or fresh_sqlite_url(folder)
        self._secret: str | None = None
        self.sections: dict[str, Any] = {}

    @contextmanager
    def node(self, **ledger: float) -> Iterator[Node]:
        sections = {
            "keys": [],
            "prices": {"file": str(self._folder / "prices.yaml")},
            "database": {"url": self.url.render_as_string(hide_password=False)},
            "ledger": ledger,
            **self.sections,
        }
        with running_gateway(self._base_url, **sections) as gateway:
            node = Node(gateway, self._secret)
            self._secret = node.admin_secret
            yield node
            node.admin.close()

    async def usage(self) -> dict[str, dict[str, Any]]:
        """The rows of calls that used something, or will have, by where their usage is from."""
        found = await self._read(select(calls).where(calls.c.usage_source != "none"))
        assert len({row["usage_source"] for row in found}) == len(found)
        return {row["usage_source"]: row for row in found}

    async def due(self) -> list[str]:
        """The responses that are waited for."""
        return [row["response_id"] for row in await self._read(select(due_responses))]

    async def grow_older(self, seconds: int) -> None:
        """As if what is due had been made so long before."""
        store = Store(self.url)
        try:
            async with store.writing() as connection:
                older = {"started_at": due_responses.c.started_at - seconds * 1_000_000}
                await connection.execute(update(due_responses).values(older))
        finally:
            await store.close()

    async def _read(self, query: Any) -> list[dict[str, Any]]:
        store = Store(self.url)
        try:
            async with store.reading() as connection:
                return [dict(row) for row in (await connection.execute(query)).mappings()]
        finally:
            await store.close()


@asynccontextmanager
async def world(folder: Path, upstream: Upstream, url: URL | None = None) -> AsyncIterator[World]:
    async with WireUpstream(upstream.answer) as wire:
        yield World(folder, f"{wire.url}/v1", url)


def key_of(node: Node) -> dict[str, Any]:
    made(node.admin.post("/teams", {"name": "engines", **TERMS}))
    return made(node.admin.post("/keys", {"team": "engines", "name": "ada", **TERMS}))


async def test_what_nobody_asks_for_is_in_the_sums_and_its_budgets_are_settled(tmp_path: Path) -> None:
    with running_simulator(api_key=UPSTREAM_KEY) as upstream:
        here = World(tmp_path, upstream)
        with here.node(**SOON) as node:
            key = key_of(node)
            response_id = await node.make(key["secret"], "simulated")
            late = await node.heard()
            sums = node.sums()
            left = node.left(key)
    assert late.id == f"late_{response_id}"
    assert late.usage is not None
    assert (sums["calls"], sums["total_tokens"], sums["unknown_calls"]) == (1, late.usage.total_tokens, 0)
    assert sums["cost_microusd"] == late.cost_microusd == late.usage.input_tokens + 10 * late.usage.output_tokens
    assert left["key/budget"] == left["team/budget"] == BUDGET - late.cost_microusd
    rows = await here.usage()
    assert set(rows) == {"due", "reported"}
    assert (rows["reported"]["key_id"], rows["reported"]["team_id"]) == (key["id"], key["team_id"])
    assert (rows["reported"]["route"], rows["reported"]["model"]) == ("/v1/responses", "simulated")
    assert await here.due() == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_upstream_is_asked_as_the_account_and_by_no_client(tmp_path: Path, transport: str) -> None:
    upstream = Upstream()
    async with world(tmp_path, upstream) as here:
        here.sections = {"upstream": {"transport": transport}}
        with here.node(**SOON) as node:
            response_id = await node.make(key_of(node)["secret"])
            await node.heard()
            records = node.gateway.records
    asked = upstream.requests[0]
    assert (asked.method, asked.target) == (b"GET", f"/v1/responses/{response_id}".encode())
    assert asked.header(b"authorization") == f"Bearer {UPSTREAM_KEY}".encode()
    assert [record.usage_source for record in records] == ["due"]


async def test_what_a_client_asked_for_first_is_counted_once_and_not_asked_for_again(tmp_path: Path) -> None:
    upstream = Upstream()
    async with world(tmp_path, upstream) as here:
        with here.node(**NOT_SOON) as node:
            key = key_of(node)
            response_id = await node.make(key["secret"])
            assert await here.due() == [response_id]
            assert (await node.call(key["secret"], "GET", f"/{response_id}")).status == 200
            await node.heard()
            assert await here.due() == []
            assert node.sums()["cost_microusd"] == COST
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("who", ["nobody", "a client", "a client of another node"])
async def test_the_model_that_was_asked_for_is_what_counts_whatever_snapshot_the_reply_names(
    tmp_path: Path, store_url: URL, who: str
) -> None:
    async with world(tmp_path, Upstream((200, {**FINISHED, "model": "m-2026-10-01"})), store_url) as here:
        with here.node(**(SOON if who == "nobody" else NOT_SOON)) as maker, here.node(**NOT_SOON) as other:
            key = key_of(maker)
            node = other if who == "a client of another node" else maker
            response_id = await maker.make(key["secret"])
            if who != "nobody":
                await node.call(key["secret"], "GET", f"/{response_id}")
            late = await node.heard()
            sums, left = node.sums(), node.left(key)
        rows = await here.usage()
    assert (late.model, late.cost_microusd) == ("m", COST)
    assert (rows["reported"]["model"], rows["reported"]["cost_microusd"]) == ("m", COST)
    assert (sums["cost_microusd"], sums["unpriced_calls"]) == (COST, 0)
    if who != "a client of another node":  # whose limits are its own without Redis
        assert left["key/budget"] == left["team/budget"] == BUDGET - COST


async def test_what_two_nodes_and_a_client_hear_at_once_is_counted_once(tmp_path: Path, store_url: URL) -> None:
    upstream = Upstream()
    upstream.gate.clear()
    async with world(tmp_path, upstream, store_url) as here:
        with here.node(**SOON) as one, here.node(**SOON) as other:
            key = key_of(one)
            made_ids = [await one.make(key["secret"]) for _ in range(5)]
            asking = (node.call(key["secret"], "GET", f"/{each}") for each in made_ids for node in (one, other))
            answers = asyncio.gather(*asking)
            await upstream.asked(10 + 2)  # by clients, and by each node by itself
            upstream.gate.set()
            await answers
        with here.node(**NOT_SOON) as node:
            assert node.sums()["cost_microusd"] == 5 * COST
        assert await here.due() == []
    counted = [record.id for node in (one, other) for record in node.counted]
    assert sorted(counted) == sorted(f"late_{each}" for each in made_ids)


@pytest.mark.parametrize("has_redis", [False, True], ids=["memory", "redis"])
async def test_what_a_gateway_that_is_gone_has_made_the_next_one_asks_for_and_settles(
    tmp_path: Path, store_url: URL, *, has_redis: bool
) -> None:
    upstream = Upstream((200, {**QUEUED, "status": "in_progress"}))
    async with world(tmp_path, upstream, store_url) as here:
        here.sections = {"redis": {"url": shared_server("redis").url}} if has_redis else {}
        with here.node(**SOON) as node:
            key = key_of(node)
            response_id = await node.make(key["secret"])
            await upstream.asked(2)
        assert await here.due() == [response_id]
        upstream.answers = [(200, FINISHED)]
        with here.node(**SOON) as node:
            await node.heard()
            left = node.left(key)
            assert node.sums()["cost_microusd"] == COST
    assert left["key/budget"] == left["team/budget"] == BUDGET - COST


async def test_another_node_asks_for_what_one_that_is_gone_has_made(tmp_path: Path, store_url: URL) -> None:
    upstream = Upstream((200, QUEUED))
    async with world(tmp_path, upstream, store_url) as here:
        with here.node(**SOON) as other:
            key = key_of(other)
            with here.node(**SOON) as one:
                response_id = await one.make(key["secret"])
                await upstream.asked(2)
            upstream.answers = [(200, FINISHED)]
            assert (await other.heard()).id == f"late_{response_id}"
            assert other.sums()["cost_microusd"] == COST


async def test_the_team_of_a_key_that_was_revoked_meanwhile_pays(tmp_path: Path) -> None:
    upstream = Upstream((200, QUEUED))
    async with world(tmp_path, upstream) as here:
        with here.node(**SOON) as node:
            key = key_of(node)
            await node.make(key["secret"])
            assert node.admin.post(f"/keys/{key['id']}/revoke", {}).status_code < 300
            upstream.answers = [(200, FINISHED)]
            late = await node.heard()
            assert node.sums()["cost_microusd"] == COST
            spent = node.admin.get("/limits", team=key["team_id"]).json()["data"]
    assert late.principal is not None
    assert (late.principal.key, late.principal.team) == ("ada", "engines")
    assert {it["remaining"] for it in spent if it["dimension"] == "budget"} == {BUDGET - COST}


async def test_nobody_is_asked_where_settings_say_so_and_what_is_due_stays(tmp_path: Path) -> None:
    upstream = Upstream()
    async with world(tmp_path, upstream) as here:
        with here.node(ask_due_after_s=0) as node:
            response_id = await node.make(key_of(node)["secret"])
        assert await here.due() == [response_id]
        assert upstream.requests == []
        with here.node(**SOON) as node:  # it was due at once
            assert (await node.heard()).id == f"late_{response_id}"


@pytest.mark.parametrize("status", [404, 410])
async def test_what_upstream_does_not_know_any_more_is_unknown(tmp_path: Path, status: int) -> None:
    upstream = Upstream((status, {"error": {"message": "gone"}}))
    async with world(tmp_path, upstream) as here:
        with here.node(**SOON) as node:
            key = key_of(node)
            await node.make(key["secret"])
            before = node.left(key)
            await here.grow_older(KNOWN_AFTER_S)
            await node.heard()
            sums, left = node.sums(), node.left(key)
        assert (sums["calls"], sums["unknown_calls"], sums["cost_microusd"]) == (1, 1, 0)
        assert left["key/budget"] == before["key/budget"] < BUDGET  # what was reserved stands
        rows = await here.usage()
        assert await here.due() == []
    assert (rows["unknown"]["cost_microusd"], rows["unknown"]["input_tokens"]) == (None, None)
    assert rows["unknown"]["model"] == "m"


@pytest.mark.parametrize("status", [404, 410])
async def test_what_upstream_does_not_know_at_first_is_asked_for_again(tmp_path: Path, status: int) -> None:
    unknown = status, {"error": {"message": "not here yet"}}
    upstream = Upstream(b"", unknown)
    async with world(tmp_path, upstream) as here:
        with here.node(**SOON) as node:
            await node.make(key_of(node)["secret"])
            await upstream.asked(4)
            await asyncio.to_thread(write_ledger, node.gateway)
            upstream.answers = [(200, FINISHED)]
            assert (await node.heard()).cost_microusd == COST
            assert node.sums()["unknown_calls"] == 0


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_what_ended_without_usage_is_unknown(tmp_path: Path, status: str) -> None:
    async with world(tmp_path, Upstream((200, {**QUEUED, "status": status}))) as here:
        with here.node(**SOON) as node:
            await node.make(key_of(node)["secret"])
            await node.heard()
            assert node.sums()["unknown_calls"] == 1


@pytest.mark.parametrize("has_redis", [False, True], ids=["memory", "redis"])
@pytest.mark.parametrize("heard_by", ["who made it", "who comes after"])
async def test_what_nobody_will_know_costs_what_was_reserved_after_a_restart_too(
    tmp_path: Path, heard_by: str, *, has_redis: bool
) -> None:
    ended = 200, {**QUEUED, "status": "failed"}
    async with world(tmp_path, Upstream(ended)) as here:
        here.sections = {"redis": {"url": shared_server("redis").url}} if has_redis else {}
        with here.node(**(SOON if heard_by == "who made it" else {"ask_due_after_s": 0})) as node:
            key = key_of(node)
            await node.make(key["secret"])
            reserved = node.left(key)
            if heard_by == "who made it":
                await node.heard()
                assert node.left(key)["key/budget"] == reserved["key/budget"]
        with here.node(**SOON) as node:
            if heard_by == "who comes after":
                await node.heard()
            left = node.left(key)
    assert left["key/budget"] == left["team/budget"] == reserved["key/budget"] < BUDGET
    assert set((await spent(here.url)).values()) == {BUDGET - left["key/budget"]}


async def test_what_nobody_will_know_of_a_model_without_a_price_draws_on_no_budget(tmp_path: Path) -> None:
    async with world(tmp_path, Upstream((200, {**QUEUED, "model": "other", "status": "failed"}))) as here:
        with here.node(**SOON) as node:
            key = key_of(node)
            await node.make(key["secret"], "other")
            await node.heard()
            left = node.left(key)
        assert await spent(here.url) == {}
    assert left["key/budget"] == left["team/budget"] == BUDGET


async def test_an_upstream_that_is_away_for_a_while_is_asked_again(tmp_path: Path) -> None:
    upstream = Upstream(
        b"", (503, {}), (200, {"no": "response"}), (200, {**QUEUED, "status": "queued"}), (200, FINISHED)
    )
    async with world(tmp_path, upstream) as here:
        with here.node(**SOON) as node:
            await node.make(key_of(node)["secret"])
            assert (await node.heard()).cost_microusd == COST
    assert len(upstream.requests) >= 5
