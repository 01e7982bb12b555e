"""What calls are found under: their clients' tags, and those of their keys."""

import asyncio
import json
from typing import Any

import pytest

from gateway.simulator import running_simulator
from tests.faults.face import AUTHORIZATION, CHAT, ask, connected, post, request
from tests.http.admin_server import Client, made
from tests.support.gateway import UPSTREAM_KEY, running_gateway, write_ledger
from tests.support.wire import WireUpstream, reply

OK = reply(200, [(b"content-type", b"application/json")], b'{"id":"x"}')
JSON_TYPE = ("Content-Type", "application/json")
BODY = {"model": "m", "messages": [], "metadata": {"step": "2", "team": "no"}, "user": "ann"}


async def test_a_call_bears_the_tags_of_its_header_which_stays_here() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                for _ in range(3):  # also where the head has come before
                    client.send(post(CHAT, BODY, [("X-Gateway-Tags", "feature=search, step=1")]))
                    assert (await client.answer()).status == 200
            await ask(gateway.port, request("GET", "/v1/models"))
            records = await gateway.recorded(4)
    assert [record.tags for record in records] == [{"feature": "search", "step": "1"}] * 3 + [{}]
    assert upstream.requests[0].header(b"x-gateway-tags") is None


@pytest.mark.parametrize("headers", [[("X-Gateway-Tags", "a")], [("X-Gateway-Tags", "a=1"), ("x-gateway-tags", "b=2")]])
async def test_tags_that_cannot_be_read_are_400_and_nothing_is_sent(headers: list[tuple[str, str]]) -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            answer = await ask(gateway.port, request("GET", "/v1/models", headers=[AUTHORIZATION, *headers]))
            stranger = await ask(gateway.port, request("GET", "/v1/models", headers=headers))
            records = await gateway.recorded(2)
    assert (answer.status, stranger.status) == (400, 401)
    assert "x-gateway-tags" in answer.error["message"]
    assert not upstream.requests
    # The refusal is in the ledger, as one of whoever made the call.
    assert [record.principal and record.principal.key for record in records] == ["ada", None]


async def test_tags_are_taken_from_the_body_only_where_settings_say_so() -> None:
    found: list[Any] = []
    async with WireUpstream(OK) as upstream:
        for allowed in (False, True):
            with running_gateway(f"{upstream.url}/v1", access={"tags_from_body": allowed}) as gateway:
                await ask(gateway.port, post(CHAT, BODY, [("X-Gateway-Tags", "step=1")]))
                found += [record.tags for record in await gateway.recorded(1)]
    assert found == [{"step": "1"}, {"step": "1", "team": "no", "user": "ann"}]
    assert [json.loads(request.body) for request in upstream.requests] == [BODY] * 2


async def test_a_keys_own_tags_are_on_each_of_its_calls_whatever_its_client_says() -> None:
    with running_simulator(api_key=UPSTREAM_KEY) as base_url, running_gateway(base_url, keys=[]) as gateway:
        admin = Client(gateway.url, gateway.admin_secret)
        team = made(admin.post("/teams", {"name": "core"}))
        tags = {"project": "apollo", "long": "x" * 250}
        key = made(admin.post("/keys", {"team": team["id"], "name": "ada", "tags": tags}))
        headers = [("Authorization", f"Bearer {key['secret']}"), ("X-Gateway-Tags", "project=mine,a=1")]
        await ask(gateway.port, request("GET", "/v1/models", headers=headers))
        record = (await gateway.recorded(1))[0]
        admin.close()
    assert record.tags == {"project": "apollo", "a": "1"}


@pytest.mark.parametrize("headers", [[], [("X-Gateway-Tags", ",".join(f"h{number}=1" for number in range(10)))]])
async def test_however_many_tags_its_client_sends_a_call_is_found_under_all_of_its_keys_own(
    headers: list[tuple[str, str]],
) -> None:
    own = {f"k{number:02}": "own" for number in range(32)}
    body = {"model": "m", "messages": [], "metadata": {f"b{number}": "1" for number in range(9)} | {"k00": "other"}}
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], access={"tags_from_body": True}) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            team = made(admin.post("/teams", {"name": "core"}))
            key = made(admin.post("/keys", {"team": team["id"], "name": "ada", "tags": own}))
            authorization = ("Authorization", f"Bearer {key['secret']}")
            sent = request("POST", CHAT, json.dumps(body).encode(), [authorization, JSON_TYPE, *headers])
            assert (await ask(gateway.port, sent)).status == 200
            await gateway.recorded(1)
            await asyncio.to_thread(write_ledger, gateway)
            found = admin.get("/usage", group_by=",".join(f"tag:{name}" for name in ("k00", "k31"))).json()["data"]
            admin.close()
    assert [row["group"] for row in found] == [{"tags": {"k00": "own", "k31": "own"}}]
