"""What each call used, as its record, its limits and its client's receipt say, however it went."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from gateway.call import CallRecord, Usage
from gateway.metering.ledger_line import decode, encode
from tests.faults.face import CHAT, TRANSPORTS, Answer, ask, connected, post, request
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.wire import Fin, Reset, Script, Stall, Step, WireUpstream, chunked, reply, sse

MODEL = "vendor/model"
PRICES = f"""
unit: microusd_per_million_tokens
models:
  {MODEL}: {{looked_up: 2026-11-22, input: 2_000_000, output: 8_000_000}}
"""
USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
JSON = [(b"content-type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream")]
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
STREAM = {**BODY, "stream": True}
DELTA = {"choices": [{"index": 0, "delta": {"content": "fourfour"}}]}
DONE = "[DONE]"
OK = reply(200, JSON, json.dumps({"id": "x", "usage": USAGE}).encode())


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prices") / "prices.yaml"
    file.write_text(PRICES)
    return file


@contextmanager
def gateway_to(wire: WireUpstream, prices: Path, **sections: Any) -> Iterator[RunningGateway]:
    with running_gateway(f"{wire.url}/v1", prices={"file": str(prices)}, **sections) as gateway:
        yield gateway


async def called(
    prices: Path, *scripts: Script, body: object = BODY, path: str = CHAT, **sections: Any
) -> tuple[Answer, CallRecord]:
    """The answer to one call, and its record."""
    async with WireUpstream(*scripts) as upstream:
        with gateway_to(upstream, prices, **sections) as gateway:
            answer = await ask(gateway.port, post(path, body))
            return answer, (await gateway.recorded(1))[0]


def receipt(answer: Answer) -> tuple[str | None, ...]:
    return tuple(answer.header(f"x-gateway-{name}") for name in ("input-tokens", "output-tokens", "cost-usd"))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "script",
    [
        OK,
        chunked([json.dumps({"usage": USAGE}).encode()], headers=JSON),
        chunked([b'{"choices": [], "usage": {"prompt_tok', b'ens": 8, "completion_tokens": 2}', b"}"], headers=JSON),
        [OK[:-20], OK[-20:]],
    ],
)
async def test_a_plain_reply_tells_in_its_head_what_it_used(script: Script, prices: Path, transport: str) -> None:
    answer, record = await called(prices, script, upstream={"transport": transport})
    assert (answer.status, answer.end) == (200, "complete")
    assert record.usage is not None
    assert (record.usage_source, record.usage.input_tokens) == ("reported", 8)
    assert record.cost_microusd == 16 + 8 * record.usage.output_tokens
    assert receipt(answer) == ("8", str(record.usage.output_tokens), f"0.{record.cost_microusd:06}")


async def test_every_reply_tells_where_the_time_went(prices: Path) -> None:
    scripts = (OK, sse([DELTA, DONE]), reply(500, JSON, b"{}"), [Fin()])
    async with WireUpstream(*scripts) as upstream:
        with gateway_to(upstream, prices) as gateway:
            answers = [await ask(gateway.port, post(CHAT, body)) for body in (BODY, STREAM, BODY, BODY, {"model": 1})]
            records = await gateway.recorded(5)
    assert [answer.status for answer in answers] == [200, 200, 500, 502, 400]
    for answer, record in zip(answers, records, strict=True):
        overhead_ms = float(answer.header("x-gateway-overhead-ms") or -1)
        assert 0 <= overhead_ms < 1000
        if record.overhead_s is not None:
            assert overhead_ms == pytest.approx(record.overhead_s * 1000, abs=0.0011)
        assert answer.header("x-gateway-queue-ms") == "0"
        assert answer.header("x-gateway-upstream") == record.endpoint
    assert [record.endpoint for record in records] == ["upstream"] * 4 + [None]
    assert receipt(answers[1]) == (None, None, None)


async def test_a_stranger_is_not_told_how_long_it_took_to_see_that(prices: Path) -> None:
    async with WireUpstream(OK) as upstream:
        with gateway_to(upstream, prices) as gateway:
            answer = await ask(gateway.port, request("GET", "/v1/models", headers=[("Authorization", "Bearer sk-no")]))
    assert answer.status == 401
    assert [name for name, _ in answer.headers if name.startswith("x-gateway-")] == ["x-gateway-request-id"]


async def test_upstreams_time_is_not_the_gateways_though_a_reply_is_held(prices: Path) -> None:
    rest = asyncio.Event()

    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: object) -> None:
        writer.write(OK[:-10])
        await writer.drain()
        await asyncio.wait_for(rest.wait(), 5)
        writer.write(OK[-10:])

    async with WireUpstream(slow) as upstream:
        with gateway_to(upstream, prices) as gateway:
            asyncio.get_running_loop().call_later(0.3, rest.set)
            answer = await ask(gateway.port, post(CHAT, BODY))
            record = (await gateway.recorded(1))[0]
    assert float(answer.header("x-gateway-overhead-ms") or -1) < 150
    assert record.first_byte_s is not None
    assert record.first_byte_s + 0.15 < record.duration_s


async def test_a_model_without_a_price_has_no_cost_in_its_receipt(prices: Path) -> None:
    answer, record = await called(prices, OK, body={**BODY, "model": "another"})
    assert receipt(answer) == ("8", "2", None)
    assert (record.usage_source, record.cost_microusd) == ("reported", None)


async def test_the_ledger_has_a_model_by_the_name_that_it_was_priced_by(prices: Path) -> None:
    answer, record = await called(prices, OK, body={**BODY, "model": MODEL + "\0"})
    assert receipt(answer) == ("8", "2", None)
    assert record.model == decode(encode(record)).model == MODEL + "\ufffd"


async def test_white_space_that_keeps_a_connection_alive_is_passed_on_at_once(prices: Path) -> None:
    async with WireUpstream([*chunked([b" \n"], headers=JSON, end=False), Stall()]) as upstream:
        with gateway_to(upstream, prices) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, BODY))
                await client.head()
                assert await asyncio.wait_for(client.chunk(), 5) == b" \n"
                client.leave()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("padding", [0, 100_000])
async def test_a_reply_that_is_compressed_though_nobody_asked_is_read_and_passed_on_as_it_is(
    coding: str, padding: int, prices: Path
) -> None:
    text = json.dumps({"usage": USAGE, "x": "".join(map(chr, range(0x100, 0x100 + padding // 4)))}).encode()
    body = CODINGS[coding](text)
    answer, record = await called(prices, reply(200, [*JSON, (b"Content-Encoding", coding.encode())], body))
    assert answer.body == body
    assert answer.header("content-encoding") == coding
    assert record.usage == Usage(8, 2, 10)
    assert receipt(answer) == ("8", "2", "0.000032")


async def test_a_compressed_stream_is_read_too(prices: Path) -> None:
    events = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in (DELTA, {"usage": USAGE}))
    headers = [(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")]
    answer, record = await called(prices, reply(200, headers, gzip.compress(events)), body=STREAM)
    assert gzip.decompress(answer.body) == events
    assert (record.usage, record.usage_source) == (Usage(8, 2, 10), "reported")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_codings_in_two_lines_are_those_of_one(prices: Path, transport: str) -> None:
    body = gzip.compress(gzip.compress(json.dumps({"usage": USAGE}).encode()))
    script = reply(200, [*JSON, *[(b"content-encoding", b"gzip")] * 2], body)
    answer, record = await called(prices, script, upstream={"transport": transport})
    assert answer.body == body
    assert [value for name, value in answer.headers if name == "content-encoding"] == ["gzip", "gzip"]
    assert (record.usage, record.usage_source) == (Usage(8, 2, 10), "reported")


@pytest.mark.parametrize("headers", [EVENTS, JSON])
async def test_a_byte_order_mark_before_a_stream_is_no_part_of_its_first_event(
    headers: list[tuple[bytes, bytes]], prices: Path
) -> None:
    body = b"\xef\xbb\xbfdata: " + json.dumps({**DELTA, "usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
    answer, record = await called(prices, reply(200, headers, body), body=STREAM)
    assert answer.body == body
    assert (record.usage, record.usage_source) == (Usage(8, 2, 10), "reported")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b"{}"),
        (JSON, b'{"usage": null}'),
        (JSON, b'{"usage": {"prompt_tokens": 8}'),
        (JSON, b""),
        ([*JSON, (b"content-encoding", b"br")], b'{"usage":{"prompt_tokens":8}}'),
        ([*JSON, (b"content-encoding", b"gzip")], b'{"usage":{"prompt_tokens":8}}'),
        ([*JSON, (b"content-encoding", b"gzip")], gzip.compress(b"x" * 17 * 1024 * 1024)),
        ([(b"content-type", b"text/html")], b"<html>"),
    ],
)
async def test_a_complete_reply_that_does_not_say_what_it_used_is_unknown(
    headers: list[tuple[bytes, bytes]], body: bytes, prices: Path
) -> None:
    answer, record = await called(prices, reply(200, headers, body))
    assert answer.body == body
    assert (record.usage_source, record.usage, record.cost_microusd) == ("unknown", None, None)
    assert receipt(answer) == (None, None, None)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_usage_in_both_spellings_is_that_of_the_one_which_is_not_0(prices: Path, *, is_stream: bool) -> None:
    told = {"id": "x", "choices": [], "usage": {**USAGE, "input_tokens": 0, "output_tokens": 0}}
    script = sse([DELTA, told, DONE]) if is_stream else reply(200, JSON, json.dumps(told).encode())
    _, record = await called(prices, script, body=STREAM if is_stream else BODY)
    assert (record.usage, record.usage_source, record.cost_microusd) == (Usage(8, 2, 10), "reported", 8 * 2 + 2 * 8)


async def test_a_stream_that_never_reports_usage_is_unknown(prices: Path) -> None:
    _, record = await called(prices, sse([DELTA, DONE]), body=STREAM)
    assert (record.outcome, record.usage_source) == ("done", "unknown")


async def test_only_responses_are_made_in_the_background(prices: Path) -> None:
    _, record = await called(prices, sse([DELTA, DONE]), body={**STREAM, "background": True})
    assert (record.usage_source, record.cost_microusd) == ("unknown", None)


async def test_usage_of_a_reply_that_is_too_large_to_be_kept_is_found_at_its_end(prices: Path) -> None:
    body = json.dumps({"data": ["x" * 17 * 1024 * 1024], "usage": USAGE}).encode()
    answer, record = await called(prices, reply(200, JSON, body))
    assert answer.body == body
    assert record.usage == Usage(8, 2, 10)
    assert receipt(answer) == (None, None, None)


LARGE = {"result": "A" * 3_000_000}
"""More than comes from a socket at a time."""
COUNTS = {"input_tokens": 8, "output_tokens": 2, "total_tokens": 10}
RESPONSE = {"id": "resp_1", "background": True, "status": "completed", **LARGE, "usage": COUNTS, "metadata": {}}
COMPLETED = {"type": "response.completed", "response": RESPONSE}


@pytest.mark.parametrize(
    ("path", "document", "end"),
    [
        ("/v1/responses", COMPLETED, []),
        ("/v1/images/generations", {"type": "image_generation.completed", **LARGE, "usage": COUNTS}, []),
        (CHAT, {"choices": [], **LARGE, "usage": USAGE, "service_tier": None}, [DONE]),
    ],
)
async def test_usage_of_an_event_that_is_too_large_to_be_held_is_found_at_its_end(
    path: str, document: dict[str, Any], end: list[str], prices: Path
) -> None:
    body = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True}}
    stream = sse([DELTA, document, *end])
    _, record = await called(prices, stream, body=body, path=path, streams={"max_event_bytes": 1000})
    assert (record.outcome, record.usage_source, record.usage) == ("done", "reported", Usage(8, 2, 10))


async def test_a_response_in_the_background_whose_last_event_is_too_large_stays_due(prices: Path) -> None:
    told = {"id": "resp_1", "background": True, "status": "queued"}
    stream = sse([{"type": "response.created", "response": told}, COMPLETED])
    body = {"model": MODEL, "stream": True, "background": True}
    _, record = await called(prices, stream, body=body, path="/v1/responses", streams={"max_event_bytes": 1000})
    assert (record.usage_source, record.cost_microusd) == ("due", 0)


@pytest.mark.parametrize(
    "script",
    [
        reply(429, JSON, b"{}"),
        reply(500, JSON, b"{}"),
        reply(302, [], b""),
        reply(302, JSON, json.dumps({"usage": USAGE}).encode()),
        chunked([json.dumps({"usage": USAGE}).encode()], 302, JSON),
        chunked([b"data: " + json.dumps({"usage": USAGE}).encode() + b"\n\n"], 302, EVENTS),
        chunked([b"data: " + json.dumps({"usage": USAGE}).encode() + b"\n\n"], 500, EVENTS),
    ],
)
async def test_what_upstream_refuses_has_used_nothing(script: Script, prices: Path) -> None:
    answer, record = await called(prices, script)
    assert (record.usage_source, record.usage, record.cost_microusd) == ("none", None, 0)
    assert receipt(answer) == (None, None, None)
    assert record.outcome == ("done" if record.status == 302 else "upstream_error")


BREAKS: dict[str, list[Step]] = {"fin": [Fin()], "reset": [Reset()]}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("limits", [{}, {"each_key": {"tokens_per_day": 100_000}}])
async def test_a_stream_that_upstream_breaks_off_is_estimated_whether_limits_bind_or_not(
    how: str, limits: dict[str, Any], prices: Path
) -> None:
    script = [*sse([DELTA] * 5, end=False), *BREAKS[how]]
    async with WireUpstream(script, OK) as upstream:
        with gateway_to(upstream, prices, limits=limits) as gateway:
            await ask(gateway.port, post(CHAT, STREAM))
            record = (await gateway.recorded(1))[0]
            after = await ask(gateway.port, post(CHAT, BODY))
    sent = len(upstream.requests[0].body)
    assert record.outcome == "cut"
    assert record.usage is not None
    assert record.usage_source == "estimated"
    assert record.usage.output_tokens == 10
    assert abs(record.usage.input_tokens - sent / 4) < 20
    assert record.cost_microusd == 2 * record.usage.input_tokens + 80
    if limits:
        reserved = 100_000 - int(after.header("x-ratelimit-remaining-tokens") or 0) - record.usage.total_tokens
        assert 0 < reserved < 200  # what the second call reserves, and nothing else


async def test_a_stream_whose_client_has_left_is_estimated_by_what_it_got(prices: Path) -> None:
    async with WireUpstream([*sse([DELTA] * 5, end=False), Stall()]) as upstream:
        with gateway_to(upstream, prices) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, STREAM))
                await client.head()
                got = b""
                async with asyncio.timeout(5):
                    while got.count(b"\n\n") < 5:
                        got += await client.chunk()
                client.leave()
            record = (await gateway.recorded(1))[0]
    assert (record.outcome, record.usage_source) == ("client_left", "estimated")
    assert record.usage is not None
    assert record.usage.output_tokens == 10


async def test_usage_that_came_before_the_break_is_what_was_used(prices: Path) -> None:
    script = [*sse([DELTA, {"choices": [], "usage": USAGE}], end=False), Reset()]
    _, record = await called(prices, script, body=STREAM)
    assert (record.outcome, record.usage_source, record.usage) == ("cut", "reported", Usage(8, 2, 10))


async def test_a_plain_call_whose_client_has_left_is_estimated_by_its_prompt(prices: Path) -> None:
    async with WireUpstream([Stall()]) as upstream:
        with gateway_to(upstream, prices) as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, BODY))
                await upstream.received(1)
                client.leave()
            record = (await gateway.recorded(1))[0]
    assert (record.outcome, record.usage_source) == ("client_left", "estimated")
    assert record.usage is not None
    assert (record.usage.output_tokens, record.usage.input_tokens > 10) == (0, True)


@pytest.mark.parametrize("script", [[Fin()], [Reset()], [OK[:-20], Fin()]], ids=["fin", "reset", "half a reply"])
async def test_an_error_in_place_of_a_reply_is_no_answer_that_anybody_pays_for(script: Script, prices: Path) -> None:
    answer, record = await called(prices, script)
    assert (answer.status, record.outcome, record.usage_source) == (502, "failed", "estimated")
    assert record.usage is not None
    assert (record.usage.output_tokens, record.usage.input_tokens > 10) == (0, True)
    assert record.sent_bytes == len(answer.body) > 0


async def test_a_call_that_never_reached_upstream_has_used_nothing(prices: Path) -> None:
    with running_gateway("http://127.0.0.1:9/v1", prices={"file": str(prices)}) as gateway:
        await ask(gateway.port, post(CHAT, BODY))
        record = (await gateway.recorded(1))[0]
    assert (record.upstream_error, record.usage_source, record.cost_microusd) == ("connect", "none", 0)


async def test_a_reply_without_usage_leaves_limits_as_they_were_reserved(prices: Path) -> None:
    limits = {"each_key": {"tokens_per_day": 100_000}}
    async with WireUpstream(reply(200, JSON, b"{}"), OK) as upstream:
        with gateway_to(upstream, prices, limits=limits) as gateway:
            first = await ask(gateway.port, post(CHAT, {**BODY, "max_tokens": 5000}))
            await gateway.recorded(1)
            second = await ask(gateway.port, post(CHAT, BODY))
    left = [int(answer.header("x-ratelimit-remaining-tokens") or 0) for answer in (first, second)]
    assert left[0] < 95_000
    assert left[1] < left[0]


@pytest.mark.parametrize(
    ("path", "body", "reported", "usage"),
    [
        ("embeddings", {"input": "Hi"}, {"prompt_tokens": 8, "total_tokens": 8}, (8, 0)),
        ("completions", {"prompt": "Hi"}, USAGE, (8, 2)),
        ("responses/compact", {"input": "Hi"}, {"input_tokens": 3, "output_tokens": 4}, (3, 4)),
        ("responses", {"input": "Hi"}, {"input_tokens": 3, "output_tokens": 4}, (3, 4)),
        ("images/generations", {"prompt": "Hi"}, {"input_tokens": 5, "output_tokens": 9}, (5, 9)),
    ],
)
async def test_every_kind_of_call_is_counted_by_what_it_reports(
    path: str, body: dict[str, Any], reported: object, usage: tuple[int, int], prices: Path
) -> None:
    script = reply(200, JSON, json.dumps({"id": "resp_1", "usage": reported}).encode())
    answer, record = await called(prices, script, path=f"/v1/{path}", body={"model": MODEL, **body})
    assert record.usage is not None
    assert (record.usage.input_tokens, record.usage.output_tokens) == usage
    assert record.cost_microusd == 2 * usage[0] + 8 * usage[1]
    assert answer.header("x-gateway-cost-usd") is not None


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/v1/images/generations", "image_generation.completed"),
        ("/v1/audio/speech", "speech.audio.done"),
    ],
)
async def test_streams_of_images_and_speech_are_counted_by_their_last_event(path: str, end: str, prices: Path) -> None:
    script = sse(
        [{"type": "part", "b64_json": "AAAA"}, {"type": end, "usage": {"input_tokens": 3, "output_tokens": 7}}]
    )
    _, record = await called(prices, script, path=path, body={"model": MODEL, "stream": True})
    assert (record.usage_source, record.usage) == ("reported", Usage(3, 7, 10))


async def test_speech_that_is_plain_sound_is_unknown_and_passed_on_as_it_comes(prices: Path) -> None:
    sound = [(b"content-type", b"audio/mpeg")]
    async with WireUpstream([*chunked([b"ab"], headers=sound, end=False), Stall()]) as upstream:
        with gateway_to(upstream, prices) as gateway:
            async with connected(gateway.port) as client:
                client.send(post("/v1/audio/speech", {"model": MODEL}))
                await client.head()
                assert await asyncio.wait_for(client.chunk(), 5) == b"ab"
                client.leave()
            record = (await gateway.recorded(1))[0]
    assert record.usage_source == "unknown"


async def test_moderations_are_free(prices: Path) -> None:
    _, record = await called(prices, reply(200, JSON, b'{"results": []}'), path="/v1/moderations", body={"input": "Hi"})
    assert (record.usage_source, record.cost_microusd) == ("none", 0)
