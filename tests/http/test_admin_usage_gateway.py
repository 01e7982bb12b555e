"""A gateway that runs tells of the calls that went through it."""

import asyncio
import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.metering.ledger import Ledger
from gateway.simulator import running_simulator
from tests.faults.face import CHAT, Answer, ask, metric, post
from tests.http.admin_server import Client
from tests.support.gateway import KEY, UPSTREAM_KEY, RunningGateway, running_gateway

MODEL = "openai/gpt-5.2"
PRICES = f"""
unit: microusd_per_million_tokens
models: {{{MODEL}: {{looked_up: 2026-11-22, input: 1_000_000, output: 1_000_000}}}}
"""
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[RunningGateway]:
    (tmp_path / "prices.yaml").write_text(PRICES)
    prices = {"file": str(tmp_path / "prices.yaml")}
    with running_simulator(api_key=UPSTREAM_KEY) as base_url, running_gateway(base_url, prices=prices) as running:
        yield running


async def called(gateway: RunningGateway, *bodies: dict[str, object]) -> list[Answer]:
    """The answers to these calls, once the ledger has all of them in the database."""
    answers = [
        await ask(gateway.port, post(CHAT, body, [("X-Gateway-Tags", f"number={number}")]))
        for number, body in enumerate(bodies)
    ]
    await gateway.recorded(len(bodies))
    owners = (getattr(observe, "__self__", None) for observe in gateway.app.proxy.settlement._observers)
    ledger = next(owner for owner in owners if isinstance(owner, Ledger))
    assert gateway.loop is not None
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ledger.drain(), gateway.loop))
    return answers


async def test_what_replies_told_of_their_calls_is_what_the_ledger_answers(gateway: RunningGateway) -> None:
    plain, stream, unpriced, refused = await called(
        gateway, BODY, {**BODY, "stream": True}, {**BODY, "model": "simulated"}, {**BODY, "messages": 1, "model": 2}
    )
    admin, ada = Client(gateway.url, gateway.admin_secret), Client(gateway.url, KEY)
    records = {record.id: record for record in gateway.records}
    for answer in (plain, stream, unpriced, refused):
        call_id = answer.header("x-gateway-request-id") or ""
        told, record = admin.get(f"/calls/{call_id}").json(), records[call_id]
        assert (told["status"], told["outcome"], told["streamed"]) == (answer.status, record.outcome, record.streamed)
        assert (told["team"], told["key"], told["cost_microusd"]) == ("engines", "ada", record.cost_microusd)
        assert told["duration_us"] >= (told["first_byte_us"] or 0)
    costs = [record.cost_microusd or 0 for record in records.values()]
    used = [record.usage.total_tokens for record in records.values() if record.usage is not None]
    row = admin.get("/usage", group_by="team,key").json()["data"][0]
    assert (row["group"]["team"], row["group"]["key"], row["calls"]) == ("engines", "ada", 4)
    assert (row["cost_microusd"], row["total_tokens"]) == (sum(costs), sum(used))
    assert (row["unpriced_calls"], row["refused_calls"]) == (1, 1)
    output = sum(record.usage.output_tokens for record in records.values() if record.usage and record.cost_microusd)
    by_kind = {"input": sum(costs) - output, "output": output}
    for kind, microusd in by_kind.items():
        assert round(await metric(gateway, "cost_usd_total", team="engines", model=MODEL, kind=kind) * 1e6) == microusd
    own = ada.get("/me/usage", group_by="tag:number", format="csv").text
    assert [line["calls"] for line in csv.DictReader(io.StringIO(own))] == ["1"] * 4
    admin.close()
    ada.close()


async def test_a_call_over_a_limit_tells_which_limit_that_was() -> None:
    limits = {"each_key": {"requests_per_hour": 1}}
    with running_simulator(api_key=UPSTREAM_KEY) as url, running_gateway(url, limits=limits) as gateway:
        answers = await called(gateway, BODY, BODY)
        admin, ada = Client(gateway.url, gateway.admin_secret), Client(gateway.url, KEY)
        for client, path in ((admin, "/calls"), (ada, "/me/calls")):
            told = {call["id"]: (call["error"], call["refused_by"]) for call in client.get(path).json()["data"]}
            assert [told[answer.header("x-gateway-request-id") or ""] for answer in answers] == [
                (None, None),
                ("rate_limit_exceeded", "key/requests/hour"),
            ]
            client.close()
