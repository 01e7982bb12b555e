"""Responses that are made in the background are counted once, whoever asks for them, how often, and on which node."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from gateway.call import CallRecord, Usage
from gateway.metering.late import LateRecords
from gateway.simulator import running_simulator
from gateway.store.engine import Store
from gateway.store.tables import calls
from tests.faults.face import ask, connected, post, request
from tests.support.gateway import UPSTREAM_KEY, RunningGateway, running_gateway
from tests.support.stores import empty_sqlite_url, fresh_sqlite_url
from tests.support.wire import Wait, WireUpstream, reply, sse

KEYS = [{"name": name, "team": "core", "secret": f"sk-of-{name}-0123456789"} for name in ("ada", "bob")]
BODY = {"model": "simulated", "input": "Hello", "background": True}
PRICES = """
unit: microusd_per_million_tokens
models:
  simulated: {looked_up: 2026-11-22, input: 2_000_000, output: 8_000_000}
"""


class Nodes:
    """Two gateways on one database. `counted` is what both have counted late, all of it once both have stopped."""

    def __init__(self, one: RunningGateway, other: RunningGateway) -> None:
        self.one, self.other = one, other
        self.counted: list[CallRecord] = []
        for node in (one, other):
            records = getattr(node.app.proxy.settlement.note_late, "__self__", None)
            assert isinstance(records, LateRecords)
            records.follow(self.counted.append)

    def ask(self, node: RunningGateway, method: str, path: str, *, by: str = "ada", body: object = None) -> str:
        headers = {"Authorization": f"Bearer sk-of-{by}-0123456789"}
        with httpx2.Client(base_url=node.api, timeout=10, trust_env=False) as client:
            reply = client.request(method, path, headers=headers, json=body)
        assert reply.status_code == 200, reply.text
        return reply.text


@contextmanager
def two_nodes(folder: Path) -> Iterator[Nodes]:
    prices = folder / "prices.yaml"
    prices.write_text(PRICES)
    url = f"sqlite:///{fresh_sqlite_url(folder).database}"
    sections: dict[str, Any] = {"keys": KEYS, "database": {"url": url}, "prices": {"file": str(prices)}}
    with (
        running_simulator(api_key=UPSTREAM_KEY) as upstream,
        running_gateway(upstream, **sections) as one,
        running_gateway(upstream, **sections) as other,
    ):
        yield Nodes(one, other)


async def ledger(folder: Path) -> list[Any]:
    """What the ledger has of calls that used something, or will have."""
    store = Store(empty_sqlite_url(folder))
    try:
        async with store.reading() as connection:
            found = await connection.execute(select(calls).where(calls.c.usage_source != "none"))
            return list(found.mappings())
    finally:
        await store.close()


def reported(text: str) -> Usage:
    usage = json.loads(text)["usage"]
    return Usage(usage["input_tokens"], usage["output_tokens"], usage["total_tokens"])


async def test_a_response_that_is_polled_often_and_everywhere_is_counted_once(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as nodes:
        made = json.loads(nodes.ask(nodes.one, "POST", "/responses", body=BODY))
        assert (made["status"], made["usage"]) == ("queued", None)
        path = f"/responses/{made['id']}"
        polled = [nodes.ask(node, "GET", path, by=by) for node in (nodes.other, nodes.one) * 2 for by in ("bob", "ada")]
        resumed = nodes.ask(nodes.one, "GET", f"{path}?stream=true&starting_after=2")
        assert "response.completed" in resumed
        records = nodes.one.wait_for_records(6)
    usage = reported(polled[0])
    assert [(record.usage_source, record.usage) for record in nodes.counted] == [("reported", usage)]
    rows = await ledger(tmp_path)
    assert sorted(row["usage_source"] for row in rows) == ["due", "reported"]
    due, late = sorted(rows, key=lambda row: str(row["usage_source"]))
    assert (late["id"], late["input_tokens"], late["output_tokens"]) == (
        f"late_{made['id']}",
        usage.input_tokens,
        usage.output_tokens,
    )
    assert late["cost_microusd"] == 2 * usage.input_tokens + 8 * usage.output_tokens
    assert (late["route"], late["model"], late["key_id"]) == ("/v1/responses", "simulated", due["key_id"])
    assert due["cost_microusd"] == 0
    assert [record.usage_source for record in records] == ["due"] + ["none"] * 5


async def test_a_stream_in_the_background_is_counted_by_whoever_sees_its_end_and_once(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as nodes:
        streamed = nodes.ask(nodes.one, "POST", "/responses", body={**BODY, "stream": True})
        last = json.loads(streamed.rstrip().rsplit("data: ", 1)[1])["response"]
        nodes.ask(nodes.other, "GET", f"/responses/{last['id']}")
        nodes.ask(nodes.other, "GET", f"/responses/{last['id']}?stream=true")
    assert [record.usage for record in nodes.counted] == [reported(json.dumps(last))]
    assert sorted(row["usage_source"] for row in await ledger(tmp_path)) == ["due", "reported"]


@pytest.mark.parametrize("other", [{"background": False}, {"background": None}])
async def test_to_read_any_other_response_again_counts_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    with two_nodes(tmp_path) as nodes:
        made = json.loads(nodes.ask(nodes.one, "POST", "/responses", body={**BODY, **other}))
        for node in (nodes.one, nodes.other):
            nodes.ask(node, "GET", f"/responses/{made['id']}")
    assert nodes.counted == []
    assert [row["usage_source"] for row in await ledger(tmp_path)] == ["reported"]


TEXT = {"type": "response.output_text.delta", "delta": "all of it"}
MADE = {"id": "resp_1", "object": "response", "status": "queued", "background": True, "model": "m", "usage": None}
FINISHED = {**MADE, "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}}
JSON = [(b"content-type", b"application/json")]


@pytest.mark.parametrize("said", [True, "true", 1, "1", "yes", 1.0, {}])
async def test_what_some_server_may_read_as_in_the_background_is_waited_for(said: object) -> None:
    counted: list[CallRecord] = []
    async with WireUpstream(*(reply(200, JSON, json.dumps(each).encode()) for each in (MADE, FINISHED))) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            records = getattr(gateway.app.proxy.settlement.note_late, "__self__", None)
            assert isinstance(records, LateRecords)
            records.follow(counted.append)
            await ask(gateway.port, post("/v1/responses", {**BODY, "background": said}))
            await ask(gateway.port, request("GET", "/v1/responses/resp_1"))
            record = (await gateway.recorded(2))[0]
    assert (record.usage_source, record.usage) == ("due", None)
    assert [(each.id, each.usage) for each in counted] == [("late_resp_1", Usage(3, 4, 7))]


@pytest.mark.parametrize("said", [False, None, "true", "false", 0])
async def test_what_upstream_has_answered_at_once_is_counted_at_once(said: object) -> None:
    finished = reply(200, JSON, json.dumps({**FINISHED, "background": False}).encode())
    async with WireUpstream(finished) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            await ask(gateway.port, post("/v1/responses", {**BODY, "background": said}))
            record = (await gateway.recorded(1))[0]
    assert (record.usage_source, record.usage) == ("reported", Usage(3, 4, 7))


EVENTS = [(b"content-type", b"text/event-stream")]
ENDED = b"data: " + json.dumps({"type": "response.completed", "response": FINISHED}).encode() + b"\n\n"
GZIP = (b"content-encoding", b"gzip")


@pytest.mark.parametrize(("head", "text"), [(JSON, json.dumps(FINISHED).encode()), (EVENTS, ENDED)])
async def test_what_upstream_compresses_though_it_is_asked_for_identity_is_read_too(
    head: list[tuple[bytes, bytes]], text: bytes
) -> None:
    body = gzip.compress(text)
    counted: list[CallRecord] = []
    queued = reply(200, JSON, json.dumps(MADE).encode())
    async with WireUpstream(queued, reply(200, [*head, GZIP], body)) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            records = getattr(gateway.app.proxy.settlement.note_late, "__self__", None)
            assert isinstance(records, LateRecords)
            records.follow(counted.append)
            await ask(gateway.port, post("/v1/responses", BODY))
            answer = await ask(gateway.port, request("GET", "/v1/responses/resp_1"))
    assert (answer.status, answer.body) == (200, body)
    assert [(record.id, record.usage) for record in counted] == [("late_resp_1", Usage(3, 4, 7))]


async def test_a_client_that_leaves_before_the_end_of_the_stream_it_asked_for_leaves_nothing_uncounted() -> None:
    rest = asyncio.Event()
    said, finished = (sse([each]) for each in (TEXT, {"type": "response.completed", "response": FINISHED}))
    stream = [*said[:-1], Wait(rest), *finished[1:]]
    queued = reply(200, JSON, json.dumps(MADE).encode())
    counted: list[CallRecord] = []
    async with WireUpstream(queued, stream, queued) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            records = getattr(gateway.app.proxy.settlement.note_late, "__self__", None)
            assert isinstance(records, LateRecords)
            records.follow(counted.append)
            await ask(gateway.port, post("/v1/responses", BODY))
            async with connected(gateway.port) as client:
                client.send(request("GET", "/v1/responses/resp_1?stream=true"))
                await client.head()
                await client.chunk()
                client.leave()
            await ask(gateway.port, request("GET", "/v1/responses/resp_1"))  # by then it is known that the client left
            rest.set()
            left = (await gateway.recorded(3))[-1]
    assert (left.outcome, left.usage_source, left.streamed) == ("client_left", "none", True)
    assert [(record.id, record.usage) for record in counted] == [("late_resp_1", Usage(3, 4, 7))]
