"""What is counted of streams that end with an error, that begin with more than they say, or that are not called so."""

import asyncio
import json
from typing import Any

import pytest

from gateway.call import CallRecord, Usage
from tests.faults.face import CHAT, RESPONSES, TRANSPORTS, Answer, ask, connected, post, request
from tests.support.gateway import running_gateway
from tests.support.wire import Fin, Reset, Script, Wait, WireUpstream, chunked, reply, sse

BODY = {"model": "m", "messages": [], "input": "Hi", "stream": True}
DELTA = {"choices": [{"index": 0, "delta": {"content": "fourfour"}}]}
SAID = {"type": "response.output_text.delta", "delta": "fourfour", "item_id": "msg_1"}
ERROR = {"message": "boom", "type": "server_error", "code": "overloaded"}
RESPONSE: dict[str, Any] = {"id": "resp_1", "status": "failed", "error": ERROR, "usage": None}
FAILED = {"type": "response.failed", "response": RESPONSE}
DONE = "[DONE]"


async def called(script: Script, path: str, **sections: Any) -> tuple[Answer, CallRecord]:
    """The answer to one streamed call, and its record."""
    async with WireUpstream(script) as upstream:
        with running_gateway(f"{upstream.url}/v1", **sections) as gateway:
            answer = await ask(gateway.port, post(path, BODY))
            return answer, (await gateway.recorded(1))[0]


@pytest.mark.parametrize("echo", [0, 5_000, 20_000])
async def test_what_a_stream_repeats_of_its_request_hides_nothing_of_the_answer(echo: int) -> None:
    response = {**RESPONSE, "instructions": "x" * echo}
    begun = [{"type": f"response.{name}", "response": response} for name in ("created", "in_progress")]
    _, record = await called([*sse([*begun, *[SAID] * 500], end=False), Fin()], RESPONSES)
    assert (record.outcome, record.usage_source) == ("cut", "estimated")
    assert record.usage is not None
    assert record.usage.output_tokens == pytest.approx(1000, rel=0.02)


@pytest.mark.parametrize(("size", "count"), [(100_000, 1), (60_000, 20)])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_large_events_of_a_cut_stream_count_by_their_text(path: str, size: int, count: int) -> None:
    said = {"type": "response.function_call_arguments.delta", "delta": "x" * size}
    large = {"choices": [{"index": 0, "delta": {"content": "x" * size}}]} if path == CHAT else said
    _, record = await called([*sse([large] * count, end=False), Fin()], path)
    assert (record.outcome, record.usage_source) == ("cut", "estimated")
    assert record.usage is not None
    assert record.usage.output_tokens == pytest.approx(count * size / 4, rel=0.01)


@pytest.mark.parametrize("end", [Fin(), Reset()], ids=["fin", "reset"])
async def test_of_a_stream_that_tells_of_its_prompt_first_and_is_cut_the_answer_counts_too(end: Fin | Reset) -> None:
    first = {**DELTA, "usage": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}}
    _, record = await called([*sse([first, *[DELTA] * 4], end=False), end], CHAT)
    assert (record.outcome, record.usage_source, record.usage) == ("cut", "estimated", Usage(9, 10, 19))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("path", "events"),
    [
        (CHAT, [*[DELTA] * 5, {"error": ERROR}]),
        (CHAT, [*[DELTA] * 5, {"error": ERROR}, DONE]),
        (RESPONSES, [*[SAID] * 5, FAILED]),
        (RESPONSES, [*[SAID] * 5, {**ERROR, "type": "error"}]),
    ],
)
async def test_a_stream_that_upstream_ends_with_an_error_has_failed_and_is_estimated(
    path: str, events: list[Any], transport: str
) -> None:
    raw = [f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n".encode() for each in events]
    answer, record = await called(sse(raw), path, upstream={"transport": transport})
    assert answer.body == b"".join(raw)
    assert (answer.end, record.status, record.outcome) == ("complete", 200, "upstream_error")
    assert record.error == "overloaded"
    assert record.usage is not None
    assert (record.usage_source, record.usage.output_tokens) == ("estimated", 10)


async def test_a_response_that_failed_before_the_connection_broke_is_no_less_complete() -> None:
    answer, record = await called([*sse([SAID, FAILED], end=False), Reset()], RESPONSES)
    assert (answer.end, answer.body.count(b"event: error"), record.outcome) == ("complete", 0, "upstream_error")


async def test_what_a_response_that_failed_reports_is_what_was_used() -> None:
    failed = {**FAILED, "response": {**RESPONSE, "usage": {"input_tokens": 3, "output_tokens": 4}}}
    _, record = await called(sse([SAID, failed]), RESPONSES)
    assert (record.outcome, record.usage_source, record.usage) == ("upstream_error", "reported", Usage(3, 4, 7))


async def test_the_code_of_an_error_at_the_end_of_a_stream_has_no_secret_in_it() -> None:
    script = sse([DELTA, {"error": {"code": "key sk-upstream-canary-4f9d2c71b8 is wrong"}}])
    answer, record = await called(script, CHAT)
    assert record.error is not None
    assert "canary" not in record.error
    assert b"canary" not in answer.body


MISNAMED: list[list[tuple[bytes, bytes]]] = [
    [],
    [(b"Content-Type", b"application/json")],
    [(b"Content-Type", b"text/plain")],
]
TOLD = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
COMPLETED = {
    "type": "response.completed",
    "response": {**RESPONSE, "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 4}},
}


@pytest.mark.parametrize("headers", MISNAMED, ids=["none", "json", "text"])
@pytest.mark.parametrize(("path", "events"), [(CHAT, [DELTA, TOLD, DONE]), (RESPONSES, [SAID, COMPLETED])])
async def test_usage_of_a_stream_that_its_content_type_does_not_tell_of_counts_and_its_bytes_stay(
    path: str, events: list[Any], headers: list[tuple[bytes, bytes]]
) -> None:
    raw = [f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n".encode() for each in events]
    for script in (chunked(raw, headers=headers), reply(headers=headers, body=b"".join(raw))):
        answer, record = await called(script, path)
        assert (answer.status, answer.end, answer.body) == (200, "complete", b"".join(raw))
        assert (record.outcome, record.usage_source, record.usage) == ("done", "reported", Usage(3, 4, 7))


async def test_such_a_stream_is_passed_on_as_it_comes() -> None:
    go = asyncio.Event()
    head, first, *rest = chunked([b": hello\n\n", b"data: [DONE]\n\n"])
    async with WireUpstream([head, first, Wait(go), *rest]) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            async with connected(gateway.port) as client:
                client.send(post(CHAT, BODY))
                await client.head()
                assert await client.chunk() == b": hello\n\n"
                go.set()
                assert await client.chunk() == b"data: [DONE]\n\n"


async def test_what_such_a_stream_has_made_is_its_makers() -> None:
    made = [f"data: {json.dumps(COMPLETED)}\n\n".encode()]
    async with WireUpstream(chunked(made), reply(body=b"{}")) as upstream:
        with running_gateway(f"{upstream.url}/v1") as gateway:
            assert (await ask(gateway.port, post(RESPONSES, BODY))).status == 200
            assert (await ask(gateway.port, request("GET", f"{RESPONSES}/resp_1"))).status == 200
