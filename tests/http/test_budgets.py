"""What a client is told at the gateway's face whose call does not fit in what is left of a budget."""

import json
from pathlib import Path
from typing import Any

import pytest

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


def chat(secret: str, max_tokens: int, model: str = "m") -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": max_tokens}
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
        " up to $0.0021. Fewer answers (n) or shorter ones (max_tokens,"
        " max_output_tokens) make that less. Ask whoever runs this gateway for more."
    )


@pytest.mark.parametrize("unpriced", ["admit", "refuse"])
async def test_a_model_without_a_price_is_refused_where_budgets_bind_and_the_settings_say_so(
    tmp_path: Path, unpriced: str
) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    how = {"prices": {"file": str(tmp_path / "prices.yaml")}, "limits": {"unpriced": unpriced}}
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], **how) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            made(admin.post("/teams", {"name": "engines"}))
            free = made(admin.post("/keys", {"team": "engines", "name": "ada", "limits": {"parallel": 9}}))["secret"]
            bound = made(admin.post("/keys", {"team": "engines", "name": "bob", "budgets": {"total_microusd": 500}}))
            admin.close()
            assert (await ask(gateway.port, chat(free, 2, "other"))).status == 200
            assert (await ask(gateway.port, chat(bound["secret"], 2))).status == 200
            told = await ask(gateway.port, chat(bound["secret"], 2, "other"))
    assert len(upstream.requests) == (3 if unpriced == "admit" else 2)
    if unpriced == "refuse":
        assert (told.status, told.error["code"]) == (403, "model_unpriced")
        assert "'other' has no price" in told.error["message"]


async def test_a_budget_that_only_counts_refuses_no_model_without_a_price(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    how = {
        "prices": {"file": str(tmp_path / "prices.yaml")},
        "limits": {"unpriced": "refuse", "shadow": ["key/budget"]},
    }
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], **how) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            made(admin.post("/teams", {"name": "engines"}))
            key = made(admin.post("/keys", {"team": "engines", "name": "ada", "budgets": {"total_microusd": 500}}))
            admin.close()
            assert (await ask(gateway.port, chat(key["secret"], 2, "other"))).status == 200


FREE = ["/v1/moderations", "/v1/responses/input_tokens"]


def free(secret: str, path: str, **named: str) -> bytes:
    headers = [("Authorization", f"Bearer {secret}"), ("Content-Type", "application/json")]
    return request("POST", path, json.dumps({"input": "x" * 10_000, **named}).encode(), headers)


@pytest.mark.parametrize("path", FREE)
@pytest.mark.parametrize("named", [{}, {"model": "other"}, {"model": "m"}], ids=["none", "unpriced", "priced"])
async def test_what_is_free_is_never_refused_for_want_of_a_price_and_reserves_nothing(
    tmp_path: Path, path: str, named: dict[str, str]
) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    how = {"prices": {"file": str(tmp_path / "prices.yaml")}, "limits": {"unpriced": "refuse"}}
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], **how) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            made(admin.post("/teams", {"name": "engines"}))
            key = made(admin.post("/keys", {"team": "engines", "name": "ada", "budgets": {"total_microusd": 1}}))
            answers = [await ask(gateway.port, free(key["secret"], path, **named)) for _ in range(3)]
            left = admin.get("/limits", key=key["id"]).json()["data"][0]["remaining"]
            admin.close()
            records = await gateway.recorded(3)
    assert [answer.status for answer in answers] == [200] * 3
    assert ({record.cost_microusd for record in records}, left) == ({0}, 1)


@pytest.mark.parametrize("path", FREE)
async def test_a_budget_that_is_spent_refuses_what_is_free_too(tmp_path: Path, path: str) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], prices={"file": str(tmp_path / "prices.yaml")}) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            made(admin.post("/teams", {"name": "engines"}))
            key = made(admin.post("/keys", {"team": "engines", "name": "ada", "budgets": {"total_microusd": 100}}))
            assert (await ask(gateway.port, chat(key["secret"], 2))).status == 200
            assert admin.patch(f"/keys/{key['id']}", {"budgets": {"total_microusd": 10}}).status_code == 200
            refused = await ask(gateway.port, free(key["secret"], path))
            admin.close()
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")


