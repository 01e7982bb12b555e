"""Limits at the face: who is refused, what every client is told, and that the truth replaces the estimate."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.faults.face import AUTHORIZATION, CHAT, Answer, ask, connected, post, request
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.wire import Fin, Stall, Step, WireUpstream, reply, sse

USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
OK = reply(200, [(b"content-type", b"application/json")], json.dumps({"id": "x", "usage": USAGE}).encode())
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
STREAM = {**BODY, "stream": True}


def limits(**tables: Mapping[str, int]) -> dict[str, Any]:
    return {"limits": tables}


def left(answer: Answer, of: str) -> int:
    return int(answer.header(f"x-ratelimit-remaining-{of}") or -1)


async def chat(gateway: RunningGateway, body: object = BODY) -> Answer:
    return await ask(gateway.port, post(CHAT, body))


async def test_a_call_over_its_rate_is_refused_with_when_to_try_again() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_key={"requests_per_minute": 3})) as gateway:
            statuses = [(await chat(gateway)).status for _ in range(3)]
            refused = await chat(gateway)
    assert statuses == [200, 200, 200]
    assert refused.status == 429
    assert (refused.error["type"], refused.error["code"]) == ("requests", "rate_limit_exceeded")
    assert "this key may use 3 requests a minute. Please try again in " in refused.error["message"]
    assert 1 <= int(refused.header("retry-after") or 0) <= 20
    assert 0 < int(refused.header("retry-after-ms") or 0) <= 20_000
    assert refused.header("x-ratelimit-limit-requests") == "3"
    assert refused.header("x-ratelimit-remaining-requests") == "0"
    assert len(upstream.requests) == 3


async def test_every_metered_reply_tells_of_the_tightest_limits() -> None:
    async with WireUpstream(OK, sse(["data: [DONE]\n\n"]), reply(500, [], b"{}"), [Fin()]) as upstream:
        with running_gateway(
            f"{upstream.url}/v1",
            **limits(
                each_key={"requests_per_minute": 60, "tokens_per_minute": 6000}, each_team={"requests_per_day": 9}
            ),
        ) as gateway:
            plain, stream, error, broken = [await chat(gateway, body) for body in (BODY, STREAM, BODY, BODY)]
    assert [plain.status, stream.status, error.status, broken.status] == [200, 200, 500, 502]
    assert [left(answer, "requests") for answer in (plain, stream, error, broken)] == [8, 7, 6, 5]
    for answer in (plain, stream, error, broken):
        assert answer.header("x-ratelimit-limit-requests") == "9"
        assert answer.header("x-ratelimit-limit-tokens") == "6000"
        assert answer.header("x-ratelimit-reset-tokens") is not None


async def test_routes_that_run_no_model_are_not_limited() -> None:
    async with WireUpstream(reply(200, [(b"content-type", b"application/json")], b'{"data":[]}')) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_key={"requests_per_minute": 1})) as gateway:
            answers = [await ask(gateway.port, request("GET", "/v1/models")) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert answers[0].header("x-ratelimit-limit-requests") is None


async def test_tokens_are_reserved_by_estimate_and_settled_by_usage() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_key={"tokens_per_hour": 1000})) as gateway:
            first = await chat(gateway)
            await gateway.recorded(1)
            second = await chat(gateway)
    assert left(first, "tokens") < 1000 - 100  # max_tokens was reserved
    assert left(first, "tokens") - left(second, "tokens") == 10  # and usage is what was taken


async def test_each_of_several_answers_is_reserved() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_key={"tokens_per_hour": 1000})) as gateway:
            one = await chat(gateway)
            await gateway.recorded(1)
            four = await chat(gateway, {**BODY, "n": 4})
    # 10 are what the first has taken, and a few the bytes of n.
    assert left(one, "tokens") - left(four, "tokens") - 10 - 300 in range(5)


async def test_an_error_of_upstreams_costs_no_tokens_and_one_that_never_got_there_nothing_at_all() -> None:
    keys = {"tokens_per_hour": 1000, "requests_per_hour": 10}
    async with WireUpstream(reply(500, [], b"{}"), OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_key=keys)) as gateway:
            first = await chat(gateway)
            await gateway.recorded(1)
            second = await chat(gateway)
            await gateway.recorded(2)
    assert (first.status, second.status) == (500, 200)
    assert left(first, "tokens") == left(second, "tokens")
    assert left(first, "requests") - left(second, "requests") == 1
    with running_gateway("http://127.0.0.1:9/v1", **limits(each_key=keys)) as gateway:
        answers = []
        for number in (1, 2):
            answers.append(await chat(gateway))
            await gateway.recorded(number)
    assert [answer.status for answer in answers] == [502, 502]
    assert left(answers[0], "requests") == left(answers[1], "requests") == 9


async def test_a_refused_call_takes_nothing() -> None:
    keys = {"requests_per_hour": 10, "tokens_per_hour": 130}
    async with WireUpstream(reply(200, [(b"content-type", b"application/json")], b'{"id":"x"}')) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_key=keys)) as gateway:
            first = await chat(gateway)
            refused = [await chat(gateway) for _ in range(3)]
    assert left(first, "requests") == 9
    assert {answer.error["type"] for answer in refused} == {"tokens"}
    assert {left(answer, "requests") for answer in refused} == {9}


async def test_parallel_calls_are_counted_while_they_last() -> None:
    script: list[Step] = [Stall()]
    async with WireUpstream(script, script, OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_team={"parallel": 2})) as gateway:
            async with connected(gateway.port) as one, connected(gateway.port) as two:
                one.send(post(CHAT, BODY))
                two.send(post(CHAT, BODY))
                await upstream.received(2)
                refused = await chat(gateway)
                assert (refused.status, refused.error["type"]) == (429, "requests")
                assert "this key's team may have 2 calls in flight at once" in refused.error["message"]
                assert (refused.header("retry-after"), refused.header("retry-after-ms")) == ("1", "1000")
                one.leave()
                await gateway.recorded(2)
                assert (await chat(gateway)).status == 200


BATCH = {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"}
FILE = reply(200, [], b'{"custom_id": "1", "body": {"model": "m"}}')


async def batch(gateway: RunningGateway) -> Answer:
    return await ask(gateway.port, post("/v1/batches", BATCH))


async def test_the_file_of_a_batch_is_read_for_calls_that_limits_admit_alone() -> None:
    async with WireUpstream([Stall()]) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_key={"parallel": 1})) as gateway:
            gateway.own("file-1")
            async with connected(gateway.port) as one:
                one.send(post("/v1/batches", BATCH))
                await upstream.received(1)
                assert (await batch(gateway)).status == 429
    assert [seen.target for seen in upstream.requests] == [b"/v1/files/file-1/content"]


async def test_a_batch_whose_file_is_refused_has_cost_a_request_and_one_that_was_not_read_none() -> None:
    async with WireUpstream(reply(200, [], b"no JSON"), FILE, OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_key={"requests_per_day": 9})) as gateway:
            gateway.own("file-1")
            answers = []
            for number in (1, 2):
                answers.append(await batch(gateway))
                await gateway.recorded(number)
    assert [(answer.status, left(answer, "requests")) for answer in answers] == [(400, 8), (200, 7)]
    with running_gateway("http://127.0.0.1:9/v1", **limits(each_key={"requests_per_day": 9})) as gateway:
        gateway.own("file-1")
        answers = []
        for number in (1, 2):
            answers.append(await batch(gateway))
            await gateway.recorded(number)
    assert [(answer.status, left(answer, "requests")) for answer in answers] == [(502, 8), (502, 8)]


async def test_limits_in_shadow_count_and_refuse_nobody() -> None:
    async with WireUpstream(OK) as upstream:
        settings = {"each_key": {"requests_per_minute": 1}, "shadow": ["key/requests"]}
        with running_gateway(f"{upstream.url}/v1", limits=settings) as gateway:
            answers = [await chat(gateway) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3


async def test_the_accounts_own_limit_binds_all_keys_together() -> None:
    keys = [{"name": name, "team": name, "secret": f"sk-of-{name}-0123456789"} for name in "ab"]
    async with WireUpstream(OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", keys=keys, **limits(endpoint={"requests_per_minute": 3})) as gateway:
            answers = [
                await ask(
                    gateway.port,
                    request(
                        "POST",
                        CHAT,
                        json.dumps(BODY).encode(),
                        [("Authorization", f"Bearer {key['secret']}"), ("Content-Type", "application/json")],
                    ),
                )
                for key in keys * 2
            ]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert "all keys together" in answers[-1].error["message"]


async def test_a_stream_that_was_left_is_settled_with_what_was_delivered() -> None:
    events = ['data: {"choices":[{"delta":{"content":"x"}}]}\n\n'] * 10
    script: list[Step] = [*sse(events, end=False), Stall()]
    async with WireUpstream(script, OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", **limits(each_key={"tokens_per_day": 100_000})) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, {**STREAM, "max_tokens": 50_000}))
                await client.head()
                async with asyncio.timeout(5):
                    await client.chunk()
                client.leave()
            await gateway.recorded(1)
            after = await chat(gateway)
    assert left(after, "tokens") > 99_000


async def test_a_call_over_its_limit_may_wait_for_its_turn_and_is_told_how_long_it_did() -> None:
    keys = {"requests_per_minute": 600, "parallel": 1}
    async with WireUpstream([Stall()], OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", limits={"each_key": keys, "max_wait_s": 5}) as gateway:
            async with connected(gateway.port) as one, connected(gateway.port) as two:
                one.send(post(CHAT, BODY))
                await upstream.received(1)
                two.send(post(CHAT, BODY))
                async with asyncio.timeout(5):
                    while not gateway.ask(lambda: gateway.app.proxy._allowance.room.waiting):
                        await asyncio.to_thread(gateway.ask, lambda: None)
                one.leave()
                answer = await two.answer()
                plain = await chat(gateway)
    assert answer.status == 200
    assert int(answer.header("x-gateway-queue-ms") or -1) >= 0
    assert plain.header("x-gateway-queue-ms") == "0"


async def test_a_call_that_would_wait_in_vain_is_refused_at_once() -> None:
    async with WireUpstream(OK) as upstream:
        with running_gateway(
            f"{upstream.url}/v1", limits={"each_key": {"requests_per_hour": 1}, "max_wait_s": 30}
        ) as gateway:
            assert (await chat(gateway)).status == 200
            refused = await chat(gateway)
    assert refused.status == 429


async def test_a_call_over_its_limit_does_not_wait_with_a_body_that_takes_too_much_memory() -> None:
    large = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 27_000_000}]}).encode()
    async with WireUpstream([Stall()]) as upstream:
        with running_gateway(f"{upstream.url}/v1", limits={"each_key": {"parallel": 1}, "max_wait_s": 600}) as gateway:
            async with connected(gateway.port) as one, connected(gateway.port) as two:
                one.send(post(CHAT, BODY))
                await upstream.received(1)
                two.send(post(CHAT, large))
                refused = await two.answer()
    assert (refused.status, refused.header("retry-after")) == (429, "1")


LARGE_FORM = request(
    "POST",
    "/v1/audio/transcriptions",
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--b--\r\n' % bytes(150_000),
    [AUTHORIZATION, ("Content-Type", "multipart/form-data; boundary=b")],
)


async def test_a_form_that_waits_for_its_turn_is_not_late_before_it_was_asked_for() -> None:
    head, _, form = LARGE_FORM.partition(b"\r\n\r\n")
    server, limits = {"request_timeout_s": 0.2}, {"each_key": {"parallel": 1}, "max_wait_s": 30}
    async with WireUpstream([Stall()], OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", server=server, limits=limits) as gateway:
            async with connected(gateway.port) as one, connected(gateway.port) as two:
                one.send(post(CHAT, BODY))
                await upstream.received(1)
                two.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
                asyncio.get_running_loop().call_later(0.5, one.leave)
                async with asyncio.timeout(5):
                    assert (await two.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
                two.send(form)
                assert (await two.answer()).status == 200


@pytest.mark.parametrize("waits", [post(CHAT, BODY), LARGE_FORM], ids=["json", "large form"])
async def test_a_client_that_leaves_while_it_waits_takes_nothing(waits: bytes) -> None:
    async with WireUpstream([Stall()], OK) as upstream:
        with running_gateway(f"{upstream.url}/v1", limits={"each_key": {"parallel": 1}, "max_wait_s": 30}) as gateway:
            async with connected(gateway.port) as one, connected(gateway.port) as two:
                one.send(post(CHAT, BODY))
                await upstream.received(1)
                two.send(waits)
                async with asyncio.timeout(5):
                    while not gateway.ask(lambda: gateway.app.proxy._allowance.room.waiting):
                        await asyncio.to_thread(gateway.ask, lambda: None)
                assert gateway.ask(lambda: gateway.app.proxy._allowance.room.held_bytes) >= len(waits) - 400
                two.leave()
                await gateway.recorded(1)
                one.leave()
                await gateway.recorded(2)
                assert (await chat(gateway)).status == 200
    assert len(upstream.requests) == 2
