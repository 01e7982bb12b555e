"""Calls that wait for their turn, and go by the terms that their key has when it comes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.face import CHAT, Client, connected, request
from tests.http.admin_server import Client as Admin
from tests.http.admin_server import made
from tests.http.test_late_bodies import a_key, administering, looked_at
from tests.http.test_unknown_costs import PRICES, counted_in
from tests.relay.test_strict_form import END, FILE, MODEL, TYPE
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.wire import Stall, WireUpstream, reply

OK = reply(200, [(b"Content-Type", b"application/json")], b'{"ok": true}')
TOOLS = b'{"model": "m", "tools": [{"type": "image_generation", "model": "painter"}]}'
FORM = FILE + MODEL + END
CALLS: dict[str, tuple[str, bytes, str]] = {
    "json": (CHAT, b'{"model": "m"}', "application/json"),
    "its tools": ("/v1/responses", TOOLS, "application/json"),
    "form": ("/v1/audio/transcriptions", FORM, TYPE.decode()),
}


class Line:
    """A key of which one call is upstream, and stays there."""

    def __init__(self, gateway: RunningGateway, upstream: WireUpstream, admin: Admin, key: dict[str, Any]) -> None:
        self.gateway, self.upstream, self.admin, self.key = gateway, upstream, admin, key

    def call(self, path: str, body: bytes, content_type: str) -> bytes:
        headers = [("Authorization", f"Bearer {self.key['secret']}"), ("Content-Type", content_type)]
        return request("POST", path, body, headers)

    async def wait(self, client: Client, what: str = "json", body: bytes | None = None) -> None:
        """Send a call that waits; on return it does."""
        waiting = self.waiting
        path, usual, content_type = CALLS[what]
        client.send(self.call(path, body or usual, content_type))
        async with asyncio.timeout(5):
            while self.waiting == waiting:
                await asyncio.to_thread(self.gateway.ask, lambda: None)

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self.gateway.ask(lambda: self.gateway.app.proxy._allowance.room.waiting)

    async def change(self, members: Mapping[str, Any], whose: str = "key") -> None:
        """Change the key, or its team."""
        path = f"/keys/{self.key['id']}" if whose == "key" else f"/teams/{self.key['team_id']}"
        changed = await asyncio.to_thread(self.admin.patch, path, members)
        assert changed.status_code == 200, changed.text

    async def looked_through(self) -> None:
        """Return when all that wait do so by what their keys have now."""
        for _ in range(2):  # the first may have begun before
            assert await asyncio.to_thread(looked_at(self.gateway).wait, 5)


@asynccontextmanager
async def a_line(
    section: Mapping[str, Any] | None = None,
    *,
    where: str = "memory",
    more: Mapping[str, Any] | None = None,
    **terms: Any,
) -> AsyncIterator[tuple[Line, Client]]:
    sections = {**counted_in(where), "server": {"drain_s": 0.2}, **(more or {})}
    async with WireUpstream([Stall()], OK) as upstream:
        with (
            running_gateway(f"{upstream.url}/v1", keys=[], upstream=section or {}, **sections) as gateway,
            administering(gateway) as admin,
        ):
            made(admin.post("/teams", {"name": "engines"}))
            terms["limits"] = {"parallel": 1, "max_wait_s": 60, **terms.get("limits", {})}
            line = Line(gateway, upstream, admin, a_key(admin, **terms))
            async with connected(gateway.port) as running:
                running.send(line.call(*CALLS["json"]))
                await upstream.received(1)
                yield line, running


WHERE = pytest.mark.parametrize("where", ["memory", "redis"])


@WHERE
async def test_a_limit_that_is_raised_lets_those_go_that_wait_for_it(where: str) -> None:
    async with (
        a_line(where=where) as (line, _),
        connected(line.gateway.port) as two,
        connected(line.gateway.port) as three,
    ):
        await line.wait(two)
        await line.wait(three)
        await line.change({"limits": {"parallel": 3}})
        assert [(await client.answer(within_s=2)).status for client in (two, three)] == [200, 200]


async def test_those_that_may_not_wait_any_more_are_refused() -> None:
    async with a_line() as (line, running), connected(line.gateway.port) as two:
        await line.wait(two)
        await line.change({"limits": {"max_wait_s": 0}})
        refused = await two.answer(within_s=2)
        running.leave()
        await line.gateway.recorded(2)
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert len(line.upstream.requests) == 1


@WHERE
async def test_a_key_without_limits_any_more_keeps_nobody_waiting(where: str) -> None:
    async with a_line(where=where) as (line, _), connected(line.gateway.port) as two:
        await line.wait(two)
        await line.change({"limits": {"parallel": None, "max_wait_s": None}})
        assert (await two.answer(within_s=2)).status == 200


NARROWED: dict[str, tuple[str, dict[str, Any]]] = {
    "models": ("json", {"grants": {"models": ["other"]}}),
    "models of tools": ("its tools", {"grants": {"models": ["m"]}}),
    "models of forms": ("form", {"grants": {"models": ["other"]}}),
    "all models of forms": ("form", {"grants": {"models": ["*"], "routes": ["chat"]}}),
    "routes": ("json", {"grants": {"routes": ["embeddings"]}}),
    "networks": ("json", {"grants": {"networks": ["10.0.0.0/8"]}}),
}


@pytest.mark.parametrize("budgets", [{}, {"total_microusd": 1_000_000_000}], ids=["no budget", "a budget"])
@pytest.mark.parametrize("narrowed", NARROWED)
async def test_what_is_not_granted_any_more_is_refused_to_those_that_wait(
    narrowed: str, budgets: dict[str, int]
) -> None:
    what, change = NARROWED[narrowed]
    async with a_line(budgets=budgets) as (line, running), connected(line.gateway.port) as two:
        await line.wait(two, what)
        await line.change(change)
        running.leave()
        refused = await two.answer()
        await line.gateway.recorded(2)
    assert refused.status == 403
    assert len(line.upstream.requests) == 1


COME_BY_MODEL: dict[str, tuple[str, dict[str, Any]]] = {
    "a budget": ("key", {"budgets": {"total_microusd": 1_000_000}}),
    "a budget of the team": ("team", {"budgets": {"day_microusd": 1_000_000}}),
    "a limit of its model": ("team", {"model_limits": {"whisper": {"requests_per_day": 1}}}),
    "a limit of another model": ("team", {"model_limits": {"other": {"requests_per_day": 1}}}),
}


@pytest.mark.parametrize("unpriced", ["admit", "refuse"])
@pytest.mark.parametrize("come", COME_BY_MODEL)
async def test_a_form_that_was_not_read_is_to_be_sent_again_where_its_model_matters_by_the_time_of_its_turn(
    tmp_path: Path, come: str, unpriced: str
) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    more = {"prices": {"file": str(tmp_path / "prices.yaml")}, "limits": {"unpriced": unpriced}}
    whose, change = COME_BY_MODEL[come]
    async with a_line(more=more) as (line, running), connected(line.gateway.port) as two:
        await line.wait(two, "form")
        await line.change(change, whose)
        await line.looked_through()
        running.leave()
        refused = await two.answer()
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert (refused.header("retry-after"), refused.header("x-should-retry")) == ("1", None)
        assert "Send it again" in refused.error["message"]
        assert len(line.upstream.requests) == 1
        told = (await asyncio.to_thread(line.admin.get, "/limits", key=line.key["id"])).json()["data"]
        assert all(each["remaining"] == each["limit"] for each in told), "it has cost nothing"
        two.send(line.call(*CALLS["form"]))
        assert (await two.answer()).status == 200, "it is read now"
    assert line.upstream.requests[1].body == FORM


async def test_a_form_goes_on_waiting_where_its_model_does_not_matter_or_is_known() -> None:
    for budgets, change in (
        ({}, {"limits": {"tokens_per_day": 1_000_000}}),
        ({"total_microusd": 1_000_000_000}, {"budgets": {"total_microusd": 2_000_000_000}}),
    ):
        async with a_line(budgets=budgets) as (line, running), connected(line.gateway.port) as two:
            await line.wait(two, "form")
            await line.change(change)
            await line.looked_through()
            running.leave()
            assert (await two.answer()).status == 200


async def test_those_that_wait_keep_their_place_when_their_limits_change() -> None:
    bodies = [b'{"model": "m", "user": "%d"}' % number for number in range(6)]
    async with a_line() as (line, running), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(line.gateway.port)) for _ in bodies]
        for client, body in zip(clients[:3], bodies[:3], strict=True):
            await line.wait(client, body=body)
        looked = looked_at(line.gateway)
        assert await asyncio.to_thread(looked.wait, 5)  # the next look is a quarter of a second away
        await line.change({"limits": {"tokens_per_day": 1_000_000}})
        for client, body in zip(clients[3:], bodies[3:], strict=True):
            await line.wait(client, body=body)
        running.leave()
        assert [(await client.answer()).status for client in clients] == [200] * 6
    assert [each.body for each in line.upstream.requests[1:]] == bodies


async def test_however_often_its_limits_change_a_call_waits_no_longer_than_it_may() -> None:
    async with a_line(limits={"max_wait_s": 2}) as (line, _), connected(line.gateway.port) as two:
        await line.wait(two)
        answer = asyncio.create_task(two.answer())
        number = 0
        while not answer.done():
            number += 1
            await line.change({"limits": {"tokens_per_day": 1_000_000 + number}})
        assert answer.result().status == 429
        assert float(answer.result().header("x-gateway-queue-ms") or "0") < 3_500


@pytest.mark.parametrize("what", ["json", "form"])
async def test_who_leaves_the_line_is_not_sent_upstream_though_calls_are_drained(what: str) -> None:
    async with a_line({"on_client_disconnect": "drain"}) as (line, _):
        async with connected(line.gateway.port) as two:
            await line.wait(two, what)
            two.leave()
            (record,) = await line.gateway.recorded(1)
        assert line.waiting == 0
    assert (record.outcome, record.usage_source) == ("client_left", "none")
    assert len(line.upstream.requests) == 1
