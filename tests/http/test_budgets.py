"""What a client is told at the gateway's face whose call does not fit in what is left of a budget."""

import json
from pathlib import Path

from tests.faults.face import CHAT, ask, request
from tests.http.admin_server import Client, made
from tests.support.gateway import running_gateway
from tests.support.wire import WireUpstream, reply

USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
OK = reply(200, [(b"content-type", b"application/json")], json.dumps({"id": "x", "usage": USAGE}).encode())
PRICES = """
unit: microusd_per_million_tokens
models: {m: {looked_up: 2026-11-22, input: 1_000_000, output: 1_000_000}}
"""


def chat(secret: str, max_tokens: int) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": max_tokens}
    headers = [("Authorization", f"Bearer {secret}"), ("Content-Type", "application/json")]
    return request("POST", CHAT, json.dumps(body).encode(), headers)


async def test_a_call_too_large_for_what_is_left_is_told_so_and_a_smaller_one_is_served(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    prices = {"file": str(tmp_path / "prices.yaml")}
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], prices=prices) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            made(admin.post("/teams", {"name": "engines"}))
            key = made(admin.post("/keys", {"team": "engines", "name": "ada", "budgets": {"total_microusd": 500}}))
            admin.close()
            refused = await ask(gateway.port, chat(key["secret"], 2000))
            assert upstream.requests == []
            served = await ask(gateway.port, chat(key["secret"], 2))
    assert served.status == 200
    error = refused.error
    assert (refused.status, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
    assert refused.header("x-should-retry") == "false"
    assert error["message"] == (
        "$0.0005 is left of this key's budget of $0.0005, calls under way included, and this call was estimated to need"
        " up to $0.0021. A lower max_tokens makes that less. Ask whoever runs this gateway for more."
    )


async def test_a_form_counts_against_a_budget_by_the_price_of_the_model_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    usage = {"input_tokens": 300, "output_tokens": 300, "total_tokens": 600}
    drawn = reply(200, [(b"content-type", b"application/json")], json.dumps({"data": [], "usage": usage}).encode())
    async with WireUpstream(drawn) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], prices={"file": str(tmp_path / "prices.yaml")}) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            made(admin.post("/teams", {"name": "engines"}))
            key = made(admin.post("/keys", {"team": "engines", "name": "ada", "budgets": {"total_microusd": 500}}))
            admin.close()
            served = await ask(gateway.port, edit(key["secret"]))
            refused = await ask(gateway.port, edit(key["secret"]))
            record = (await gateway.recorded(2))[0]
    assert (served.status, refused.status, refused.error["code"]) == (200, 429, "insufficient_quota")
    assert (record.model, record.cost_microusd) == ("m", 600)
    assert upstream.requests[0].body == FORM


def edit(secret: str) -> bytes:
    headers = [("Authorization", f"Bearer {secret}"), ("Content-Type", "multipart/form-data; boundary=limit")]
    return request("POST", "/v1/images/edits", FORM, headers)


FORM = (
    b'--limit\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n\x89PNG\r\n\r\n'
    b'--limit\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--limit--\r\n'
)