async def test_a_form_counts_against_a_budget_by_the_price_of_the_model_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    usage = {"input_tokens": 300, "output_tokens": 300, "total_tokens": 600}
    drawn = reply(200, [(b"content-type", b"application/json")], json.dumps({"data": [], "usage": usage}).encode())
    async with WireUpstream(drawn) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], prices={"file": str(tmp_path / "prices.yaml")}) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            made(admin.post("/teams", {"name": "engines"}))
            key = made(admin.post("/keys", {"team": "engines", "name": "ada", "budgets": {"total_microusd": 1500}}))
            admin.close()
            served = await ask(gateway.port, edit(key["secret"]))
            refused = await ask(gateway.port, edit(key["secret"]))
            record = (await gateway.recorded(2))[0]
    assert (served.status, refused.status, refused.error["code"]) == (200, 429, "insufficient_quota")
    assert (record.model, record.cost_microusd) == ("m", 600)
    assert upstream.requests[0].body == FORM


async def test_images_and_sound_are_taken_to_cost_what_they_did_before_each_of_several_for_itself(
    tmp_path: Path,
) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES.replace("output: 1", "audio_seconds: 1_000_000_000, output: 1"))
    json_type = [(b"content-type", b"application/json")]
    usage = {"input_tokens": 10, "output_tokens": 39_990, "total_tokens": 40_000}
    drawn = reply(200, json_type, json.dumps({"data": [], "usage": usage}).encode())
    heard = reply(200, json_type, json.dumps({"text": "Hi", "usage": {"type": "duration", "seconds": 40}}).encode())
    async with WireUpstream(drawn, heard) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], prices={"file": str(tmp_path / "prices.yaml")}) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            made(admin.post("/teams", {"name": "engines"}))
            draws, hears = (
                made(admin.post("/keys", {"team": "engines", "name": name, "budgets": {"total_microusd": limit}}))[
                    "secret"
                ]
                for name, limit in (("ada", 150_000), ("bob", 70_000))
            )
            admin.close()
            assert (await ask(gateway.port, image(draws, 1))).status == 200
            assert (await ask(gateway.port, edit(hears, "/v1/audio/transcriptions"))).status == 200
            records = await gateway.recorded(2)
            refused = [
                await ask(gateway.port, image(draws, 3)),
                await ask(gateway.port, edit(draws, n=3)),
                await ask(gateway.port, edit(hears, "/v1/audio/transcriptions")),
            ]
            served = await ask(gateway.port, image(draws, 2))
    assert [each.cost_microusd for each in records] == [40_000, 40_000]
    assert [(each.status, each.error["code"]) for each in refused] == [(429, "insufficient_quota")] * 3
    assert (served.status, len(upstream.requests)) == (200, 3)


@pytest.mark.parametrize("terms", [{}, {"budgets": {"total_microusd": 10**9}}], ids=["streamed", "read first"])
async def test_a_form_for_several_images_teaches_what_one_costs(tmp_path: Path, terms: dict[str, Any]) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    usage = {"input_tokens": 10, "output_tokens": 159_990, "total_tokens": 160_000}
    drawn = reply(200, [(b"content-type", b"application/json")], json.dumps({"data": [], "usage": usage}).encode())
    async with WireUpstream(drawn) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=[], prices={"file": str(tmp_path / "prices.yaml")}) as gateway:
            admin = Client(gateway.url, gateway.admin_secret)
            made(admin.post("/teams", {"name": "engines", "limits": {"requests_per_day": 100}}))
            others = made(admin.post("/keys", {"team": "engines", "name": "bob", **terms}))
            own = made(admin.post("/keys", {"team": "engines", "name": "ada", "budgets": {"total_microusd": 50_000}}))
            admin.close()
            assert (await ask(gateway.port, edit(others["secret"], n=4))).status == 200
            await gateway.recorded(1)
            statuses = [(await ask(gateway.port, image(own["secret"], n))).status for n in (2, 1)]
    assert statuses == [429, 200]


def image(secret: str, n: int) -> bytes:
    headers = [("Authorization", f"Bearer {secret}"), ("Content-Type", "application/json")]
    body = {"model": "m", "prompt": "A cat", "n": n}
    return request("POST", "/v1/images/generations", json.dumps(body).encode(), headers)


def edit(secret: str, path: str = "/v1/images/edits", n: int = 1) -> bytes:
    headers = [("Authorization", f"Bearer {secret}"), ("Content-Type", "multipart/form-data; boundary=limit")]
    several = b'--limit\r\nContent-Disposition: form-data; name="n"\r\n\r\n%d\r\n' % n
    return request("POST", path, FORM if n == 1 else several + FORM, headers)


FORM = (
    b'--limit\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n\x89PNG\r\n\r\n'
    b'--limit\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--limit--\r\n'
)
