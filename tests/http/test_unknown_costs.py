"""What budgets count of calls of which nobody knows the cost: what was reserved for them, for good."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.accounts import spent
from tests.faults.face import Answer, ask, request
from tests.http.admin_server import Client, made
from tests.limits.household import new_id
from tests.limits.servers import shared_server
from tests.relay.test_strict_form import END, FILE, MODEL, SOUND, TYPE
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.stores import fresh_sqlite_url
from tests.support.wire import Script, WireUpstream, reply, reset

BUDGET = 20_000
PRICES = """
unit: microusd_per_million_tokens
models:
  whisper: {looked_up: 2026-11-22, input: 1_000_000, output: 1_000_000}
  free: {looked_up: 2026-11-22, input: 0, output: 0}
"""
SPEECH = "/v1/audio/transcriptions"
JSON, PLAIN = [(b"content-type", b"application/json")], [(b"content-type", b"text/plain")]
SILENT = reply(200, PLAIN, b"Hi")
AN_HOUR = reply(200, JSON, json.dumps({"text": "Hi", "usage": {"type": "duration", "seconds": 3600}}).encode())
USAGE = {"input_tokens": 300, "output_tokens": 300, "total_tokens": 600}
TOLD = reply(200, JSON, json.dumps({"text": "Hi", "usage": USAGE}).encode())
FAILED = reply(500, JSON, b'{"error": {"message": "broken"}}')


class Node:
    """A gateway, and who administers it."""

    def __init__(self, gateway: RunningGateway, admin_secret: str | None) -> None:
        self.gateway = gateway
        self.admin_secret = gateway.admin_secret or admin_secret
        self.admin = Client(gateway.url, self.admin_secret)

    def key(self, **members: Any) -> dict[str, Any]:
        """A key of a team, each with a budget."""
        team, budgets = f"team-{new_id()}", {"budgets": {"total_microusd": BUDGET}}
        made(self.admin.post("/teams", {"name": team, **budgets}))
        return made(self.admin.post("/keys", {"team": team, "name": "ada", **budgets, **members}))

    async def form(self, key: dict[str, Any], model: str = "whisper") -> Answer:
        headers = [("Authorization", f"Bearer {key['secret']}"), ("Content-Type", TYPE.decode())]
        body = FILE + MODEL.replace(b"whisper", model.encode()) + END
        return await ask(self.gateway.port, request("POST", SPEECH, body, headers))

    def left(self, key: dict[str, Any]) -> dict[str, int]:
        """Of each budget, by the id of its rule."""
        told = self.admin.get("/limits", key=key["id"]).json()["data"]
        return {it["id"]: it["remaining"] for it in told if it["dimension"] == "budget"}


class World:
    """One upstream and one database, on which gateways start and stop."""

    def __init__(self, folder: Path, upstream: WireUpstream) -> None:
        (folder / "prices.yaml").write_text(PRICES)
        self.upstream = upstream
        self.database = fresh_sqlite_url(folder)
        self.sections: dict[str, Any] = {
            "keys": [],
            "prices": {"file": str(folder / "prices.yaml")},
            "database": {"url": self.database.render_as_string(hide_password=False)},
        }
        self._secret: str | None = None

    @contextmanager
    def node(self, **sections: Any) -> Iterator[Node]:
        with running_gateway(f"{self.upstream.url}/v1", **self.sections, **sections) as gateway:
            node = Node(gateway, self._secret)
            self._secret = node.admin_secret
            yield node
            node.admin.close()


@asynccontextmanager
async def world(folder: Path, *scripts: Script) -> AsyncIterator[World]:
    async with WireUpstream(*scripts) as upstream:
        yield World(folder, upstream)


def counted_in(where: str) -> dict[str, Any]:
    """The sections of settings for limits that are counted in memory or in Redis."""
    return {"redis": {"url": shared_server("redis").url}} if where == "redis" else {}


async def break_off(reader: Any, writer: Any, asked: Any) -> None:
    del reader, asked
    reset(writer)


async def test_a_budget_that_calls_without_usage_have_spent_stays_so_after_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path, SILENT) as here:
        with here.node() as node:
            key = node.key()
            while (answer := await node.form(key)).status == 200:
                pass
            assert answer.error["code"] == "insufficient_quota"
            left = node.left(key)
        sent = len(here.upstream.requests)
        with here.node() as node:
            refused = await node.form(key)
            assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
            assert node.left(key) == left
    assert 10 < sent == len(here.upstream.requests)


WAYS: dict[str, tuple[Script, str]] = {
    "it tells what it used": (TOLD, "whisper"),
    "it tells nothing": (SILENT, "whisper"),
    "it tells what has no price": (AN_HOUR, "whisper"),
    "it fails": (FAILED, "whisper"),
    "it is broken off": (break_off, "whisper"),
    "it costs nothing": (SILENT, "free"),
    "it has no price and tells nothing": (SILENT, "other"),
    "it has no price": (TOLD, "other"),
}


@pytest.mark.parametrize("where", ["memory", "redis"])
@pytest.mark.parametrize("shadow", [[], ["team/budget"]], ids=["all bind", "one only counts"])
async def test_however_calls_end_the_database_has_spent_what_limits_count(
    tmp_path: Path, where: str, shadow: list[str]
) -> None:
    async with world(tmp_path) as here:
        with here.node(**counted_in(where), limits={"shadow": shadow}) as node:
            key = node.key()
            for script, model in WAYS.values():
                here.upstream.scripts = [script]
                await node.form(key, model)
            left = node.left(key)
        stored = await spent(here.database)
    assert len(left) == 2
    assert len(set(left.values())) == 1
    assert {rule_id: BUDGET - amount for rule_id, amount in left.items()} == stored


@pytest.mark.parametrize(("script", "model"), WAYS.values(), ids=WAYS)
async def test_a_call_costs_budgets_what_it_cost_or_else_what_was_reserved_and_without_a_price_nothing(
    tmp_path: Path, script: Script, model: str
) -> None:
    async with world(tmp_path) as here:
        with here.node() as node:
            key = node.key()
            here.upstream.scripts = [script]
            await node.form(key, model)
            (record,) = await node.gateway.recorded(1)
            left = set(node.left(key).values())
        stored = set((await spent(here.database)).values())
    if record.cost_microusd is None and model == "whisper":
        reserved = (len(SOUND) + len("whisper")) // 4 + 1 + 1_001
        assert (left, stored) == ({BUDGET - reserved}, {reserved}), "a form's bytes, and 1,000 tokens of output"
    else:
        assert left == {BUDGET - (record.cost_microusd or 0)}
        assert stored == ({record.cost_microusd} if record.cost_microusd else set())


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_calls_without_usage_that_end_after_a_reset_count_in_full(tmp_path: Path, where: str) -> None:
    async with world(tmp_path) as here:
        with here.node(**counted_in(where)) as node:
            key = node.key()

            async def reset_first(_: Any, writer: Any, __: Any) -> None:
                for whose in ({"key": key["id"]}, {"team": key["team_id"]}):
                    told = await asyncio.to_thread(node.admin.post, "/limits/reset", {**whose, "dimension": "budget"})
                    assert told.status_code == 200
                writer.write(SILENT)

            here.upstream.scripts = [SILENT]
            await node.form(key)
            first = node.left(key)
            here.upstream.scripts = [reset_first]
            await node.form(key)
            assert node.left(key) == first
        assert await spent(here.database) == {rule_id: BUDGET - amount for rule_id, amount in first.items()}


@pytest.mark.parametrize("unpriced", ["admit", "refuse"])
async def test_time_without_a_price_for_it_does_not_go_past_a_budget(tmp_path: Path, unpriced: str) -> None:
    async with world(tmp_path, AN_HOUR) as here:
        with here.node(limits={"unpriced": unpriced}) as node:
            key = node.key()
            answers = [await node.form(key) for _ in range(25)]
            records = await node.gateway.recorded(25)
    assert {answer.status for answer in answers} == {200, 429}
    assert (answers[0].status, answers[-1].error["code"]) == (200, "insufficient_quota")
    assert (records[0].usage_source, records[0].cost_microusd) == ("reported", None)
